"""The nightly recipe: a bundle takes up the days since the last one and is compared with it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain_run import FEW_REPLICATES, Chain, run_ranker

from ranker.atomic import sha256_of

START_S = 1_709_510_400  # 2024-03-04
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """Days 1 to 10 and days 11 to 14, each with its data and bundle."""

    first_data: Path
    first: Path
    second_data: Path
    second: Path


@pytest.fixture(scope="module")
def nights(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    log = pd.read_parquet(chain.raw.log)
    day = (log["time_s"] - START_S) // DAY_S
    log[day < 10].to_parquet(folder / "first.parquet")
    log.to_parquet(folder / "second.parquet")  # the log has grown; the state knows its beginning
    nights = Nights(
        first_data=folder / "first-data",
        first=folder / "first-run" / "bundle",
        second_data=folder / "second-data",
        second=folder / "second-run" / "bundle",
    )
    tables = ["--schema", chain.schema, "--users", chain.raw.users, "--items", chain.raw.items]
    prepare = ["prepare", *tables, "--log"]
    train = ["train", "--config", chain.train_config, "--data"]
    for words in (
        [*prepare, folder / "first.parquet", "--output", nights.first_data],
        [*train, nights.first_data, "--output", nights.first.parent],
        [
            *(*prepare, folder / "second.parquet", "--state", nights.first_data / "state"),
            *("--output", nights.second_data),
        ],
        [
            *(*train, nights.second_data, "--continue", nights.first),
            *("--set", "before_window=2024-03-17", "--output", nights.second.parent),
        ],
    ):
        ran = run_ranker(*words, "--quiet")
        assert ran.code == 0, ran.err
    return nights


def test_the_second_night_takes_up_the_new_days(nights: Nights, chain: Chain) -> None:
    log = pd.read_parquet(chain.raw.log)
    labels = [str(datetime.date(2024, 3, day)) for day in range(14, 18)]
    files = sorted((nights.second.parent / "progressive").glob("*.parquet"))
    assert [file.stem for file in files] == labels[:-1]
    rows = sum(len(pd.read_parquet(file)) for file in files)
    assert rows == int(log["time_s"].between(START_S + 10 * DAY_S, START_S + 13 * DAY_S - 1).sum())


def test_two_nights_are_one_training(nights: Nights, chain: Chain, tmp_path: Path) -> None:
    ran = run_ranker(
        *("train", "--config", chain.train_config, "--data", chain.data),
        *("--set", "before_window=2024-03-17", "--output", tmp_path / "run", "--quiet"),
    )
    assert ran.code == 0, ran.err
    weights = "weights.safetensors"
    assert sha256_of(tmp_path / "run" / "bundle" / weights) == sha256_of(nights.second / weights)


def test_the_new_bundle_is_compared_on_a_day_neither_has_seen(nights: Nights) -> None:
    words = ["compare", nights.second, nights.first, "--data", nights.second_data]
    ran = run_ranker(*words, "--from", "2024-03-17", *FEW_REPLICATES, "--json")
    found = ran.json
    worse = [c for c in found["comparisons"] if c["verdict"] == "worse"]
    assert found["worse"] is bool(worse)
    assert ran.code == (4 if worse else 0)
    assert any(c["difference"]["value"] != 0 for c in found["comparisons"])
    # without dates, too, no day is taken that either has trained on
    assert run_ranker(*words, *FEW_REPLICATES, "--json").json == found
    refused = run_ranker(*words, "--from", "2024-03-16")
    assert refused.code == 3
    assert "trained on windows up to 2024-03-16" in refused.err


def test_a_broken_night_is_not_published(nights: Nights, tmp_path: Path) -> None:
    """Random predictions in place of the new bundle's."""
    out = tmp_path / "evaluated"
    ran = run_ranker(
        *("evaluate", "--bundle", nights.second, "--data", nights.second_data),
        *(*FEW_REPLICATES, "--output", out, "--quiet"),
    )
    assert ran.code == 0, ran.err
    own = out / "predictions.parquet"
    words = ["--data", nights.second_data, *FEW_REPLICATES, "--from", "2024-03-17", "--json"]
    same = run_ranker("compare", nights.second, own, *words)
    assert same.code == 0
    assert {c["difference"]["value"] for c in same.json["comparisons"]} == {0}
    assert {c["verdict"] for c in same.json["comparisons"]} == {"cannot tell"}
    broken = pd.read_parquet(own)
    rng = np.random.default_rng(8)
    broken["click"] = rng.random(len(broken))
    broken["watch_time_s"] = broken["watch_time_s"] + 500
    broken.to_parquet(tmp_path / "broken.parquet")
    ran = run_ranker("compare", tmp_path / "broken.parquet", nights.first, *words)
    assert (ran.code, ran.json["worse"]) == (4, True)
    verdicts = {(c["task"], c["metric"]): c["verdict"] for c in ran.json["comparisons"]}
    assert verdicts["watch_time_s", "rmse"] == "worse"


def test_a_night_needs_the_state_of_its_bundle(
    nights: Nights, chain: Chain, tmp_path: Path
) -> None:
    """Data prepared from nothing numbers its ids anew: it does not continue the bundle."""
    log = pd.read_parquet(chain.raw.log)
    log[log["time_s"] >= START_S + 10 * DAY_S].to_parquet(tmp_path / "late.parquet")
    ran = run_ranker(
        *("prepare", "--schema", chain.schema, "--log", tmp_path / "late.parquet"),
        *("--users", chain.raw.users, "--items", chain.raw.items, "--output", tmp_path / "data"),
    )
    assert ran.code == 0, ran.err
    words = ["train", "--config", chain.train_config, "--data", tmp_path / "data"]
    ran = run_ranker(*words, "--continue", nights.first, "--output", tmp_path / "run")
    assert ran.code == 3
    assert "its vocabularies don't continue the bundle's" in ran.err
