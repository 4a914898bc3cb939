"""What columns are taken for, on the real sample, the synthetic log and small tables by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ranker.audit.audit import Audit, audit_with_draft
from ranker.audit.column import Column, columns_of, determined_share
from ranker.audit.draft import TO_BE_NAMED
from ranker.audit.names import outcome_of, words
from ranker.audit.roles import find_roles
from ranker.audit.sample import LogSample, read_sample
from ranker.config import load_config
from ranker.data.synthetic import make_synthetic_log
from ranker.schema import Schema, load_schema

ROOT = Path(__file__).resolve().parents[2]


def sample_of(table: pa.Table) -> LogSample:
    return LogSample(
        rows=table, num_rows_total=table.num_rows, num_files=1, share=1.0, by_user=True, absent={}
    )


def small_log(**columns: object) -> pa.Table:
    """Seven users, eleven items, 143 rows; ``columns`` are added or replace."""
    rng = np.random.default_rng(5)
    rows: dict[str, object] = {
        "uid": rng.integers(7, size=143),
        "itemId": np.char.mod("i%d", rng.integers(11, size=143)),
        "event_ts": 1_700_000_000 + np.sort(rng.integers(5 * 86_400, size=143)),
        "is_click": rng.integers(2, size=143),
    }
    rows.update(columns)
    return pa.table({name: values for name, values in rows.items() if values is not None})


def role_of(audit: Audit, column: str) -> str:
    return next(guess.role for guess in audit.guesses if guess.column == column)


@pytest.fixture(scope="module")
def sample_audit() -> Audit:
    folder = ROOT / "data" / "sample"
    log = read_sample(folder / "log.parquet", max_rows=10**6, user_column="user_id")
    tables = {
        "user": pq.read_table(folder / "users.parquet"),
        "item": pq.read_table(folder / "items.parquet"),
    }
    return audit_with_draft(log, tables, name="sample")


def test_the_sample_is_understood(sample_audit: Audit) -> None:
    ours, theirs = sample_audit.schema, load_schema(ROOT / "configs" / "schema" / "kuairand.yaml")
    assert ours.log == theirs.log
    assert (ours.user_table, ours.item_table, ours.list_by) == (True, True, "user_window")
    assert ours.time_zone == "Etc/GMT-8"  # Shanghai, from the hours in `hourmin`
    ours_tasks = {task.name: task for task in ours.tasks}
    assert set(ours_tasks) == {task.name for task in theirs.tasks}
    for task in theirs.tasks:
        mine = ours_tasks[task.name]
        for key in ("label", "family", "kind", "direction", "label_factor", "loss"):
            assert getattr(mine, key) == getattr(task, key), (task.name, key)
    ours_features = {feature.column: feature for feature in ours.features}
    agreeing = [
        (mine := ours_features.get(feature.column)) is not None
        and (mine.kind, mine.owner) == (feature.kind, feature.owner)
        for feature in theirs.features
    ]
    differing = [f.column for f, same in zip(theirs.features, agreeing, strict=True) if not same]
    assert differing == ["tag"]  # it may as well be a sequence


def test_outcomes_are_no_features(sample_audit: Audit) -> None:
    assert role_of(sample_audit, "comment_stay_time") == "outcome"
    assert role_of(sample_audit, "hourmin") == "left out"
    features = {feature.column for feature in sample_audit.schema.features}
    assert not features & {task.label for task in sample_audit.schema.tasks}


def test_the_synthetic_log_is_understood() -> None:
    tables = make_synthetic_log(num_users=211, num_items=97, num_days=6, seed=3)
    audit = audit_with_draft(
        sample_of(tables.impressions), {"user": tables.users, "item": tables.items}, name="made"
    )
    theirs = load_schema(ROOT / "configs" / "schema" / "synthetic.yaml")
    assert audit.schema.log == theirs.log
    assert audit.schema.list_by == "request"
    assert audit.schema.max_positions == theirs.max_positions
    by_name = {task.name: task for task in audit.schema.tasks}
    for task in theirs.tasks:
        mine = by_name[task.name]
        assert (mine.label, mine.family, mine.kind, mine.direction) == (
            task.label,
            task.family,
            task.kind,
            task.direction,
        )
    kinds = {f.column: (f.kind, f.owner, f.transform) for f in audit.schema.features}
    for feature in theirs.features:
        assert kinds[feature.column] == (feature.kind, feature.owner, feature.transform)


def test_the_draft_can_be_read_back(sample_audit: Audit, tmp_path: Path) -> None:
    assert sample_audit.draft is not None
    path = tmp_path / "schema.yaml"
    path.write_text(sample_audit.draft.yaml_text)
    assert load_config(Schema, path) == sample_audit.schema


def test_every_line_of_the_draft_has_its_reason(sample_audit: Audit) -> None:
    tables = make_synthetic_log(num_users=53, num_items=29, num_days=3, seed=3)
    odd = pa.table({"colour": ["red", "blue", "red"], "weight": [0.5, 1.5, 2.5]})
    drafts = [
        sample_audit.draft,
        audit_with_draft(sample_of(tables.impressions), {}, name="made").draft,
        audit_with_draft(sample_of(odd), {}, name="odd").draft,
    ]
    bare = {"log:", "features:", "features: []", "tasks:", "history:"}
    for draft in drafts:
        assert draft is not None
        for line in draft.yaml_text.splitlines():
            assert line in bare or "# " in line, line
    assert drafts[0] is not None
    zone = next(line for line in drafts[0].yaml_text.splitlines() if line.startswith("time_zone"))
    assert "column 'hourmin' agrees with UTC+8" in zone


def test_what_is_missing_is_to_be_named() -> None:
    table = pa.table({"colour": ["red", "blue", "red"], "weight": [0.5, 1.5, 2.5]})
    audit = audit_with_draft(sample_of(table), {}, name="odd")
    assert audit.draft is not None
    values = yaml.safe_load(audit.draft.yaml_text)
    assert values["log"] == dict.fromkeys(("user", "item", "time"), TO_BE_NAMED)
    problems = " ".join(f.sentence for f in audit.findings if f.level == "problem")
    for word in ("No user column", "No item column", "No time column", "No label"):
        assert word in problems


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("playTimeMs", {"play", "time", "ms"}),
        ("is_like", {"is", "like"}),
        ("HTTPCode", {"http", "code"}),
        ("user-item.affinity 3", {"user", "item", "affinity", "3"}),
    ],
)
def test_names_are_cut_into_words(name: str, expected: set[str]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("name", "outcome", "family", "direction"),
    [
        ("is_click", "click", "engagement", "positive"),
        ("clk", "click", "engagement", "positive"),
        ("disliked", "dislike", "satisfaction", "negative"),
        ("isLike", "like", "satisfaction", "positive"),
        ("not_interested", "dismiss", "satisfaction", "negative"),
        ("thumbs_down", "dislike", "satisfaction", "negative"),
        ("unfollow", "unfollow", "satisfaction", "negative"),
        ("add_to_cart", "conversion", "engagement", "positive"),
        ("retweet", "share", "satisfaction", "positive"),
        ("skipped", "skip", "engagement", "negative"),
    ],
)
def test_outcomes_by_name(name: str, outcome: str, family: str, direction: str) -> None:
    found = outcome_of(name)
    assert found is not None
    assert (found.name, found.family, found.direction) == (outcome, family, direction)


@pytest.mark.parametrize("name", ["like_cnt", "num_clicks", "avg_rating", "item_ctr", "colour"])
def test_counts_and_rates_are_no_outcomes(name: str) -> None:
    assert outcome_of(name) is None


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (pa.array([1_700_000_000, 1_700_000_001]), "s"),
        (pa.array([1_700_000_000_000]), "ms"),
        (pa.array([1_700_000_000_000_000]), "us"),
        (pa.array([1_700_000_000_000_000_000]), "ns"),
        (pa.array([1_700_000_000_000], pa.timestamp("ms")), "timestamp"),
        (pa.array(["2023-11-14 22:13:20+00:00", "2023-11-14T22:13:21Z"]), "text"),
        (pa.array([19_675], pa.date32()), "date"),
        (pa.array([20_231_114, 20_231_115]), None),
        (pa.array(["2023", "soon"]), None),
    ],
)
def test_units_of_time(values: pa.Array, unit: str | None) -> None:
    column = Column("t", pa.chunked_array([values]))
    assert column.time_unit == unit
    if unit not in (None, "date"):
        assert column.time_ms[0] == 1_700_000_000_000


def test_roles_in_other_spellings() -> None:
    rng = np.random.default_rng(7)
    table = small_log(
        reqId=np.repeat(np.arange(72), 2)[:143],
        slot=rng.integers(3, size=143),
        dwell_seconds=rng.exponential(20, size=143),
        pscore=rng.uniform(0.1, 1.0, size=143),
        explore=rng.integers(2, size=143),
    )
    roles = find_roles(columns_of(table))
    assert (roles.user, roles.item, roles.time) == ("uid", "itemId", "event_ts")
    assert (roles.position, roles.watch_time, roles.watch_time_unit) == (
        "slot",
        "dwell_seconds",
        "s",
    )
    assert (roles.propensity, roles.randomised) == ("pscore", "explore")
    assert roles.request is None  # "req" is no word for it, and its users differ


def test_a_request_is_of_one_user() -> None:
    users = np.repeat(np.arange(7), [20, 21, 20, 20, 20, 21, 21])
    table = small_log(uid=users, request_id=users * 100 + np.arange(143) // 4)
    assert find_roles(columns_of(table)).request == "request_id"
    mixed = small_log(request_id=np.arange(143) % 30)
    assert find_roles(columns_of(mixed)).request is None


def test_owners_by_what_determines_a_column() -> None:
    users, items = np.arange(143) % 7, np.arange(143) // 7 % 11
    table = small_log(
        uid=users,
        itemId=items,
        country=np.array(list("abcabcd"))[users],
        genre=np.array(list("xyzxyzxyzww"))[items],
        hourly=np.arange(143) % 5,
    )
    audit = audit_with_draft(sample_of(table), {}, name="owners")
    assert role_of(audit, "country") == "user feature"
    assert role_of(audit, "genre") == "item feature"
    assert role_of(audit, "hourly") == "context feature"


def test_an_item_table_takes_the_items_features() -> None:
    items = np.arange(143) // 7 % 11
    table = small_log(
        uid=np.arange(143) % 7, itemId=items, length_s=np.array([3, 4, 5] * 4)[items] * 10
    )
    ids = pa.array(np.unique(table["itemId"].to_numpy()))
    of_items = pa.table({"itemId": ids, "genre": ["a", "b"] * 5 + ["c"]})
    audit = audit_with_draft(sample_of(table), {"item": of_items}, name="both")
    assert [f.name for f in audit.schema.features if f.owner == "item"] == ["itemId", "genre"]
    assert role_of(audit, "length_s") == "left out"


def test_determined_share_by_hand() -> None:
    owner = np.array([0, 0, 0, 1, 1, 2, -1])
    codes = np.array([5, 5, 4, 3, 3, 9, 5])
    # later rows of an owner: 5 (equal), 4 (not), 3 (equal)
    assert determined_share(owner, codes) == (pytest.approx(2 / 3), 3)


def test_ratings_give_a_number_and_a_threshold() -> None:
    stars = np.tile([1, 2, 3, 4, 5], 29)[:143]
    audit = audit_with_draft(sample_of(small_log(is_click=None, stars=stars)), {}, name="stars")
    number, high = audit.schema.task("stars"), audit.schema.task("stars_high")
    assert (number.kind, number.minimum, number.maximum) == ("regression", 1.0, 5.0)
    assert (high.kind, high.threshold, high.label) == ("binary", 4.0, "stars")


def test_names_that_a_schema_can_not_have() -> None:
    rng = np.random.default_rng(11)
    odd = {
        "weird/name:1": rng.integers(4, size=143),
        "-minus": rng.integers(3, size=143),
        "query_item": rng.integers(5, size=143),
        "feedback": rng.integers(6, size=143),
        "user_count": rng.integers(90, size=143),
    }
    audit = audit_with_draft(sample_of(small_log(**odd)), {}, name="odd")
    assert {feature.column for feature in audit.schema.features} >= set(odd)


def test_a_table_shows_which_column_is_the_user() -> None:
    """Whatever it is called: log and user table share one column, and it is unique in the table."""
    log = small_log(uid=None, reader=np.random.default_rng(3).integers(7, size=143))
    readers = pa.table({"reader": np.arange(7), "country": list("aabbcab")})
    audit = audit_with_draft(sample_of(log), {"user": readers}, name="x")
    assert audit.schema.log.user == "reader"
    assert role_of(audit, "reader") == "user"
    assert audit_with_draft(sample_of(log), {}, name="x").schema.log.user == TO_BE_NAMED
    twice = pa.concat_tables([readers, readers.slice(0, 1)])
    assert audit_with_draft(sample_of(log), {"user": twice}, name="x").schema.log.user != "reader"


def test_a_bad_cell_does_not_turn_a_watch_time_into_a_feature() -> None:
    seconds = np.random.default_rng(4).integers(0, 90, size=143).astype(np.float64)
    seconds[17] = -3
    audit = audit_with_draft(sample_of(small_log(dwell_seconds=seconds)), {}, name="x")
    assert audit.schema.log.watch_time == "dwell_seconds"
    seconds[:9] = -3
    audit = audit_with_draft(sample_of(small_log(dwell_seconds=seconds)), {}, name="x")
    assert audit.schema.log.watch_time is None


@pytest.mark.parametrize(
    ("tz", "zone"), [("Europe/Berlin", "Europe/Berlin"), ("+02:00", "UTC"), (None, "UTC")]
)
def test_a_time_column_may_name_its_zone(tz: str | None, zone: str) -> None:
    log = small_log()
    moments = log["event_ts"].cast(pa.timestamp("s")).cast(pa.timestamp("us", tz))
    log = log.set_column(log.column_names.index("event_ts"), "event_ts", moments)
    assert audit_with_draft(sample_of(log), {}, name="x").schema.time_zone == zone
