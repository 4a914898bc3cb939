"""Reading outcomes: against pandas, and every kind of bad table by its message."""

import datetime
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outcomes_tables import START, as_table, make_frame, settings

from ranker.config import ConfigError, parse_config
from ranker.data.parquet import DataError
from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.metric_users import sum_rows
from ranker.experiment.outcomes_reading import outcomes_of, read_outcomes


def sums_of(outcomes, column):
    sums = sum_rows(outcomes.rows, (column,), num_users=outcomes.num_users)
    return np.where(sums.is_observed, sums.columns[0], np.nan)


def test_sums_by_user_are_those_of_pandas():
    frame = make_frame(num_users=43).sample(frac=1, random_state=1)
    outcomes = outcomes_of(as_table(frame), settings())
    current, past = frame[frame.day >= START], frame[frame.day < START]
    for arm in ("control", "treatment"):
        span = outcomes.users_of(arm)
        for rows, found in (
            (current, sums_of(outcomes, "watch_s")),
            (past, outcomes.past_by_metric["watch"].columns[0]),
        ):
            expected = rows[rows.arm == arm].groupby("user").watch_s.sum()
            np.testing.assert_allclose(np.sort(found[span]), np.sort(expected), rtol=1e-12)
    assert outcomes.num_users_by_arm == frame.groupby("arm").user.nunique().to_dict()


def test_rows_stand_in_the_order_of_days():
    frame = make_frame(num_users=11).sample(frac=1, random_state=2)
    rows = outcomes_of(as_table(frame), settings()).rows
    assert rows.day_labels == tuple(f"2026-03-{day:02d}" for day in range(8, 13))
    sums = [
        rows.column_by_name["shown"][start:stop].sum() for start, stop in pairwise(rows.day_starts)
    ]
    np.testing.assert_array_equal(sums, frame[frame.day >= START].groupby("day").shown.sum())


def test_null_is_not_observed_and_a_row_counts_in_a_ratio_whole_or_not_at_all():
    table = pa.table(
        {
            "user": ["a", "a", "b", "c"],
            "arm": ["control", "control", "treatment", "treatment"],
            "watch_s": [None, 2.5, None, 0.0],
            "clicks": [1.0, None, 3.0, 0.0],
            "shown": [7.0, 5.0, 9.0, None],
        }
    )
    outcomes = outcomes_of(table, settings(start=None, columns={"day": None}))
    np.testing.assert_array_equal(sums_of(outcomes, "watch_s"), [2.5, np.nan, 0.0])
    ratio = sum_rows(outcomes.rows, ("clicks", "shown"), num_users=3)
    np.testing.assert_array_equal(ratio.is_observed, [True, True, False])
    np.testing.assert_array_equal(ratio.columns, [[1, 3, 0], [7, 9, 0]])


def test_a_users_slice_is_that_of_his_earliest_row():
    frame = pd.DataFrame(
        {
            "user": [5, 5, 5, 9, 9],
            "arm": ["control"] * 3 + ["treatment"] * 2,
            "day": [4, 2, 2, 3, 1],
            "watch_s": 1.0,
            "clicks": 0.0,
            "shown": 1.0,
            "device": ["web", "ios", "web", "ios", None],
        }
    )
    outcomes = outcomes_of(as_table(frame), settings(start=2, slices=("device",)))
    slicing = outcomes.slicing_by_name["device"]
    assert [slicing.values[code] for code in slicing.codes] == ["ios", "(missing)"]


@pytest.mark.parametrize("kind", ["date", "timestamp", "text", "string_id", "dictionary"])
def test_types_that_mean_the_same_are_read_the_same(kind, tmp_path):
    frame = make_frame(num_users=29)
    expected = outcomes_of(as_table(frame), settings())
    table = as_table(frame)

    def with_column(name, values):
        return table.set_column(table.schema.get_field_index(name), name, values)

    if kind == "timestamp":
        table = with_column("day", table["day"].cast(pa.timestamp("us")))
    if kind == "text":
        table = with_column("day", table["day"].cast(pa.string()))
    if kind == "string_id":
        table = with_column("user", table["user"].cast(pa.string()))
    if kind == "dictionary":
        table = with_column("arm", table["arm"].dictionary_encode())
    pq.write_table(table.slice(0, 50), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(table.slice(50), tmp_path / "b.parquet")
    found = read_outcomes(tmp_path, settings())
    np.testing.assert_array_equal(found.rows.users, expected.rows.users)
    np.testing.assert_array_equal(
        found.rows.column_by_name["watch_s"], expected.rows.column_by_name["watch_s"]
    )
    assert found.rows.day_labels == expected.rows.day_labels


def change(column, value, row=4):
    def changed(frame):
        frame = frame.copy()
        if column not in ("user", "watch_s", "shown", "clicks"):
            frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return changed


BAD = {
    "a missing column": (lambda f: f.drop(columns="clicks"), "column 'clicks' is missing"),
    "infinite": (change("watch_s", np.inf), "row 4: column 'watch_s': expected finite values"),
    "negative": (change("shown", -3.0), "row 4: column 'shown': expected values >= 0, got -3"),
    "an unknown arm": (
        change("arm", "tretment", row=110),
        r"row 110: column 'arm': expected one of \['control', 'treatment'\], got 'tretment'",
    ),
    "no arm": (change("arm", None, row=110), "row 110: column 'arm': .*, got 'no arm'"),
    "no user": (change("user", np.nan), "row 4: column 'user': the user is missing"),
    "no day": (change("day", None), "row 4: column 'day': the day is missing"),
    "words for numbers": (lambda f: f.assign(watch_s="x"), "'watch_s': expected numbers, got"),
    "ids with a fraction": (lambda f: f.assign(user=f.user + 0.5), "expected integers or strings"),
    "a day that is none": (lambda f: f.assign(day="soon"), "expected dates such as 2026-03-09"),
    "numbered days": (lambda f: f.assign(day=7), "holds whole numbers, but start is 2026-03-08"),
    "no rows": (lambda f: f[:0], "expected|has no rows"),
    "nothing after the start": (lambda f: f[f.day < START], "no row of the experiment"),
    "an empty arm": (lambda f: f[f.arm == "control"], "arm 'treatment' has no users"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_rejected_with_the_place(name):
    spoil, message = BAD[name]
    frame = make_frame(num_users=31)
    with pytest.raises(DataError, match=message):
        outcomes_of(as_table(spoil(frame)), settings())


def test_an_arm_is_asked_for_in_the_experiment_only():
    frame = make_frame(num_users=31)
    frame.loc[frame.day < START, "arm"] = None
    assert outcomes_of(as_table(frame), settings()).num_users == 31


def test_users_in_two_arms_are_rejected_or_dropped():
    frame = make_frame(num_users=31)
    last = frame.day == frame.day.max()
    for user in (34, 51):
        mine = frame[last & (frame.user == user)].index[0]
        frame.loc[mine, "arm"] = {"control": "treatment", "treatment": "control"}[
            frame.loc[mine, "arm"]
        ]
    with pytest.raises(DataError, match=re.escape("2 user(s) are in two arms, e.g. 34, 51; mend")):
        outcomes_of(as_table(frame), settings())
    dropped = outcomes_of(as_table(frame), settings(users_in_two_arms="drop"))
    assert dropped.num_users == 29
    assert "2 user(s) are in two arms, e.g. 34, 51: left out." in dropped.notes
    rest = outcomes_of(as_table(frame[~frame.user.isin([34, 51])]), settings())
    np.testing.assert_array_equal(sums_of(dropped, "watch_s"), sums_of(rest, "watch_s"))


def test_what_is_missing_is_said():
    frame = make_frame(num_users=31, num_days=9)
    gap = [START + datetime.timedelta(days=day) for day in (3, 4, 5)]
    frame = frame[~frame.day.isin(gap)]
    early = frame[(frame.user != 17) | (frame.day < START)]
    notes = outcomes_of(as_table(early), settings()).notes
    assert notes == (
        "1 user(s) have rows before the experiment only: left out.",
        "3 day(s) without rows (2026-03-11, 2026-03-12, 2026-03-13): skipped.",
    )
    bare = outcomes_of(as_table(frame[frame.day >= START]), settings())
    assert "No pre-period (no rows before the start)" in bare.notes[-1]
    assert bare.past_by_metric == {}


def test_a_slice_of_many_values_is_no_slice():
    frame = make_frame(num_users=61)
    with pytest.raises(DataError, match="'user' has more than 50 values; a slice needs few"):
        outcomes_of(as_table(frame), settings(slices=("user",)))


def test_numbers_too_large_and_columns_twice_are_refused(tmp_path):
    base = {"user": [1, 2], "arm": ["control", "treatment"], "clicks": [1.0, 2.0], "shown": [3, 4]}
    plain = settings(start=None, columns={"day": None})
    for name, values in (("watch_s", [1, 2**62 + 1]), ("user", [1, 2**64 - 1])):
        columns = {"watch_s": [1, 2], **base} | {name: pa.array(values, pa.uint64())}
        with pytest.raises(DataError, match=f"column '{name}'.*2\\*\\*"):
            outcomes_of(pa.table(columns), plain)
    table = pa.table({"watch_s": [1, 2], **base})
    pq.write_table(table.append_column("shown", pa.array([5, 6])), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="column 'shown' is there 2 times"):
        read_outcomes(tmp_path / "twice.parquet", plain)


def test_extreme_settings_are_refused():
    for change in ({"confidence": 0.9999999}, {"share_by_arm": {"control": 1, "treatment": 1e308}}):
        with pytest.raises(ValueError, match=r"confidence|no share above"):
            settings(**change)


def test_rows_written_twice_are_pointed_at():
    frame = make_frame(num_users=43)
    current = frame[frame.day >= START]
    twice = pd.concat([frame, current.iloc[:3]])
    assert any(
        note.startswith("3 row(s) repeat a user's day")
        for note in outcomes_of(as_table(twice), settings()).notes
    )
    # a table that is finer than a row a day throughout is none of this
    for honest in (frame, pd.concat([frame, frame])):
        notes = outcomes_of(as_table(honest), settings()).notes
        assert not any("repeat a user's day" in note for note in notes)


def test_a_start_is_a_date_or_a_number():
    with pytest.raises(ConfigError, match="start"):
        parse_config(AnalysisSettings, {**settings().model_dump(), "start": True}, source="x")
