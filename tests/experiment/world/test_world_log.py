"""The log a world writes: fit for the pipeline, summarised rightly, and fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import load_config, parse_config
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.problems import ProblemLog
from ranker.data.tables import read_requests, stream_log
from ranker.experiment.world.calibrate import fit_to
from ranker.experiment.world.log import WorldLog, write_log
from ranker.experiment.world.log_rows import LogRows, match_tasks, rows_of_tables, rows_of_world
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.summary import LogSummary, summarise
from ranker.experiment.world.world import World, make_world
from ranker.schema import Schema, load_schema

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_schema(CONFIGS / "schema" / "world.yaml")


@pytest.fixture(scope="module")
def world() -> World:
    values = {
        "seed": 3,
        "num_users": 240,
        "num_items": 130,
        "num_topics": 5,
        "num_days": 5,
        "slate_size": 6,
        "candidates": {"count": 17},
    }
    return make_world(parse_config(WorldSettings, values, source="test"))


@pytest.fixture(scope="module")
def written(world: World, tmp_path_factory: pytest.TempPathFactory) -> WorldLog:
    folder = tmp_path_factory.mktemp("world")
    return write_log(world, folder, days=range(4), candidate_days=range(4, 5), seed=2)


@pytest.fixture(scope="module")
def rows(written: WorldLog) -> pd.DataFrame:
    return pq.read_table(written.log).to_pandas()


def test_every_world_configuration_makes_a_world() -> None:
    files = sorted((CONFIGS / "world").glob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        settings = load_config(WorldSettings, file)
        make_world(settings.model_copy(update={"num_users": 11}))


def test_the_pipeline_prepares_the_log_without_complaint(
    written: WorldLog, schema: Schema, rows: pd.DataFrame, tmp_path: Path
) -> None:
    inputs = Inputs(log=written.log, users=written.users, items=written.items)
    summary = prepare(inputs, schema, PrepareSettings(), tmp_path)
    assert (summary.rows_kept, summary.bad_rows, summary.exact_duplicates) == (len(rows), 0, 0)
    assert len(summary.rows_by_window) == 4
    assert not any(summary.rows_without_owner.values())
    candidates = read_requests(written.candidates, schema, content="candidates")
    assert candidates.num_rows % 17 == 0
    assert not set(candidates["request"].to_pylist()) & set(rows["request_id"])


def test_slates_are_whole_and_come_from_one_moment(rows: pd.DataFrame) -> None:
    by_request = rows.groupby("request_id")
    assert (by_request["position"].agg(["min", "max", "nunique"]) == [0, 5, 6]).all(axis=None)
    assert by_request["item_id"].nunique().eq(6).all()
    for column in ("user_id", "time_ms", "device", "query_item_id"):
        assert by_request[column].nunique().eq(1).all()
    assert rows["time_ms"].is_monotonic_increasing
    assert rows["propensity"].between(0, 1).all()
    assert (rows.loc[rows["click"] == 0, ["like", "watch_time_s"]] == 0).all(axis=None)


def test_propensities_weigh_the_log_back_to_a_random_order(
    world: World, rows: pd.DataFrame
) -> None:
    # P(this slate by chance) / P(it by the logging policy), for the top two ranks: mean 1
    top = rows[rows["position"] < 2].groupby("request_id")["propensity"].prod()
    weights = 1 / (17 * 16) / top
    error = weights.std() / np.sqrt(len(weights))
    assert weights.mean() == pytest.approx(1, abs=4 * error)


def test_the_log_is_the_same_bytes_whatever_the_number_of_workers(
    world: World, written: WorldLog, tmp_path: Path
) -> None:
    again = write_log(world, tmp_path, days=range(4), candidate_days=range(4, 5), seed=2, jobs=3)
    for name in ("log/day-002.parquet", "candidates/day-004.parquet", "users.parquet"):
        assert (tmp_path / name).read_bytes() == (written.log.parent / name).read_bytes()
    assert again.items.read_bytes() == written.items.read_bytes()


def summary_of(written: WorldLog, schema: Schema) -> LogSummary:
    tables = stream_log(written.log, schema, problems=ProblemLog(), quarantine=lambda _: None)
    return summarise(rows_of_tables(tables, schema))


def test_a_summary_says_what_pandas_says(
    written: WorldLog, schema: Schema, rows: pd.DataFrame
) -> None:
    summary = summary_of(written, schema)
    day = rows["time_ms"] // 86_400_000
    labels = rows[["click", "watch_time_s", "like", "dismissed", "rating"]].astype(float)
    labels["watch_time_s"] = labels["watch_time_s"].clip(upper=3600)
    assert summary.num_impressions == len(rows)
    assert summary.num_users == rows["user_id"].nunique()
    assert summary.num_items == rows["item_id"].nunique()
    assert (summary.num_days, summary.impressions_per_request) == (4, 6.0)
    assert summary.rates == pytest.approx(labels.mean().to_dict())
    assert summary.observed == pytest.approx(labels.notna().mean().to_dict())
    pairs = labels.corr()
    for pair, value in summary.correlations.items():
        assert value == pytest.approx(pairs.loc[*pair.split(", ")], abs=1e-9)
    assert len(summary.correlations) == 10
    assert summary.ctr_by_position == pytest.approx(
        rows.groupby("position")["click"].mean().tolist()
    )
    watched = labels["watch_time_s"][labels["watch_time_s"] > 0]
    assert summary.watch_quantiles_s == pytest.approx(
        watched.quantile([0.1, 0.5, 0.9]).tolist(), rel=0.03
    )
    requests = rows.groupby(["user_id", day])["request_id"].nunique()
    assert summary.visits.requests_per_active_day == pytest.approx(requests.mean())
    active = requests.unstack().notna()
    assert summary.visits.active_share == pytest.approx(active.to_numpy().mean())
    today, tomorrow = active.to_numpy()[:, :-1], active.to_numpy()[:, 1:]
    assert summary.visits.return_rate == pytest.approx(tomorrow[today].mean())
    assert summary.visits.comeback_rate == pytest.approx(tomorrow[~today].mean())


def test_the_rows_of_a_world_and_of_its_log_have_one_summary(
    world: World, written: WorldLog, schema: Schema
) -> None:
    from_log = summary_of(written, schema)
    from_world = summarise(rows_of_world(world, range(4), seed=2))
    assert from_world.visits == from_log.visits
    assert from_world.items.model_dump() == pytest.approx(from_log.items.model_dump())
    for task in ("click", "like", "rating"):
        assert from_world.rates[task] == pytest.approx(from_log.rates[task])


def test_a_log_with_less_gives_a_summary_with_less() -> None:
    labels = {"like": np.array([0.0, 1.0, np.nan])}
    rows = LogRows(
        users=np.array(["a", "b", "b"]),
        items=np.array([5, 5, 6]),
        days=np.array([7, 7, 7]),
        requests=np.array([1, 2, 2]),
        positions=np.full(3, -1),
        labels=labels,
    )
    summary = summarise([rows])
    assert summary.rates == {"like": 0.5}
    assert summary.observed == pytest.approx({"like": 2 / 3})
    assert (summary.ctr_by_position, summary.watch_quantiles_s) == (None, None)
    assert (summary.visits.return_rate, summary.visits.request_variance) == (None, None)
    assert summary.items.correlation is None
    assert LogSummary.model_validate_json(summary.model_dump_json()) == summary
    with pytest.raises(ValueError, match="at least one impression"):
        summarise([])


def test_variance_between_users_is_free_of_the_chance_of_days() -> None:
    # 400 users with means 2 and 6 in equal shares: variance between users 4, Poisson within
    rng = np.random.default_rng(5)
    counts = 1 + rng.poisson(np.repeat([1.0, 5.0], 200)[:, None], size=(400, 11))
    users, days = np.indices(counts.shape)
    users, days = (np.repeat(one.ravel(), counts.ravel()) for one in (users, days))
    rows = LogRows(
        users=users,
        items=np.zeros(len(users), dtype=np.int64),
        days=days,
        requests=np.arange(len(users)),
        positions=np.zeros(len(users), dtype=np.int64),
        labels={},
    )
    assert summarise([rows]).visits.request_variance == pytest.approx(4, abs=0.4)


def test_tasks_are_matched_by_what_they_are(schema: Schema) -> None:
    assert match_tasks(schema) == {name: name for name in match_tasks(schema)}
    assert set(match_tasks(schema)) == {"click", "watch_time_s", "like", "dismissed", "rating"}
    kuairand = load_schema(CONFIGS / "schema" / "kuairand.yaml")
    assert match_tasks(kuairand) == {
        "click": "click",
        "watch_time_s": "watch_time_s",
        "like": "like",
        "dismissed": "hate",
    }


@pytest.mark.slow
def test_a_world_is_fitted_to_the_log_of_another() -> None:
    other = parse_config(
        WorldSettings,
        {
            "seed": 11,
            "num_users": 3_000,
            "num_items": 900,
            "num_days": 6,
            "slate_size": 7,
            "conflict": 0.5,
            "examination": {"kind": "fig7"},
            "activity": {"requests_per_day": 2.2, "spread": 0.5, "return_rate": 0.6},
            "behaviour": {
                "click_rate": 0.1,
                "like_rate": 0.2,
                "dismissal_rate": 0.03,
                "watch_median_s": 20,
                "watch_spread": 0.6,
                "rating_mean": 3.0,
            },
        },
        source="test",
    )
    log = summarise(rows_of_world(make_world(other), range(6), seed=5))
    start = WorldSettings(seed=2, num_users=2_000, num_items=900, num_days=6)
    fitted, closeness = fit_to(log, start)
    by_name = {one.statistic: one for one in closeness}
    assert by_name["impressions per request"].world == 7
    for name in ("mean click", "mean watch_time_s", "mean like", "mean rating", "return rate"):
        assert by_name[name].fitted
        assert abs(by_name[name].relative_error) < 0.04
    assert abs(by_name["mean dismissed"].relative_error) < 0.08
    for position in range(7):
        assert abs(by_name[f"click rate at position {position}"].relative_error) < 0.06
    assert not by_name["correlation of click, like"].fitted
    # what was hidden in the other world is found, where its statistics tell it
    assert fitted.conflict == pytest.approx(0.5, abs=0.3)
    assert fitted.behaviour.watch_spread == pytest.approx(0.6, abs=0.05)
    assert fitted.behaviour.rating_mean == pytest.approx(3.0, abs=0.25)


def test_a_fit_keeps_what_the_log_cannot_tell() -> None:
    rng = np.random.default_rng(3)
    num_rows = 600
    rows = LogRows(
        users=rng.integers(50, size=num_rows),
        items=rng.integers(30, size=num_rows),
        days=rng.integers(3, size=num_rows),
        requests=np.arange(num_rows) // 3,
        positions=np.full(num_rows, -1),
        labels={"click": (rng.random(num_rows) < 0.3).astype(float)},
    )
    start = parse_config(
        WorldSettings,
        {"num_users": 150, "num_items": 130, "num_days": 3, "candidates": {"count": 17}},
        source="test",
    )
    fitted, closeness = fit_to(summarise([rows]), start)
    assert fitted.examination == start.examination
    assert fitted.behaviour.like_rate == start.behaviour.like_rate
    assert fitted.behaviour.watch_median_s == start.behaviour.watch_median_s
    by_name = {one.statistic: one for one in closeness}
    assert abs(by_name["mean click"].relative_error) < 0.05
    assert "mean like" not in by_name


def test_a_parquet_folder_of_a_world_has_no_null_but_ratings(written: WorldLog) -> None:
    table = pq.read_table(written.log)
    nulls = {name: table.column(name).null_count for name in table.schema.names}
    assert {name for name, count in nulls.items() if count} == {"rating"}
    assert 0.01 < 1 - nulls["rating"] / table.num_rows < 0.06
    assert table.schema.field("position").type == pa.int32()
