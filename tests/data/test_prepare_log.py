"""From raw files to a store: what is dropped, what is kept, and that cutting changes nothing."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.encode import Encoders
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSettings, PrepareSummary, describe, read_summary
from ranker.data.state import load_state
from ranker.data.store import EncodedStore
from ranker.data.store_layout import store_columns
from ranker.data.synthetic import START_S, SyntheticLog
from ranker.manifest import folder_digests
from ranker.schema import Schema

START_MS = 1_700_000_000_000
DAY_S = 86_400
MakeColumns = Callable[..., dict[str, object]]
WriteLog = Callable[..., Path]
PrepareLog = Callable[..., tuple[Path, PrepareSummary]]


def sha256s(prepared: Path) -> dict[str, str]:
    return dict(EncodedStore(prepared).sha256_by_column)


def test_small_log_by_hand(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    columns = log_columns()
    backwards = {name: list(values)[::-1] for name, values in columns.items()}
    backwards["rating"] = pa.array([5.0, 1.0, None, None, 4.0, None, None])
    prepared, summary = prepare_log(Inputs(log=write_log(backwards)), log_schema)
    store = EncodedStore(prepared)
    assert store.column("time_ms").tolist() == columns["time_ms"]
    assert store.column("user").tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert store.column("item").tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert store.column("position").tolist() == [1, 2, 3, 4, 1, 2, 4]  # 0 = missing
    # Row by row: x, q (its tags), y, then z; as in the rows, not first all topics.
    assert store.encoders.vocabularies["topic"].ids.tolist() == ["x", "q", "y", "z"]
    assert store.column("feature.topic").tolist() == [1, 3, 1, 4, 3, 1, 3]
    assert store.column("feature.tags").tolist()[:4] == [[0, 1, 2], [0, 0, 3], [0] * 3, [1, 3, 2]]
    assert store.column("feature.place").tolist() == [1, 0, 2, 1, 0, 1, 2]
    assert store.column("feature.hour").tolist() == [1] * 7  # 22 h is the first one seen
    np.testing.assert_array_equal(
        store.column("label.rating"), np.array([np.nan, np.nan, 4, np.nan, np.nan, 1, 5], "f4")
    )
    # price: log1p, standardised by its own mean and deviation
    price = np.log1p([0.0, 1.5, 2.5, 3.5, 1.25, 0.0, 1.5])
    expected = (price - price.mean()) / price.std()
    np.testing.assert_allclose(store.column("feature.price"), expected, rtol=1e-6)
    # User 11's first row (watched 0 ms) is seen 1.5 s later, by the rows 3 s and 6 s after it;
    # the second (watched for an hour) is not yet over.
    assert store.column("feature.history_item")[6].tolist() == [0, 0, 1]
    assert summary.rows_kept == 7 and summary.users == 3 and summary.items == 5
    assert summary.rows_by_window == {"2023-11-14": 7}
    assert describe(summary, log_schema) == pytest.approx(
        {"click": 4 / 7, "watch_time_s": 302.547 / 7, "rating": 10 / 3}, rel=1e-6
    )
    assert read_summary(prepared) == summary


def test_requests_are_rows_of_one_user_at_one_time(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    columns = log_columns(
        user_id=[1, 1, 2, 1, 1, 2, 1], time_ms=[START_MS + k for k in (0, 0, 0, 5, 5, 5, 9)]
    )
    for chunk_rows in (1, 1000):
        prepared, _ = prepare_log(Inputs(log=write_log(columns)), log_schema, chunk_rows=chunk_rows)
        request = EncodedStore(prepared).column("request").tolist()
        assert [request.index(r) for r in request] == [0, 0, 2, 3, 3, 5, 6]


def test_quarantine_holds_exactly_the_bad_rows(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    columns = log_columns(click=[0, 1, 9, 1, 0, 0, 1])
    first = write_log(columns, "log/a.parquet")
    # Another file with its columns in another order, narrower types, and one column more.
    other = log_columns(
        time_ms=[START_MS + 500 + k for k in range(7)],
        click=pa.array([0, 1, 0, 1, 0, 0, 1], pa.int8()),
        play_ms=[0, 5, 2, 7, -4, 8, float("nan")],
    )
    other = dict(reversed(other.items())) | {"extra": [[k] for k in range(7)]}
    second = write_log(other, "log/b.parquet")
    prepared, summary = prepare_log(Inputs(log=first.parent), log_schema, max_bad_share=0.5)
    bad = pq.read_table(prepared / "quarantine.parquet").to_pylist()
    assert [(row["_file"], row["_row_group"], row["_row"], row["_reason"]) for row in bad] == [
        (str(first), 0, 2, "click: out of range"),
        (str(second), 1, 1, "play_ms: negative watch time"),
        (str(second), 2, 0, "play_ms: no duration"),
    ]
    assert [(row["item_id"], row["click"], row["extra"]) for row in bad] == [
        ("c", 9, None), ("e", 0, [4]), ("b", 1, [6]),
    ]  # fmt: skip
    assert summary.bad_rows == 3 and summary.rows_read == 14 and summary.rows_kept == 11
    # The label is read from the same column: a row counts in each of its problems.
    assert summary.bad_rows_by_reason == {
        "click: out of range": 1,
        "play_ms: negative watch time": 1,
        "play_ms: no duration": 1,
    }


def test_columns_without_a_common_type_are_quarantined_as_text(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    bad_click = [0, 1, 9, 1, 0, 0, 1]
    write_log(
        log_columns(click=bad_click) | {"extra": [f"x{k}" for k in range(7)]}, "log/a.parquet"
    )
    path = write_log(
        log_columns(click=bad_click) | {"extra": [[k] for k in range(7)]}, "log/b.parquet"
    )
    prepared, _ = prepare_log(Inputs(log=path.parent), log_schema, max_bad_share=1)
    bad = pq.read_table(prepared / "quarantine.parquet")
    assert bad.column("extra").to_pylist() == ["x2", "[2]"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_bad_rows": "reject", "max_bad_share": 1}, "(on_bad_rows: reject, max_bad_share: 1)"),
        ({"max_bad_share": 0.14}, "(on_bad_rows: quarantine, max_bad_share: 0.14)"),
    ],
)
def test_bad_rows_reject_the_log(
    settings: dict[str, object],
    message: str,
    log_columns: MakeColumns,
    write_log: WriteLog,
    log_schema: Schema,
    prepare_log: PrepareLog,
) -> None:
    path = write_log(log_columns(click=[0, 1, 1, 1, 0, 5, 1]))
    with pytest.raises(DataError) as caught:
        prepare_log(Inputs(log=path), log_schema, **settings)
    first, second = str(caught.value).splitlines()
    assert first == f"1 of 7 rows (14.29%) are bad {message}:"
    assert second == (
        f"{path}: row group 1, row 2, column 'click': out of range: got 5, expected 0 or 1 "
        "(such rows: 1)"
    )
    accepted, _ = prepare_log(Inputs(log=path), log_schema, max_bad_share=0.15)
    assert (accepted / "quarantine.parquet").is_file()


def test_good_log_leaves_no_quarantine_and_no_spill(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    prepared, _ = prepare_log(Inputs(log=write_log(log_columns())), log_schema, sort_rows=2)
    names = {path.name for path in prepared.iterdir()}
    assert names == {"store", "state", "schema.yaml", "manifest.json"}


def test_exact_duplicates_are_counted_and_dropped(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    columns = log_columns()
    folder = write_log(columns, "log/a.parquet").parent
    # The same rows with floats where an int was, and one row that differs in a label only.
    again = columns | {
        "click": pa.array([0, 1, None, 1, 0, 0, 1], pa.float64()),
        "rating": columns["rating"],
    }
    write_log(dict(reversed(again.items())), "log/b.parquet")
    write_log(
        {name: list(v)[:2] for name, v in columns.items()}
        | {"rating": pa.array([None, None], pa.float64())},
        "log/c.parquet",
    )
    for settings in ({}, {"sort_rows": 2}):
        prepared, summary = prepare_log(Inputs(log=folder), log_schema, **settings)
        assert summary.exact_duplicates == 6 + 2
        assert summary.rows_read == 16 and summary.rows_kept == 8
        item = EncodedStore(prepared).column("item").tolist()
        assert item == [1, 2, 3, 3, 4, 5, 1, 2]


def test_cuts_and_order_of_files_change_nothing(
    small_log: SyntheticLog,
    synthetic_schema: Schema,
    small_prepared: Path,
    prepare_log: PrepareLog,
    tmp_path: Path,
) -> None:
    log = pq.read_table(small_log.log)
    order = np.random.default_rng(2).permutation(log.num_rows)
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    for part, rows in enumerate(np.array_split(order, 4)):
        pq.write_table(log.take(rows), backwards / f"{9 - part}.parquet", row_group_size=100)
    inputs = [small_log.log, backwards]
    variants = [{"sort_rows": 100, "chunk_rows": 37}, {"sort_rows": 333, "chunk_rows": 100}]
    for path, settings in zip(inputs, variants, strict=True):
        prepared, _ = prepare_log(
            Inputs(log=path, users=small_log.users, items=small_log.items),
            synthetic_schema,
            **settings,
        )
        assert sha256s(prepared) == sha256s(small_prepared)
        assert EncodedStore(prepared).windows == EncodedStore(small_prepared).windows
        assert folder_digests(prepared / "state") == folder_digests(small_prepared / "state")


def test_digests_are_of_the_columns_content(small_prepared: Path) -> None:
    store = EncodedStore(small_prepared)
    plain = [column.name for column in store_columns(store.schema) if column.width == 0]
    for name in plain:
        content = np.ascontiguousarray(store.column(name)).tobytes()
        assert store.sha256_by_column[name] == hashlib.sha256(content).hexdigest(), name
    topics = store.column("feature.topics").tolist()
    elements = [row[next((k for k, topic in enumerate(row) if topic), 3) :] for row in topics]
    flat = np.array([topic for row in elements for topic in row], dtype="<i4")
    ends = np.cumsum([len(row) for row in elements], dtype="<i8")
    content = flat.tobytes() + hashlib.sha256(ends.tobytes()).digest()
    assert store.sha256_by_column["feature.topics"] == hashlib.sha256(content).hexdigest()
    assert len(store.sha256_by_column) == len(store_columns(store.schema))


def test_ten_days_and_four_more_are_fourteen(
    small_log: SyntheticLog,
    synthetic_schema: Schema,
    small_prepared: Path,
    prepare_log: PrepareLog,
    tmp_path: Path,
) -> None:
    log = pq.read_table(small_log.log)
    early = log.column("time_s").to_numpy() < START_S + 10 * DAY_S
    pq.write_table(log.filter(pa.array(early)), tmp_path / "ten.parquet")
    pq.write_table(log.filter(pa.array(~early)), tmp_path / "four.parquet")
    tables = {"users": small_log.users, "items": small_log.items}
    ten, _ = prepare_log(Inputs(log=tmp_path / "ten.parquet", **tables), synthetic_schema)
    both = EncodedStore(small_prepared)
    first_row = int(early.sum())
    for log_path in (tmp_path / "four.parquet", tmp_path):  # the state's own rows are left out
        four, summary = prepare_log(
            Inputs(log=log_path, state=ten / "state", **tables), synthetic_schema
        )
        store = EncodedStore(four)
        assert store.num_rows == int((~early).sum())
        for name in both.sha256_by_column:
            later = both.column(name)[first_row:]
            assert store.column(name).tobytes() == later.tobytes(), name
        assert summary.rows_before_state == (first_row if log_path == tmp_path else 0)
        labels = [w.label for w in both.windows[-4:]]
        assert [w.label for w in store.windows] == labels
        assert store.windows[-1].vocabulary_sizes == both.windows[-1].vocabulary_sizes
        assert folder_digests(four / "state") == folder_digests(small_prepared / "state")
        assert store.encoders.extends(Encoders.load(ten / "state" / "encoders.parquet"))


def test_scales_are_fitted_on_the_first_windows_only(
    small_log: SyntheticLog, small_prepared: Path
) -> None:
    log = pq.read_table(small_log.log).to_pandas()
    first_day = log[log.time_s < START_S + DAY_S]
    assert len(first_day) >= 50  # scale_rows of the schema
    scales = EncodedStore(small_prepared).encoders.label_scales
    assert scales["click"].mean == pytest.approx(first_day.click.mean())
    watch = np.log1p(first_day.watch_time_s.clip(upper=600))
    assert scales["watch_time_s"].mean == pytest.approx(watch.mean())
    assert scales["watch_time_s"].scale == pytest.approx(watch.std(ddof=0))


def test_scales_of_a_huge_window_are_fitted_on_its_first_rows(
    small_log: SyntheticLog,
    synthetic_schema: Schema,
    prepare_log: PrepareLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ranker.data.scaling.MAX_SCALE_ROWS", 1)
    inputs = Inputs(log=small_log.log, users=small_log.users, items=small_log.items)
    prepared = [prepare_log(inputs, synthetic_schema, chunk_rows=n)[0] for n in (23, 10_000)]
    assert sha256s(prepared[0]) == sha256s(prepared[1])
    store = EncodedStore(prepared[0])
    assert store.windows[0].num_rows > 50  # scale_rows of the schema
    expected = np.asarray(store.column("label.click")[:50]).mean()
    assert store.encoders.label_scales["click"].mean == pytest.approx(expected)


def test_snapshot_within_a_window(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    """A week is one window; the state of a day inside it knows the rows before that day only."""
    schema = log_schema.model_copy(update={"window_hours": 168, "scale_rows": 1})
    # from 22:13 UTC: midnight lies before the fifth row; the first is two weeks older
    hours = [-336, 0, 1, 1, 2, 3, 4]
    columns = log_columns(
        time_ms=[START_MS + 3_600_000 * h + k for k, h in enumerate(hours)], play_ms=[0] * 7
    )
    dates = ("2023-11-15", "2023-11-14", "2023-11-20")
    prepared, summary = prepare_log(Inputs(log=write_log(columns)), schema, snapshots=dates)
    assert list(summary.rows_by_window.values()) == [1, 6]
    counted = {
        date: int(load_state(prepared / "snapshots" / date).history.overall.impressions.sum())
        for date in dates
    }
    assert counted == {"2023-11-14": 1, "2023-11-15": 4, "2023-11-20": 7}
    snapshot = load_state(prepared / "snapshots" / "2023-11-15")
    assert snapshot.history.pending.num_rows == 0 and snapshot.encoders.sizes["item"] == 1 + 4
    as_of = snapshot.history.as_of_ms
    assert pd.Timestamp(as_of, unit="ms") == pd.Timestamp("2023-11-15")
    with pytest.raises(DataError, match="snapshot 2023-11-14: the state is already newer"):
        prepare_log(
            Inputs(log=write_log(columns), state=prepared / "snapshots" / "2023-11-15"),
            schema,
            snapshots=("2023-11-14",),
        )


@pytest.mark.parametrize("date", ["11.03.2025", "2025-3-11", "20250311", "2025-W11-2", "soon"])
def test_a_snapshots_date_is_read_in_one_way_only(date: str) -> None:
    with pytest.raises(ValueError, match="is not a local date like 2022-05-05"):
        PrepareSettings(snapshots=(date,))


def test_snapshot_before_anything_is_standardised(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    schema = log_schema.model_copy(update={"window_hours": 168})
    columns = log_columns(time_ms=[START_MS + 3_600_000 * k for k in range(7)], play_ms=[0] * 7)
    with pytest.raises(DataError, match=r"snapshot 2023-11-15: .* fewer rows than .* scale_rows"):
        prepare_log(Inputs(log=write_log(columns)), schema, snapshots=("2023-11-15",))


def test_snapshots_may_be_dates() -> None:
    """YAML reads an unquoted date as one."""
    settings = PrepareSettings.model_validate({"snapshots": [datetime.date(2022, 5, 5)]})
    assert settings.snapshots == ("2022-05-05",)


def test_earlier_history_is_known_before_the_first_row(
    log_columns: MakeColumns,
    write_log: WriteLog,
    log_schema: Schema,
    prepare_log: PrepareLog,
    tmp_path: Path,
) -> None:
    schema = Schema.model_validate(
        log_schema.model_dump() | {"earlier_history": {"order": "position"}}
    )
    earlier = write_log(
        {"user_id": [12, 11, 11, 99], "item_id": ["a", "b", "old", "a"], "position": [0, 5, 2, 0],
         "click": [1, 1, 0, None]},
        "earlier.parquet",
    )  # fmt: skip
    prepared, _ = prepare_log(Inputs(log=write_log(log_columns()), earlier_history=earlier), schema)
    store = EncodedStore(prepared)
    # By user, then order: 11 (old, b), 12 (a), 99 (a).
    assert store.encoders.vocabularies["user"].ids.tolist() == [11, 12, 99, 13]
    assert store.encoders.vocabularies["item"].ids.tolist()[:3] == ["old", "b", "a"]
    assert store.column("feature.history_item")[:3].tolist() == [[0, 1, 2], [0, 0, 3], [0, 0, 0]]
    assert store.column("feature.history_feedback")[0].tolist() == [0, 1, 2]
    assert store.column("feature.query_item")[:2].tolist() == [2, 3]
    assert np.isnan(store.column("feature.query_item_age_s")[:2]).all()
    with pytest.raises(DataError, match="exclude each other"):
        prepare_log(
            Inputs(log=write_log(log_columns()), earlier_history=earlier, state=prepared / "state"),
            schema,
        )


def test_tables_must_be_those_of_the_schema(
    small_log: SyntheticLog,
    synthetic_schema: Schema,
    log_columns: MakeColumns,
    write_log: WriteLog,
    log_schema: Schema,
    prepare_log: PrepareLog,
) -> None:
    message = "schema 'synthetic' reads a table of users: give --users FILE"
    with pytest.raises(DataError, match=message):
        prepare_log(Inputs(log=small_log.log, items=small_log.items), synthetic_schema)
    message = "schema 'small' has no item_table: leave out --items"
    with pytest.raises(DataError, match=message):
        prepare_log(Inputs(log=write_log(log_columns()), items=small_log.items), log_schema)


def test_owner_ids_of_another_type_are_refused(
    small_log: SyntheticLog, synthetic_schema: Schema, prepare_log: PrepareLog, tmp_path: Path
) -> None:
    users = pq.read_table(small_log.users)
    texts = users.column("user_id").cast(pa.string())
    pq.write_table(users.set_column(0, "user_id", texts), tmp_path / "users.parquet")
    inputs = Inputs(log=small_log.log, users=tmp_path / "users.parquet", items=small_log.items)
    with pytest.raises(DataError, match="ids are int64 in the log and string in the user"):
        prepare_log(inputs, synthetic_schema)


def test_rows_without_owner_are_counted(
    small_log: SyntheticLog, synthetic_schema: Schema, prepare_log: PrepareLog, tmp_path: Path
) -> None:
    items = pq.read_table(small_log.items)
    log = pq.read_table(small_log.log)
    gone = log.column("item_id")[0].as_py()
    kept = [item != gone for item in items.column("item_id").to_pylist()]
    pq.write_table(items.filter(pa.array(kept)), tmp_path / "items.parquet")
    inputs = Inputs(log=small_log.log, users=small_log.users, items=tmp_path / "items.parquet")
    prepared, summary = prepare_log(inputs, synthetic_schema)
    rows = log.column("item_id").to_pylist().count(gone)
    assert summary.rows_without_owner == {"user": 0, "item": rows}
    assert int((EncodedStore(prepared).column("feature.topic") == 0).sum()) == rows


def test_no_usable_rows(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    empty = {
        name: pa.array(list(v), getattr(v, "type", None))[:0] for name, v in log_columns().items()
    }
    with pytest.raises(DataError, match=r"log\.parquet: no usable rows"):
        prepare_log(Inputs(log=write_log(empty)), log_schema)
    all_bad = write_log(log_columns(click=[7] * 7))
    with pytest.raises(DataError, match="no usable rows"):
        prepare_log(Inputs(log=all_bad), log_schema, max_bad_share=1)
    good, _ = prepare_log(Inputs(log=write_log(log_columns())), log_schema)
    with pytest.raises(DataError, match="no usable rows"):
        prepare_log(Inputs(log=write_log(log_columns()), state=good / "state"), log_schema)


def test_rows_at_the_moment_of_the_state_are_taken(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    first, _ = prepare_log(Inputs(log=write_log(log_columns())), log_schema)
    as_of_ms = load_state(first / "state").history.as_of_ms
    assert as_of_ms == START_MS + 6001  # a millisecond after the last row
    later = write_log(log_columns(time_ms=[as_of_ms - 1, *[as_of_ms] * 3, *[as_of_ms + 5] * 3]))
    _, summary = prepare_log(Inputs(log=later, state=first / "state"), log_schema)
    assert (summary.rows_before_state, summary.rows_kept) == (1, 6)


def test_another_schema_cannot_continue(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    log = write_log(log_columns())
    good, _ = prepare_log(Inputs(log=log), log_schema)
    other = log_schema.model_copy(update={"reporting_delay_s": 2.0})
    with pytest.raises(DataError, match="was made with another schema; prepare from the beginning"):
        prepare_log(Inputs(log=log, state=good / "state"), other)


def test_a_damaged_log_is_named(
    log_columns: MakeColumns, write_log: WriteLog, log_schema: Schema, prepare_log: PrepareLog
) -> None:
    path = write_log(log_columns())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(4)
    data = bytearray(path.read_bytes())
    # the last byte of the column's data page (a dictionary comes before it)
    data[chunk.dictionary_page_offset + chunk.total_compressed_size - 1] ^= 255
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=rf"{re.escape(str(path))}: row group 1, column 'play_ms': damaged"
    ):
        prepare_log(Inputs(log=path), log_schema)


def test_summary_of_a_folder_without_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "bundle"}))
    with pytest.raises(DataError, match="holds no prepared data; run `ranker prepare`"):
        read_summary(tmp_path)
