"""``ranker join`` on small slates and outcomes, every row by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import Ran, run_ranker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranker.atomic import sha256_of
from ranker.config import dump_yaml, parse_config
from ranker.data.parquet import read_table
from ranker.data.problems import ProblemLog
from ranker.data.tables import stream_log
from ranker.schema import Schema

HOUR_MS = 3_600_000
T0 = 1_710_720_000_000  # 2024-03-18 in UTC
SLATES = {  # request r1 shows a, b, c; r2 shows c, a
    "rid": ["r1", "r1", "r1", "r2", "r2"],
    "uid": [8, 8, 8, 9, 9],
    "ms": [T0, T0, T0, T0 + 2 * HOUR_MS, T0 + 2 * HOUR_MS],
    "iid": ["a", "b", "c", "c", "a"],
    "phone": ["x", "x", "x", "y", "y"],
    "rank": [1, 2, 3, 1, 2],
    "score": [0.9, 0.5, 0.4, 2.0, 1.0],
    "propensity": [0.5, 0.25, 1.0, 0.75, 0.5],
    "prediction.click": [0.1, 0.2, 0.3, 0.4, 0.5],
    "source": ["p", "q", "p", "q", "p"],
}
OUTCOMES = {  # one row an impression: c of r1 was never seen
    "rid": ["r2", "r1", "r1", "r2"],
    "iid": ["a", "a", "b", "c"],
    "clicked": [1, 0, None, 1],
    "stars": [None, 4.0, None, None],
    "at": [T0 + 3 * HOUR_MS, T0 + HOUR_MS, T0, T0 + 12 * HOUR_MS],
}


def schema_of(**log: Any) -> Schema:
    values = {
        "name": "small",
        "log": {
            **{"user": "uid", "item": "iid", "time": "ms", "request": "rid"},
            **{"position": "place", "device": "phone"},
            **log,
        },
        "features": [{"name": "iid", "kind": "categorical", "owner": "item"}],
        "tasks": [
            {"name": "click", "label": "clicked", "family": "engagement", "kind": "binary"},
            {"name": "rating", "label": "stars", "family": "satisfaction", "kind": "regression"},
        ],
        "history": None,
    }
    return parse_config(Schema, values, source="test")


class Desk:
    """Where a test's files are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put("slates", SLATES)
        self.put("outcomes", OUTCOMES)
        self.write_schema(schema_of())

    def write_schema(self, schema: Schema) -> None:
        (self.folder / "schema.yaml").write_text(dump_yaml(schema))

    def put(self, name: str, columns: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    def join(self, *words: str | Path, output: str = "new.parquet") -> Ran:
        return run_ranker(
            *("join", self.folder / "slates.parquet", self.folder / "outcomes.parquet"),
            *("--schema", self.folder / "schema.yaml"),
            *("--output", self.folder / output, "--json", *words),
        )

    def joined(self, *words: str | Path) -> list[dict[str, Any]]:
        ran = self.join(*words)
        assert ran.code == 0, ran.err
        rows: list[dict[str, Any]] = pq.read_table(self.folder / "new.parquet").to_pylist()
        return rows

    def counts(self, *words: str | Path) -> dict[str, Any]:
        ran = self.join(*words)
        assert ran.code == 0, ran.err
        counts: dict[str, Any] = ran.json["counts"]
        return counts


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_shown_rows_get_their_outcomes(desk: Desk) -> None:
    """c of r1 has no outcome: nobody says that it was shown. b was seen, and its click is null."""
    rows = desk.joined()
    assert [(r["rid"], r["iid"], r["place"]) for r in rows] == [
        ("r1", "a", 0),
        ("r1", "b", 1),
        ("r2", "c", 0),
        ("r2", "a", 1),
    ]
    assert [r["clicked"] for r in rows] == [0, None, 1, 1]
    assert [r["stars"] for r in rows] == [4.0, None, None, None]
    assert [r["propensity"] for r in rows] == [0.5, 0.25, 0.75, 0.5]
    assert list(rows[0]) == [
        *("rid", "uid", "iid", "ms", "place", "phone", "clicked", "stars"),
        *("rank", "score", "propensity"),
    ]


def test_they_are_rows_of_the_log(desk: Desk) -> None:
    desk.joined("--set", "unconfirmed=keep")
    problems = ProblemLog()
    read = pa.concat_tables(
        stream_log(
            desk.folder / "new.parquet", schema_of(), problems=problems, quarantine=lambda _: None
        )
    )
    assert problems.bad_rows == 0
    assert read.column("position").to_pylist() == [0, 1, 2, 0, 1]
    assert read.column("label.click").to_pylist() == [0.0, None, None, 1.0, 1.0]
    assert read.column("time_ms").to_pylist() == SLATES["ms"]


@pytest.mark.parametrize(
    ("settings_", "clicks"),
    [
        (["unconfirmed=keep"], [0, None, None, 1, 1]),
        (["zero_without_event=[clicked]"], [0, 0, 1, 1]),
        # c of r1 was not shown: its click is not observed, whatever else is 0
        (["unconfirmed=keep", "zero_without_event=[clicked]"], [0, 0, None, 1, 1]),
        (["confirmed_by=slate"], [0, None, None, 1, 1]),
        (["confirmed_by=slate", "zero_without_event=[clicked]"], [0, 0, 0, 1, 1]),
        (["confirmed_by=all"], [0, None, None, 1, 1]),
    ],
)
def test_nothing_happened_is_not_not_observed(
    desk: Desk, settings_: list[str], clicks: list[float | None]
) -> None:
    rows = desk.joined(*(word for s in settings_ for word in ("--set", s)))
    assert [r["clicked"] for r in rows] == clicks
    assert {r["stars"] for r in rows} == {4.0, None}


def test_a_slate_without_any_outcome_is_not_confirmed(desk: Desk) -> None:
    desk.put("outcomes", {name: values[:1] for name, values in OUTCOMES.items()})
    words = ["--set", "confirmed_by=slate", "--set", "zero_without_event=[clicked]"]
    assert [(r["rid"], r["clicked"]) for r in desk.joined(*words)] == [("r2", 0), ("r2", 1)]
    everything = desk.joined("--set", "confirmed_by=all", "--set", "zero_without_event=[clicked]")
    assert [r["clicked"] for r in everything] == [0, 0, 0, 0, 1]


def test_events_of_one_impression_come_together(desk: Desk) -> None:
    """A row an event, with nulls in the columns of the others."""
    desk.put(
        "outcomes",
        {
            "rid": ["r1", "r1", "r1"],
            "iid": ["a", "b", "a"],
            "clicked": pa.array([1, 1, None], pa.int8()),
            "stars": [None, None, 2.0],
        },
    )
    rows = desk.joined()
    assert [(r["iid"], r["clicked"], r["stars"]) for r in rows] == [("a", 1, 2.0), ("b", 1, None)]
    assert desk.counts()["repeated_outcomes"] == 1


def test_conflicting_values_are_refused_or_the_latest_counts(desk: Desk) -> None:
    twice = {name: [*values, values[1]] for name, values in OUTCOMES.items()}
    twice["stars"][-1] = 2.0
    twice["at"][-1] = T0 + 2 * HOUR_MS
    desk.put("outcomes", twice)
    ran = desk.join()
    assert ran.code == 3
    assert "column 'stars' has different values for one impression" in ran.err
    assert "'rid': 'r1', 'iid': 'a'" in ran.err
    assert not (desk.folder / "new.parquet").exists()
    words = ["--set", "outcome_time=at", "--set", "conflicts=latest"]
    assert desk.joined(*words)[0]["stars"] == 2.0
    twice["at"][-1] = T0
    desk.put("outcomes", twice)
    assert desk.joined(*words)[0]["stars"] == 4.0


PATIENT = ["--set", "outcome_time=at", "--set", "patience_hours=4"]


def test_late_and_early_feedback_is_counted_and_does_not_count(desk: Desk) -> None:
    """r2's click on c comes ten hours after it, its click on a an hour; r1's on b before it."""
    outcomes = {**OUTCOMES, "at": [*OUTCOMES["at"][:2], T0 - 1, OUTCOMES["at"][3]]}
    desk.put("outcomes", outcomes)
    counts = desk.counts(*PATIENT)
    assert (counts["late_outcomes"], counts["early_outcomes"]) == (1, 1)
    assert counts["used_outcomes"] == 2
    assert [(r["rid"], r["iid"]) for r in desk.joined(*PATIENT)] == [("r1", "a"), ("r2", "a")]


def test_what_is_still_waited_for_comes_with_the_next_join(desk: Desk) -> None:
    """Two joins, the second since the first's end, give what one later join gives."""
    whole = desk.joined(*PATIENT)
    ran = desk.join(*PATIENT, "--as-of", str(T0 + 5 * HOUR_MS))
    assert ran.json["counts"]["incomplete"] == 2
    assert ran.json["complete_before_ms"] == T0 + HOUR_MS
    first = pq.read_table(desk.folder / "new.parquet").to_pylist()
    assert {r["rid"] for r in first} == {"r1"}
    since = str(ran.json["complete_before_ms"])
    second = desk.joined(*PATIENT, "--since", since)
    assert {r["rid"] for r in second} == {"r2"}
    assert first + second == whole
    manifest = json.loads((desk.folder / "new.parquet.manifest.json").read_text())
    assert manifest["since_ms"] == int(since)
    assert manifest["complete_before_ms"] == T0 + 8 * HOUR_MS  # the latest outcome less four hours
    assert manifest["files"] == {"new.parquet": sha256_of(desk.folder / "new.parquet")}


def test_incomplete_days_can_be_refused(desk: Desk) -> None:
    words = [*PATIENT, "--set", "incomplete=refuse"]
    ran = desk.join(*words, "--as-of", str(T0 + 5 * HOUR_MS))
    assert ran.code == 3
    assert "2 rows are younger than patience_hours (4)" in ran.err
    assert not list(desk.folder.glob("*new*"))
    assert len(desk.joined(*words, "--as-of", str(T0 + 6 * HOUR_MS + 1))) == 3


def test_periods_are_dates_and_times_of_the_schemas_zone(desk: Desk) -> None:
    counts = desk.counts("--since", "2024-03-18T01:00", "--until", "2024-03-19")
    assert (counts["before_since"], counts["impressions"]) == (3, 2)
    counts = desk.counts("--until", "2024-03-18T02:00")
    assert (counts["from_until_on"], counts["impressions"]) == (2, 2)
    shifted = schema_of().model_copy(update={"time_zone": "Asia/Shanghai"})  # 8 hours ahead
    desk.write_schema(shifted)
    assert desk.counts("--since", "2024-03-18T09:00")["before_since"] == 3
    assert desk.counts("--since", "20240319")["impressions"] == 0
    ran = desk.join("--since", "yesterday")
    assert ran.code == 2
    assert "'yesterday' is no time" in ran.err


def test_outcomes_without_a_slate_are_counted_and_set_aside(desk: Desk) -> None:
    desk.put(
        "outcomes",
        {
            **OUTCOMES,
            "rid": ["r2", "r1", "r1", "r7"],
        },
    )
    aside = desk.folder / "aside.parquet"
    counts = desk.counts("--unmatched", aside)
    assert (counts["unmatched_outcomes"], counts["used_outcomes"]) == (1, 3)
    (row,) = pq.read_table(aside).to_pylist()
    assert (row["rid"], row["iid"], row["clicked"]) == ("r7", "c", 1)
    desk.put("outcomes", {**OUTCOMES, "rid": ["r7"] * 4})
    ran = desk.join()
    assert ran.code == 3
    assert "none of its 4 rows belongs to a row of the slates" in ran.err


def test_without_request_ids_user_time_and_item_identify(desk: Desk) -> None:
    desk.write_schema(schema_of(request=None, position=None))
    slates = {n: v for n, v in SLATES.items() if n != "rid"}
    # two lists of one user at different times
    slates["uid"] = [8] * 5
    desk.put("slates", slates)
    outcomes = {n: v for n, v in OUTCOMES.items() if n != "rid"}
    times = pa.array([T0 + 2 * HOUR_MS, T0, T0, T0 + 2 * HOUR_MS], pa.timestamp("ms"))
    desk.put("outcomes", {**outcomes, "uid": [8] * 4, "ms": times})
    rows = desk.joined()
    assert [(r["iid"], r["clicked"]) for r in rows] == [("a", 0), ("b", None), ("c", 1), ("a", 1)]
    assert "place" not in rows[0]
    assert [r["rank"] for r in rows] == [1, 2, 1, 2]


def test_folders_in_and_out(desk: Desk) -> None:
    """Parts of slates become parts of impressions; the same rows as from one file."""
    whole = desk.joined("--set", "keep_columns=[source]")
    assert [r["source"] for r in whole] == ["p", "q", "q", "p"]
    table = pq.read_table(desk.folder / "slates.parquet")
    (desk.folder / "slates.parquet").unlink()
    (desk.folder / "slates.parquet").mkdir()
    for number, (start, stop) in enumerate([(0, 3), (3, 5)]):
        part = desk.folder / "slates.parquet" / f"part-{number:05d}.parquet"
        pq.write_table(table.slice(start, stop - start), part)
    (desk.folder / "slates.parquet" / "_manifest.json").write_text("{}")
    ran = desk.join("--set", "keep_columns=[source]", output="days")
    assert ran.code == 0, ran.err
    parts = desk.folder / "days" / "impressions"
    assert sorted(file.name for file in parts.iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert pq.read_table(parts).to_pylist() == whole
    assert read_table(desk.folder / "days").to_pylist() == whole
    manifest = json.loads((desk.folder / "days" / "manifest.json").read_text())
    assert set(manifest["files"]) == {f"impressions/part-{n:05d}.parquet" for n in (0, 1)}
    assert desk.joined("--set", "keep_columns=[source]") == whole


def test_no_outcomes_at_all(desk: Desk) -> None:
    empty = pa.table(OUTCOMES).slice(0, 0)
    pq.write_table(empty, desk.folder / "outcomes.parquet")
    assert desk.joined() == []
    words = ["--set", "confirmed_by=all", "--set", "zero_without_event=[clicked]"]
    assert [r["clicked"] for r in desk.joined(*words)] == [0.0] * 5


def without(columns: dict[str, Any], name: str) -> dict[str, Any]:
    return {n: v for n, v in columns.items() if n != name}


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("outcomes", without(OUTCOMES, "stars"), "column 'stars' is missing.*nulls where a label"),
        ("outcomes", without(OUTCOMES, "rid"), "column 'rid' is missing"),
        ("outcomes", {**OUTCOMES, "rid": [1, 2, 3, 4]}, "'rid' is string in the slates and int64"),
        ("outcomes", {**OUTCOMES, "iid": ["a", None, "b", "c"]}, "row 1, column 'iid': expected"),
        ("outcomes", {**OUTCOMES, "stars": [1.0, float("inf"), 1, 1]}, "row 1, column 'stars'"),
        ("outcomes", {**OUTCOMES, "clicked": [1.0, 7.5, 0, 1]}, "row 1, column 'clicked'.*0 or 1"),
        (
            "outcomes",
            {**OUTCOMES, "stars": ["x", "y", "z", "x"]},
            "column 'stars' must be a number",
        ),
        ("slates", without(SLATES, "rank"), "column 'rank' is missing; slates need"),
        ("slates", without(SLATES, "phone"), "column 'phone' is missing; slates need"),
        ("slates", {**SLATES, "rank": [0, 1, 2, 0, 1]}, "column 'rank' must be 1 .. 2,14.*, got 0"),
        ("slates", {**SLATES, "rank": [1, 2, 3, 1, 2**40]}, "column 'rank' must be.*1099511627776"),
        ("slates", {**SLATES, "rank": [1.0, 2, 3, 1, 2]}, "column 'rank' must hold whole numbers"),
        ("slates", {**SLATES, "ms": [T0, T0, None, T0, T0]}, "row 2, column 'ms': expected a time"),
        ("slates", {**SLATES, "iid": ["a", "b", "b", "c", "a"]}, "1 rows repeat an impression"),
        ("slates", {n: pa.array(v)[:0] for n, v in SLATES.items()}, "the slates hold no rows"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    desk: Desk, name: str, columns: dict[str, Any], message: str
) -> None:
    desk.put(name, columns)
    ran = desk.join()
    assert ran.code == 3, ran.err
    assert re.search(message, ran.err), ran.err
    assert not list(desk.folder.glob("*new*"))


def test_a_column_that_is_there_twice_is_named(desk: Desk) -> None:
    slates = pa.table(SLATES)
    pq.write_table(slates.append_column("rank", slates["rank"]), desk.folder / "slates.parquet")
    ran = desk.join()
    assert (ran.code, "column 'rank' is there 2 times" in ran.err) == (3, True), ran.err


def test_files_may_differ_in_how_they_write_a_value(desk: Desk) -> None:
    """Slates and outcomes in two files each: integers and timestamps, views and dictionaries."""
    whole = desk.joined(*PATIENT)
    slates, outcomes = pa.table(SLATES), pa.table(OUTCOMES)
    for name, table, other in (
        ("slates", slates, {"ms": pa.timestamp("us", "Asia/Tokyo"), "iid": pa.string_view()}),
        ("outcomes", outcomes, {"at": pa.timestamp("ms"), "rid": pa.large_string()}),
    ):
        (desk.folder / f"{name}.parquet").unlink()
        folder = desk.folder / f"{name}.parquet"
        folder.mkdir()
        later = table.slice(3)
        for column, kind in other.items():
            values = later[column]
            values = values.cast(pa.timestamp("ms")) if pa.types.is_timestamp(kind) else values
            place = later.column_names.index(column)
            later = later.set_column(place, column, values.cast(kind))
        place = later.column_names.index("rid")
        texts = later["rid"].cast(pa.string()).dictionary_encode()
        later = later.set_column(place, "rid", texts) if name == "outcomes" else later
        pq.write_table(table.slice(0, 3), folder / "1.parquet")
        pq.write_table(later, folder / "2.parquet")
    assert desk.joined(*PATIENT) == whole


def test_times_that_the_first_files_type_cant_hold_are_refused(desk: Desk) -> None:
    desk.write_schema(schema_of(time_unit="s"))
    (desk.folder / "slates.parquet").unlink()
    (desk.folder / "slates.parquet").mkdir()
    for rows, times in (
        (slice(0, 3), pa.array([T0 // 1000] * 3)),
        (slice(3, 5), pa.array([T0 + 1] * 2, pa.timestamp("ms"))),  # not a whole second
    ):
        columns = {name: values[rows] for name, values in SLATES.items()} | {"ms": times}
        pq.write_table(pa.table(columns), desk.folder / "slates.parquet" / f"{rows.start}.parquet")
    ran = desk.join()
    assert (ran.code, "3.parquet" in ran.err, "can't hold its times" in ran.err) == (3, True, True)


def test_other_times_and_integers_are_not_mixed(desk: Desk) -> None:
    """Nothing says which unit such integers have."""
    later = {**SLATES, "rid": ["r3", "r3", "r3", "r4", "r4"]}
    (desk.folder / "slates.parquet").unlink()
    (desk.folder / "slates.parquet").mkdir()
    for name, columns, kind in (("1", SLATES, pa.int64()), ("2", later, pa.timestamp("ms"))):
        table = pa.table({**columns, "served": pa.array([T0] * 5, kind)})
        pq.write_table(table, desk.folder / "slates.parquet" / f"{name}.parquet")
    ran = desk.join("--set", "keep_columns=[served]", "--set", "confirmed_by=all")
    assert ran.code == 3, ran.err
    assert "'served' is timestamp[ms] here, int64 there" in ran.err
    assert not list(desk.folder.glob("*new*"))


@pytest.mark.parametrize(
    ("first", "second"), [([7] * 5, ["007"] * 5), ([True] * 5, [7] * 5), (["a"] * 5, [1] * 5)]
)
def test_no_column_is_coerced(first: list[Any], second: list[Any], desk: Desk) -> None:
    (desk.folder / "slates.parquet").unlink()
    (desk.folder / "slates.parquet").mkdir()
    other = {**SLATES, "rid": ["r3", "r3", "r3", "r4", "r4"]}
    for name, columns, phones in (("1", SLATES, first), ("2", other, second)):
        table = pa.table({**columns, "phone": phones})
        pq.write_table(table, desk.folder / "slates.parquet" / f"{name}.parquet")
    ran = desk.join("--set", "confirmed_by=all")
    assert (ran.code, "'phone' is" in ran.err) == (3, True), ran.err
    assert not list(desk.folder.glob("*new*"))


def test_nothing_is_replaced_where_the_manifest_can_not_go(desk: Desk) -> None:
    (desk.folder / "new.parquet").write_text("precious")
    manifest = desk.folder / "new.parquet.manifest.json"
    manifest.write_text('{"kind": "hers"}')
    ran = desk.join()
    assert (ran.code, "is no join's manifest" in ran.err) == (2, True), ran.err
    manifest.unlink()
    manifest.mkdir()
    ran = desk.join()
    assert (ran.code, "is a folder" in ran.err) == (2, True), ran.err
    assert (desk.folder / "new.parquet").read_text() == "precious"
    manifest.rmdir()
    assert desk.join().code == 0
    assert desk.join().code == 0  # in its own output's place


def test_integer_labels_beyond_exact_floats_are_taken_as_prepare_takes_them(desk: Desk) -> None:
    stars = pa.array([None, 2**53 + 1, None, None], pa.int64())
    desk.put("outcomes", {**OUTCOMES, "stars": stars})
    assert [r["stars"] for r in desk.joined() if r["stars"] is not None] == [2.0**53]


def test_one_wrong_clock_makes_nothing_complete(desk: Desk) -> None:
    desk.put("outcomes", {**OUTCOMES, "at": [*OUTCOMES["at"][:3], 4_000_000_000_000]})
    ran = desk.join(*PATIENT)
    assert (ran.code, "row 3: its feedback came at 2096-10-02" in ran.err) == (3, True), ran.err
    assert desk.counts(*PATIENT, "--as-of", str(T0 + 5 * HOUR_MS))["incomplete"] == 2


def test_damaged_files_are_named(desk: Desk) -> None:
    for name in ("slates", "outcomes"):
        whole = (desk.folder / f"{name}.parquet").read_bytes()
        (desk.folder / f"{name}.parquet").write_bytes(whole[:-30])
        ran = desk.join()
        assert ran.code == 3
        assert f"{name}.parquet: is truncated" in ran.err
        (desk.folder / f"{name}.parquet").write_bytes(whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "patience_hours=3"], "patience_hours needs outcome_time"),
        (["--set", "incomplete=refuse"], "incomplete 'refuse' needs patience_hours"),
        (["--set", "conflicts=latest"], "conflicts 'latest' needs outcome_time"),
        (["--set", "zero_without_event=[clik]"], r"\['clik'\] are no label columns"),
        (["--as-of", "5"], "--as-of says up to when"),
        ([*PATIENT, "--as-of", "99999999999999999999"], "is no time: expected a date"),
        (["--set", "patience=3"], "patience"),
    ],
)
def test_configs_that_make_no_sense(desk: Desk, words: list[str], message: str) -> None:
    ran = desk.join(*words)
    assert ran.code == 2
    assert re.search(message, ran.err), ran.err


def test_an_output_never_takes_an_inputs_place(desk: Desk) -> None:
    ran = desk.join(output="slates.parquet")
    assert ran.code == 2
    assert "is also an input" in ran.err
    (desk.folder / "somebody").mkdir()
    (desk.folder / "somebody" / "letter.txt").write_text("dear")
    ran = desk.join(output="somebody")
    assert ran.code == 2
    assert "holds no manifest.json" in ran.err


outcome_rows = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 4),
        st.sampled_from([None, 0.0, 1.0]),
        st.sampled_from([None, 3.0, 5.0]),
        st.integers(-2, 9),
    ),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=outcome_rows, patience=st.integers(1, 8), slate=st.booleans())
def test_equals_a_plain_loop(desk: Desk, rows: list[Any], patience: int, slate: bool) -> None:
    """pandas and a dictionary, row by row."""
    shown = [(request, item) for request in range(4) for item in range(3)]
    desk.put(
        "slates",
        {
            "rid": [r for r, _ in shown],
            "uid": [r for r, _ in shown],
            "ms": [T0 + r * HOUR_MS for r, _ in shown],
            "iid": [i for _, i in shown],
            "phone": ["x"] * len(shown),
            "rank": [i + 1 for _, i in shown],
        },
    )
    frame = pd.DataFrame(rows, columns=["rid", "iid", "clicked", "stars", "hour"])
    frame["at"] = T0 + (frame["rid"] + frame["hour"]) * HOUR_MS
    desk.put(
        "outcomes",
        {
            **{n: frame[n].to_numpy() for n in ("rid", "iid", "at")},
            **{
                n: pa.array([None if pd.isna(v) else v for v in frame[n]], pa.float64())
                for n in ("clicked", "stars")
            },
        },
    )
    matched = [row for row in rows if row[:2] in shown]
    usable = [row for row in matched if 0 <= row[4] <= patience]
    ran = desk.join(
        *("--set", "outcome_time=at", "--set", f"patience_hours={patience}"),
        *("--set", "conflicts=latest", "--as-of", str(T0 + 100 * HOUR_MS)),
        *("--set", f"confirmed_by={'slate' if slate else 'row'}"),
    )
    if not matched:
        assert ran.code == 3
        return
    assert ran.code == 0, ran.err
    counts = ran.json["counts"]
    assert counts["unmatched_outcomes"] == len(rows) - len(matched)
    assert counts["used_outcomes"] == len(usable)
    assert counts["late_outcomes"] + counts["early_outcomes"] == len(matched) - len(usable)
    confirmed = {row[0] if slate else row[:2] for row in usable}
    expected = []
    for key in shown:
        if (key[0] if slate else key) in confirmed:
            own = sorted((row for row in usable if row[:2] == key), key=lambda row: row[4])
            clicks = [row[2] for row in own if row[2] is not None]
            stars = [row[3] for row in own if row[3] is not None]
            expected.append((*key, (clicks or [None])[-1], (stars or [None])[-1]))
    table = pq.read_table(desk.folder / "new.parquet")
    got = zip(
        *(table.column(n).to_pylist() for n in ("rid", "iid", "clicked", "stars")), strict=True
    )
    assert list(got) == expected
    assert np.array_equal(table.column("place").to_numpy(), table.column("rank").to_numpy() - 1)


def test_no_input_and_no_other_output_is_written_to(desk: Desk) -> None:
    bundle = desk.folder / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text('{"kind": "bundle"}')
    (bundle / "weights.safetensors").write_text("precious")
    ran = desk.join(output="bundle")
    assert (ran.code, "holds bundle" in ran.err) == (2, True), ran.err
    assert (bundle / "weights.safetensors").read_text() == "precious"
    for output, unmatched, message in (
        ("same.parquet", "same.parquet", "lies in --output"),
        ("new", "new/rest.parquet", "lies in --output"),
        ("new.parquet", "outcomes.parquet", "is also an input"),
        ("slates.parquet/x.parquet", "rest.parquet", "is also an input"),
        ("bundle/x.parquet", "rest.parquet", "which is a bundle"),
        ("new.parquet", "bundle/rest.parquet", "which is a bundle"),
        ("new.parquet", "new.parquet.manifest.json", "where --output gets its manifest"),
        ("new.parquet", "/dev/null", "/dev/null: is no file but a device"),
    ):
        ran = desk.join("--unmatched", desk.folder / unmatched, output=output)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    assert not (desk.folder / "new").exists()


def test_a_refused_join_leaves_nothing(desk: Desk) -> None:
    rest = desk.folder / "rest.parquet"
    words = ["--set", "outcome_time=at", "--set", "patience_hours=6", "--set", "incomplete=refuse"]
    ran = desk.join(*words, "--as-of", str(T0 + HOUR_MS), "--unmatched", rest)
    assert ran.code == 3, ran.err
    assert not rest.exists() and not (desk.folder / "new.parquet").exists()
    (desk.folder / "file").write_text("in the way")
    ran = desk.join("--unmatched", desk.folder / "file" / "rest.parquet")
    assert ran.code == 2, ran.err
    assert not (desk.folder / "new.parquet").exists()
    ran = desk.join("--since", "2024-03-20", "--until", "2024-03-18")
    assert (ran.code, "must lie before --until" in ran.err) == (2, True), ran.err
