"""Every kind of bad input is named with file, row group, column and row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.parquet import DataError
from ranker.data.problems import ProblemLog
from ranker.data.tables import (
    read_earlier_history,
    read_owner_table,
    read_requests,
    stream_log,
)
from ranker.schema import Schema

START_MS = 1_700_000_000_000
Columns = dict[str, object]
MakeColumns = Callable[..., Columns]
WriteLog = Callable[..., Path]
ReadLog = Callable[[Path], tuple[pa.Table, ProblemLog, list[pa.Table]]]


def test_good_rows_become_canonical(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    table, problems, quarantined = read_log(write_log(log_columns()))
    assert problems.bad_rows == 0 and problems.counts() == {} and quarantined == []
    assert table.column("user").to_pylist() == [11, 12, 13, 11, 12, 13, 11]
    assert table.column("item").to_pylist() == list("abcdeab")
    # time + watch time + 1.5 s
    assert table.column("visible_ms").to_pylist() == [
        START_MS + k * 1000 + play + 1500
        for k, play in enumerate([0, 500, 2_000, 3_600_000, 0, 40, 7])
    ]
    assert table.column("position").to_pylist() == [0, 1, 2, 3, 0, 1, 3]  # 4 positions at most
    watch_s = [0, 0.5, 2.0, 300.0, 0, 0.04, 0.007]  # in seconds, capped
    assert table.column("label.watch_time_s").to_pylist() == pytest.approx(watch_s)
    assert table.column("label.rating").to_pylist() == [None, None, 4, None, None, 1, 5]
    assert table.column("feature.tags").to_pylist()[:4] == [
        ["x", "q"],
        ["y"],
        None,  # an empty text holds no element
        ["z", "x", "y", "q"],
    ]
    born_ms = table.column("feature.age").to_pylist()[:2]
    assert born_ms == [1_698_796_800_000, 1_698_926_400_000]  # date -u -d 2023-11-01 +%s


BAD_VALUES = {
    "null_user": ("user_id", None, "null: got None, expected an id"),
    "fraction_user": ("user_id", 1.5, "not a whole number: got 1.5, expected an id"),
    "null_item": ("item_id", None, "null: got None, expected an id"),
    "null_time": ("time_ms", None, "null: got None, expected a time stamp"),
    "seconds_as_ms": (
        "time_ms",
        1_700_000_000,
        "impossible time stamp: got 1700000000, expected a time between 1990 and 2100 in the "
        "schema's unit (ms)",
    ),
    "microseconds_as_ms": ("time_ms", START_MS * 1000, "impossible time stamp: got 17000"),
    "negative_position": ("position", -2, "negative: got -2, expected positions from 0"),
    "negative_watch": ("play_ms", -7, "negative watch time: got -7, expected 0 or more"),
    "nan_label": ("click", float("nan"), "NaN: got nan, expected a number or null"),
    "infinite_label": ("rating", float("inf"), "infinite: got inf, expected a number or null"),
    "label_not_binary": ("click", 3, "out of range: got 3, expected 0 or 1"),
    "label_too_small": ("rating", 0.5, "out of range: got 0.5, expected 1 .. 5 after the factor 1"),
    "label_too_large": ("rating", 6.0, "out of range: got 6.0, expected 1 .. 5"),
    "null_topic": ("topic", None, "null: got None, expected an id"),
    "null_sequence": ("tags", None, "null: got None, expected a sequence"),
    "null_number": ("price", None, "null: got None, expected a number"),
    "nan_number": ("price", float("nan"), "NaN: got nan, expected a number or null"),
    "infinite_number": ("price", float("-inf"), "infinite: got -inf, expected a finite number"),
    "negative_log1p": ("price", -0.5, "negative: got -0.5, expected 0 or more"),
    "too_large_number": ("price", 1e300, "too large: got 1e+300, expected at most 3.4e+38 in size"),
    "no_date": ("published", "yesterday", "not a date: got 'yesterday', expected like 2022-04-10"),
    "null_date": ("published", None, "null: got None, expected a date"),
}


@pytest.mark.parametrize(("column", "value", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_value_is_named_and_left_out(
    column: str,
    value: object,
    message: str,
    log_columns: MakeColumns,
    write_log: WriteLog,
    read_log: ReadLog,
) -> None:
    columns = log_columns()
    values = columns[column]
    values = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    values[4] = value
    path = write_log(columns | {column: pa.array(values)})
    table, problems, quarantined = read_log(path)
    sentence = next(s for s in problems.sentences() if f"column {column!r}: {message}" in s)
    # row 4 of rows in groups of three
    assert sentence.startswith(f"{path}: row group 1, row 1, column {column!r}: ")
    assert sentence.endswith("(such rows: 1)")
    assert problems.bad_rows == 1
    assert table.num_rows == 6
    assert table.column("item").to_pylist() == list("abcdab")
    (bad,) = quarantined
    assert bad.select(["_row_group", "_row"]).to_pylist() == [{"_row_group": 1, "_row": 1}]
    assert bad.column(column).to_pylist() == [pytest.approx(value, nan_ok=True)]
    assert bad.column("_reason")[0].as_py() == f"{column}: {message.split(':', maxsplit=1)[0]}"


def test_a_bad_row_may_hold_views(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    columns = log_columns(click=[0, 7, 1, 1, 0, 0, 1])
    items = pa.array(columns["item_id"]).cast(pa.string_view())
    _, _, (bad,) = read_log(write_log(columns | {"item_id": items}))
    assert bad.column("item_id").to_pylist() == ["b"]


def test_a_column_read_twice_is_reported_once(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    """The watch time is a label, too."""
    path = write_log(log_columns(play_ms=[0, -5.0, float("nan"), 3, float("inf"), -4.0, 2]))
    _, problems, _ = read_log(path)
    assert problems.counts() == {
        "play_ms: negative watch time": 2,
        "play_ms: no duration": 2,
    }


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_lists_of_ids_that_int64_can_not_hold(
    kind: Callable[[pa.DataType], pa.DataType],
    log_columns: MakeColumns,
    write_log: WriteLog,
    read_log: ReadLog,
) -> None:
    lists = [[1], [2], [], [3, 2**63 - 1, None], [4, 2**63], [5], [2**64 - 1]]
    path = write_log(log_columns(tags=pa.array(lists, kind(pa.uint64()))))
    table, problems, _ = read_log(path)
    assert table.column("feature.tags").to_pylist() == [lists[k] for k in (0, 1, 2, 3, 5)]
    (sentence,) = problems.sentences()
    assert f"{path}: row group 1, row 1, column 'tags': too large: got [4, {2**63}]" in sentence


def test_ids_that_int64_can_not_hold_beside_nulls(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    places = pa.array([1, None, 2**63, 4, None, 6, 7], pa.uint64())
    table, problems, _ = read_log(write_log(log_columns(place=places)))
    assert problems.counts() == {"place: too large": 1}
    assert table.num_rows == 6


def test_problems_are_counted_and_rows_once(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    path = write_log(
        log_columns(
            click=[0, 7, 1, 1, 7, 7, 1],
            price=[0.0, -1.0, 2.5, 3.5, 1.25, 0.0, float("nan")],
        )
    )
    table, problems, _ = read_log(path)
    assert problems.counts() == {"click: out of range": 3, "price: negative": 1, "price: NaN": 1}
    assert problems.bad_rows == 4 and table.num_rows == 3
    first, *rest = problems.sentences()
    assert f"{path}: row group 0, row 1, column 'click'" in first and "(such rows: 3)" in first
    assert len(rest) == 2


def test_missing_column(log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog) -> None:
    path = write_log(log_columns(topic=None))
    with pytest.raises(
        DataError, match=rf"{re.escape(str(path))}: column 'topic' is missing; the file has \["
    ):
        read_log(path)


def test_missing_columns_are_named_in_one_line(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    path = write_log(log_columns(topic=None, price=None, click=["yes"] * 7))
    with pytest.raises(DataError) as caught:
        read_log(path)
    missing, other = str(caught.value).splitlines()
    assert missing.startswith(f"{path}: columns 'topic', 'price' are missing; the file has [")
    assert other == f"{path}: column 'click' must be a number, got string"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("time_ms", ["2023-11-01"] * 7, "must be an integer or a timestamp, got string"),
        ("click", ["yes"] * 7, "must be a number, got string"),
        ("position", [0.5] * 7, "must be an integer, got double"),
        ("published", [3] * 7, "must be a date, a timestamp or text like 2022-04-10, got int64"),
        (
            "published",
            pa.array([3] * 7, pa.duration("s")),
            "must be a date, a timestamp or text like 2022-04-10, got duration",
        ),
        ("tags", [3] * 7, "must be text or a list of integers or texts, got int64"),
        ("user_id", [[1]] * 7, "must be an integer, boolean or text"),
    ],
)
def test_retyped_column(
    column: str,
    values: object,
    message: str,
    log_columns: MakeColumns,
    write_log: WriteLog,
    read_log: ReadLog,
) -> None:
    path = write_log(log_columns(**{column: values}))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}: column '{column}' {message}"):
        read_log(path)


def test_lists_of_numbers_are_no_sequence(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    path = write_log(log_columns(tags=[[0.5]] * 7))
    with pytest.raises(DataError, match="'tags' must hold lists of integers or texts, got list"):
        read_log(path)


def test_ids_have_one_type_in_all_files(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    first = write_log(log_columns(), "log/a.parquet")
    second = write_log(log_columns(user_id=[str(u) for u in range(7)]), "log/b.parquet")
    message = f"{second}: column 'user_id' is string, but number in {first}; ids must have one type"
    with pytest.raises(DataError, match=re.escape(message)):
        read_log(first.parent)
    write_log(log_columns(tags=[[1]] * 7), "log/b.parquet")
    with pytest.raises(DataError, match=r"'tags' is list.*but text in"):
        read_log(first.parent)


def test_types_may_differ_where_they_mean_the_same(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    expected, _, _ = read_log(write_log(log_columns()))
    columns = log_columns()
    other = {
        "user_id": pa.array([float(u) for u in columns["user_id"]]),
        "item_id": pa.array(columns["item_id"]).dictionary_encode(),
        "position": pa.array(columns["position"], pa.uint8()),
        "play_ms": pa.array(columns["play_ms"], pa.float32()),
        "click": pa.array([bool(c) for c in columns["click"]]),
        "place": pa.array(columns["place"], pa.large_string()),
        "topic": pa.array(columns["topic"]).cast(pa.string_view()),
    }
    table, problems, _ = read_log(write_log(columns | other, "other.parquet"))
    assert problems.sentences() == []
    assert table.equals(expected)  # the row hashes too
    for unit in ("ms", "us"):
        stamps = pa.array(columns["time_ms"], pa.timestamp("ms", "Asia/Tokyo"))
        columns["time_ms"] = stamps.cast(pa.timestamp(unit, "Asia/Tokyo"))
        table, problems, _ = read_log(write_log(columns, "stamps.parquet"))
        assert table.equals(expected)
        columns = log_columns()


def test_a_label_column_of_nulls_has_no_type(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    table, problems, _ = read_log(write_log(log_columns(rating=[None] * 7)))
    assert problems.bad_rows == 0
    assert table.column("label.rating").null_count == 7


def test_unsigned_position_with_null_is_missing(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    position = pa.array([0, None, 2, 2**64 - 1, 1, 0, 3], pa.uint64())
    table, problems, _ = read_log(write_log(log_columns(position=position)))
    assert table.column("position").to_pylist() == [0, -1, 2, 1, 0, 3]
    assert "got 18446744073709551615, expected positions from 0" in problems.sentences()[0]


def test_ids_above_2_to_the_53_stay_exact(
    log_columns: MakeColumns, write_log: WriteLog, read_log: ReadLog
) -> None:
    ids = [2**53 + k for k in range(7)]
    table, problems, _ = read_log(write_log(log_columns(user_id=ids)))
    assert table.column("user").to_pylist() == ids
    # As floats neighbours can't be told apart: such ids are refused.
    table, problems, _ = read_log(write_log(log_columns(user_id=[float(i) for i in ids])))
    assert table.num_rows == 0
    assert problems.counts() == {"user_id: not a whole number": 7}
    large = pa.array([*ids[:6], 2**63], pa.uint64())
    table, problems, _ = read_log(write_log(log_columns(user_id=large)))
    assert table.column("user").to_pylist() == ids[:6]
    assert "got 9223372036854775808, expected an id below 2**63" in problems.sentences()[0]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_label_is_kept_or_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    labels = data.draw(st.lists(st.none() | st.floats(width=32), min_size=1, max_size=9))
    schema = Schema.model_validate(
        {
            "name": "one",
            "log": {"user": "u", "item": "i", "time": "t", "time_unit": "s"},
            "features": [],
            "tasks": [{"name": "y", "label": "y", "family": "engagement", "kind": "binary"}],
        }
    )
    path = tmp_path_factory.mktemp("any") / "log.parquet"
    count = len(labels)
    columns = {
        "u": [1] * count,
        "i": [2] * count,
        "t": [10**9] * count,
        "y": pa.array(labels, pa.float64()),
    }
    pa.parquet.write_table(pa.table(columns), path)
    problems = ProblemLog()
    (table,) = stream_log(path, schema, problems=problems, quarantine=lambda _: None)
    good = [y for y in labels if y is None or y in (0, 1)]
    assert table.column("label.y").to_pylist() == good
    assert problems.bad_rows == count - len(good)


@pytest.fixture(scope="module")
def table_schema() -> Schema:
    return Schema.model_validate(
        {
            "name": "tables",
            "log": {"user": "u", "item": "i", "time": "t"},
            "item_table": True,
            "features": [
                {"name": "size", "kind": "numeric", "owner": "item"},
                {"name": "kind", "kind": "categorical", "owner": "item", "nullable": True},
            ],
            "tasks": [{"name": "y", "label": "y", "family": "engagement", "kind": "binary"}],
            "earlier_history": {"order": "n"},
        }
    )


def test_owner_table(write_log: WriteLog, table_schema: Schema) -> None:
    path = write_log(
        {"i": [3, 1, 2], "size": [0.5, 1.5, 2.5], "kind": ["a", None, "b"], "z": "xyz"}
    )
    table = read_owner_table(path, table_schema, "item")
    assert table.to_pydict() == {
        "id": [3, 1, 2],
        "feature.size": [0.5, 1.5, 2.5],
        "feature.kind": ["a", None, "b"],
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"i": [3, 1, 3, 1], "size": [1.0] * 4, "kind": list("abcd")},
            "'i' must be unique in the item table, 3 occurs more than once",
        ),
        ({"i": [3, 1], "kind": ["a", "b"]}, "column 'size' is missing"),
        (
            {"i": [3, 1], "size": ["x", "y"], "kind": ["a", "b"]},
            "'size' must be a number, got string",
        ),
        (
            {"i": [3, 1], "size": [1.0, None], "kind": ["a", "b"]},
            "row group 0, row 1, column 'size': null",
        ),
        (
            {"i": [3, None], "size": [1.0, 2.0], "kind": ["a", "b"]},
            "row group 0, row 1, column 'i': null",
        ),
        (
            {
                "i": pa.array([], pa.int64()),
                "size": pa.array([], pa.float64()),
                "kind": pa.array([], pa.string()),
            },
            "the item table has no rows",
        ),
    ],
)
def test_owner_table_is_rejected(
    columns: Columns, message: str, write_log: WriteLog, table_schema: Schema
) -> None:
    path = write_log(columns)
    with pytest.raises(DataError, match=message) as caught:
        read_owner_table(path, table_schema, "item")
    assert str(path) in str(caught.value)


def test_earlier_history_lacks_labels_it_does_not_know(
    write_log: WriteLog, table_schema: Schema
) -> None:
    path = write_log({"u": [1, 2], "i": [5, 6], "n": [0, 7]})
    table = read_earlier_history(path, table_schema)
    assert table.to_pydict() == {
        "user": [1, 2],
        "item": [5, 6],
        "order": [0, 7],
        "label.y": [None, None],
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"u": [1], "i": [5]}, "column 'n' is missing"),
        ({"u": [1], "i": [5], "n": pa.array([None], pa.int64())}, "row 0, column 'n': null"),
        ({"u": [1], "i": [5], "n": [0], "y": [2]}, "column 'y': out of range: got 2"),
        ({"u": [1], "i": [5], "n": [0], "y": ["1"]}, "column 'y' must be a number, got string"),
        ({"u": [1], "i": [5], "n": pa.array([2**63], pa.uint64())}, "column 'n': too large"),
        (
            {
                "u": pa.array([], pa.int64()),
                "i": pa.array([], pa.int64()),
                "n": pa.array([], pa.int64()),
            },
            "the earlier history has no rows",
        ),
    ],
)
def test_earlier_history_is_rejected(
    columns: Columns, message: str, write_log: WriteLog, table_schema: Schema
) -> None:
    with pytest.raises(DataError, match=message):
        read_earlier_history(write_log(columns), table_schema)


def test_a_bad_candidate_rejects_them_all(write_log: WriteLog, table_schema: Schema) -> None:
    good = write_log({"u": [1, 2], "i": [5, 6], "t": [START_MS, START_MS]})
    assert read_requests(good, table_schema, content="candidates").num_rows == 2
    bad = write_log({"u": [1, 2], "i": [5, None], "t": [START_MS, START_MS]})
    with pytest.raises(DataError, match=r"is rejected:\n.*row 1, column 'i': null"):
        read_requests(bad, table_schema, content="candidates")


def test_conditional_labels_are_masked(write_log: WriteLog) -> None:
    schema = Schema.model_validate(
        {
            "name": "two",
            "log": {"user": "u", "item": "i", "time": "t"},
            "features": [],
            "tasks": [
                {"name": "open", "label": "o", "family": "engagement", "kind": "binary"},
                {
                    "name": "buy",
                    "label": "b",
                    "family": "engagement",
                    "kind": "binary",
                    "conditional_on": "open",
                },
            ],
        }
    )
    columns = {"u": [1] * 4, "i": [2] * 4, "t": [START_MS] * 4}
    path = write_log(columns | {"o": [1, 0, None, 1], "b": [0, 0, 1, None]})
    tables = list(stream_log(path, schema, problems=ProblemLog(), quarantine=lambda _: None))
    buy = pa.concat_tables(tables).column("label.buy").to_pylist()
    assert buy == [0, None, None, None]


def test_threshold_makes_a_binary_label(write_log: WriteLog) -> None:
    schema = Schema.model_validate(
        {
            "name": "stars",
            "log": {"user": "u", "item": "i", "time": "t", "time_unit": "us"},
            "features": [],
            "tasks": [
                {
                    "name": "liked",
                    "label": "stars",
                    "family": "satisfaction",
                    "kind": "binary",
                    "threshold": 4,
                }
            ],
        }
    )
    stars = [3.5, 4.0, None, 4.5]
    times = [START_MS * 1000 + 999] * 4
    path = write_log({"u": [1] * 4, "i": [2] * 4, "t": times, "stars": stars})
    tables = list(stream_log(path, schema, problems=ProblemLog(), quarantine=lambda _: None))
    table = pa.concat_tables(tables)
    assert table.column("label.liked").to_pylist() == [0, 1, None, 1]
    assert set(np.asarray(table.column("time_ms"))) == {START_MS}
