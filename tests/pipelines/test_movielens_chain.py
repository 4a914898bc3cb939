"""MovieLens: integer ids, seconds, no requests, no user table, windows of a month."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from chain_run import FEW_REPLICATES, run_ranker
from sklearn.metrics import root_mean_squared_error

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RANKER_DATA", "")) / "movielens_latest_small"
TEST_START = "2016-02-02"  # windows of 31 days begin here, counted from 1970-01-01
MIDDLE = "2016-02-20"
CONFIG = """\
before_window: "2016-02-02"
threads: 1
accelerator: cpu
model:
  embedding_width: 6
  bottom: {kind: mmoe, shared_widths: [11], num_experts: 3, expert_widths: [9]}
  tower_widths: [7]
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "ratings.parquet").is_file(),
        reason="RANKER_DATA names no folder with movielens_latest_small",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared, trained, evaluated."""
    folder = tmp_path_factory.mktemp("movielens")
    (folder / "train.yaml").write_text(CONFIG, encoding="utf-8")
    commands = {
        "prepare": [
            *("--schema", ROOT / "configs" / "schema" / "movielens.yaml"),
            *("--log", DATA / "ratings.parquet", "--items", DATA / "movies.parquet"),
            *("--set", f"snapshots=['{TEST_START}']", "--output", folder / "data"),
        ],
        "train": [
            *("--data", folder / "data", "--config", folder / "train.yaml"),
            *("--output", folder / "run"),
        ],
        "evaluate": [
            *("--bundle", folder / "run" / "bundle", "--data", folder / "data"),
            *("--run", folder / "run", *FEW_REPLICATES, "--output", folder / "run"),
        ],
        "report": [folder / "run", "--data", folder / "data"],
        "verify": [folder / "run" / "bundle"],
    }
    for name, words in commands.items():
        ran = run_ranker(name, *words, "--quiet")
        assert (ran.code, ran.err) == (0, ""), f"{name}: {ran}"
    return folder


def test_the_error_is_that_of_scikit_learn(folder: Path) -> None:
    ratings = pd.read_parquet(DATA / "ratings.parquet")
    predictions = pd.read_parquet(folder / "run" / "predictions.parquet")
    joined = ratings.merge(
        predictions, on=["userId", "movieId", "timestamp"], suffixes=("", "_predicted")
    )
    assert len(joined) == len(predictions)
    ran = run_ranker(
        *("compare", folder / "run" / "bundle", folder / "run" / "predictions.parquet"),
        *("--data", folder / "data", *FEW_REPLICATES, "--json"),
    )
    rating = ran.json["comparisons"][0]
    expected = root_mean_squared_error(joined["rating"], joined["rating_predicted"])
    assert (rating["task"], rating["metric"]) == ("rating", "rmse")
    assert rating["a"]["value"] == pytest.approx(expected, rel=1e-5)
    assert rating["difference"]["value"] == 0


def test_the_model_beats_the_mean_of_the_past(folder: Path) -> None:
    ratings = pd.read_parquet(DATA / "ratings.parquet").rename(columns={"rating": "label"})
    test = ratings.merge(pd.read_parquet(folder / "run" / "predictions.parquet"))
    past = ratings[ratings["timestamp"] < test["timestamp"].min()]
    error = root_mean_squared_error(test["label"], test["rating"])
    overall = [past["label"].mean()] * len(test)
    assert error < root_mean_squared_error(test["label"], overall)


def test_candidates_and_slates(folder: Path) -> None:
    """A month's users, of whom most are new."""
    state = folder / "data" / "snapshots" / TEST_START
    candidates, slates = folder / "candidates.parquet", folder / "slates.parquet"
    ran = run_ranker(
        *("candidates", "--state", state, "--log", DATA / "ratings.parquet"),
        *("--from", MIDDLE, "--max-requests", "37", "--set", "num_candidates=29"),
        *("--output", candidates, "--json"),
    )
    assert ran.json["requests"] == 37
    ran = run_ranker(
        *("score", "--bundle", folder / "run" / "bundle", "--state", state),
        *("--candidates", candidates, "--output", slates, "--json"),
    )
    assert ran.json["shown"] == len(pq.read_table(slates)) == 370
    # inside a window of a month: rows after the date must not teach the response model
    ran = run_ranker(
        *("simulate", "--data", folder / "data", "--state", state, "--candidates", candidates),
        *("--before", MIDDLE, "--control", folder / "run" / "bundle", "--treatment", slates),
        *("--set", "num_refits=2", "--set", "response_iterations=3"),
        *("--output", folder / "run", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["slate_overlap"] == 1
