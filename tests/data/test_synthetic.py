from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ranker.data.synthetic import (
    DAY_S,
    START_S,
    SyntheticTables,
    examination_probability,
    make_synthetic_log,
    write_synthetic_log,
)
from ranker.schema import Schema, load_schema

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def tables() -> SyntheticTables:
    return make_synthetic_log(num_users=610, num_items=310, num_days=8, seed=5)


@pytest.fixture(scope="module")
def log(tables: SyntheticTables) -> pd.DataFrame:
    """Impressions and, beside them, the truth."""
    return pd.concat([tables.impressions.to_pandas(), tables.truth.to_pandas()], axis=1)


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_schema(CONFIGS / "schema" / "synthetic.yaml")


def same_tables(one: SyntheticTables, other: SyntheticTables) -> bool:
    names = ("impressions", "users", "items", "truth")
    return all(getattr(one, name).equals(getattr(other, name)) for name in names)


def test_seed_decides_everything() -> None:
    def draw(seed: int) -> SyntheticTables:
        return make_synthetic_log(num_users=7, num_items=31, num_days=3, seed=seed)

    assert same_tables(draw(11), draw(11))
    assert not same_tables(draw(11), draw(12))


def test_same_seed_writes_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_synthetic_log(tmp_path / name, num_users=7, num_items=31, num_days=3, seed=11)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.parquet"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_tables_hold_every_column_of_the_schema(tables: SyntheticTables, schema: Schema) -> None:
    columns = schema.log
    structural = [columns.user, columns.item, columns.time, columns.request, columns.position]
    needed = {*structural, columns.device, columns.watch_time}
    needed |= {task.label for task in schema.tasks}
    needed |= {f.column for f in schema.features if f.owner == "context"}
    assert needed == set(tables.impressions.column_names)
    for owner, table in (("user", tables.users), ("item", tables.items)):
        assert {f.column for f in schema.features if f.owner == owner} == set(table.column_names)


def test_nulls_only_where_the_schema_expects_them(tables: SyntheticTables) -> None:
    with_nulls = {
        name
        for table in (tables.impressions, tables.users, tables.items, tables.truth)
        for name in table.column_names
        if table[name].null_count
    }
    assert with_nulls == {"rating", "quality_proxy"}


def test_ids_are_strings_and_join(tables: SyntheticTables, log: pd.DataFrame) -> None:
    assert log.item_id.str.fullmatch(r"v\d{6}").all()
    assert log.request_id.str.fullmatch(r"r\d{7}").all()
    assert tables.impressions.schema.field("item_id").type == pa.string()
    assert set(log.item_id) <= set(tables.items["item_id"].to_pylist())
    assert set(log.user_id) == set(tables.users["user_id"].to_pylist())


@settings(max_examples=25, deadline=None)
@given(
    num_users=st.integers(1, 40),
    num_items=st.integers(24, 90),
    num_days=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_slates_are_well_formed(num_users: int, num_items: int, num_days: int, seed: int) -> None:
    drawn = make_synthetic_log(
        num_users=num_users, num_items=num_items, num_days=num_days, seed=seed
    )
    log = drawn.impressions.to_pandas()
    requests = log.groupby("request_id")
    assert (requests.size() == 6).all()
    assert (requests.item_id.nunique() == 6).all()
    assert (requests[["user_id", "time_s", "device"]].nunique() == 1).all(axis=None)
    assert log.sort_values(["request_id", "position"]).position.tolist() == (
        list(range(6)) * len(requests)
    )
    assert log.time_s.between(START_S, START_S + num_days * DAY_S, inclusive="left").all()
    published = drawn.items.to_pandas().set_index("item_id").published
    shown = pd.to_datetime(log.time_s, unit="s", utc=True)
    assert (published.loc[log.item_id].to_numpy() <= shown.to_numpy()).all()
    assert log.user_id.nunique() == num_users


def test_examination_by_hand() -> None:
    # (1 + position) ** -decay: 1; 2 ** -0.9; 3 ** -0.6; 4 ** -0.3
    got = examination_probability(device=np.array([0, 0, 1, 2]), position=np.array([0, 1, 2, 3]))
    np.testing.assert_allclose(got, [1.0, 0.535887, 0.517282, 0.659754], atol=1e-6)


def test_clicks_follow_the_stated_probability(log: pd.DataFrame) -> None:
    probability = log.examination * log.attraction
    for _, rows in log.assign(probability=probability).groupby(["device", "position"]):
        variance = (rows.probability * (1 - rows.probability)).sum()
        assert abs(rows.click.sum() - rows.probability.sum()) < 4.5 * np.sqrt(variance)


def test_click_rate_falls_with_position_fastest_on_the_phone(log: pd.DataFrame) -> None:
    rate = log.groupby(["device", "position"]).click.mean().unstack()  # [device, position]
    # Shares of position 0, once relevance is divided out, are the examination itself.
    relevance = log.groupby(["device", "position"]).attraction.mean().unstack()
    assert (rate[0] > 2 * rate[5]).all()
    share = (rate / relevance)[5] / (rate / relevance)[0]
    assert share["phone"] < share["tablet"] < share["tv"]
    assert share["phone"] == pytest.approx(6**-0.9, abs=0.06)


def test_position_and_relevance_are_confounded(log: pd.DataFrame) -> None:
    by_position = log.groupby("position").attraction.mean()
    assert by_position.is_monotonic_decreasing


def test_survey_is_rare_and_its_answers_are_whole_numbers(log: pd.DataFrame) -> None:
    shown = log.rating.notna()
    assert stats.binomtest(int(shown.sum()), len(log), 0.03).pvalue > 1e-4
    assert set(log.rating[shown]) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_clickbait_is_clicked_and_regretted(log: pd.DataFrame) -> None:
    quarter = pd.qcut(log.clickbait, 4, labels=False)
    means = log.groupby(quarter)[["click", "rating", "dismissed"]].mean()
    assert means.click[3] > 1.5 * means.click[0]
    assert means.rating[3] < means.rating[0] - 0.5
    assert means.dismissed[3] > 3 * means.dismissed[0]


def test_quality_satisfies(log: pd.DataFrame) -> None:
    answered = log[log.rating.notna()]
    assert stats.spearmanr(answered.rating, answered.quality).statistic > 0.3
    assert stats.spearmanr(answered.rating, answered.satisfaction).statistic > 0.6


def test_watch_time_is_zero_unless_clicked(log: pd.DataFrame) -> None:
    assert ((log.watch_time_s > 0) == (log.click == 1)).all()


def test_new_users_and_items_appear_every_day(tables: SyntheticTables, log: pd.DataFrame) -> None:
    day = (log.time_s - START_S) // DAY_S
    for column in ("user_id", "item_id"):
        first_day = day.groupby(log[column]).min()
        assert set(first_day) == set(range(8))
    is_new = tables.items.to_pandas().published >= pd.Timestamp(START_S, unit="s", tz="UTC")
    assert is_new.sum() == 310 - 186  # 60 % of the items are there at the start


def test_topics_hold_the_topic_first(tables: SyntheticTables) -> None:
    items = tables.items.to_pandas()
    assert (items.topics.str[0] == items.topic).all()
    assert set(items.topics.str.len()) == {1, 2}
    assert (items.topics.map(lambda topics: len(set(topics))) == items.topics.str.len()).all()


def test_files_are_several_unsorted_and_complete(tmp_path: Path) -> None:
    size = {"num_users": 37, "num_items": 53, "num_days": 4}
    paths = write_synthetic_log(tmp_path, **size, seed=3)
    files = sorted(paths.log.iterdir())
    assert [file.name for file in files] == [f"part-{part:05d}.parquet" for part in range(3)]
    for file in files:
        assert pq.ParquetFile(file).num_row_groups > 1
        times_s = pq.read_table(file)["time_s"].to_numpy()
        assert (np.diff(times_s) < 0).any()
    drawn = make_synthetic_log(**size, seed=3)
    assert pq.read_table(paths.log).equals(drawn.impressions)
    assert pq.read_table(paths.users).equals(drawn.users)
    assert pq.read_table(paths.items).equals(drawn.items)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"num_users": 0, "num_items": 31, "num_days": 2}, "num_users must be at least 1, got 0"),
        ({"num_users": 7, "num_items": 23, "num_days": 2}, "num_items must be at least 24, got 23"),
        ({"num_users": 7, "num_items": 31, "num_days": 0}, "num_days must be at least 1, got 0"),
    ],
)
def test_sizes_too_small_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_synthetic_log(**size, seed=0)
