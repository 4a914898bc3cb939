"""``history: null``: a log whose declared features are all there is, from raw files to slates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain_run import FEW_REPLICATES, TEST_START, Ran, run_ranker

from ranker.config import dump_yaml
from ranker.data.store import EncodedStore
from ranker.data.store_layout import store_columns
from ranker.data.synthetic import SyntheticLog
from ranker.schema import Schema
from ranker.training.settings import TrainConfig

CANDIDATE_COLUMNS = ["request_id", "user_id", "time_s", "item_id", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    folder: Path
    ran: Mapping[str, Ran]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
) -> Run:
    folder = tmp_path_factory.mktemp("without-history")
    schema = synthetic_schema.model_copy(update={"history": None})
    (folder / "schema.yaml").write_text(dump_yaml(schema), encoding="utf-8")
    train = small_train_config.model_copy(update={"before_window": TEST_START})
    (folder / "train.yaml").write_text(dump_yaml(train), encoding="utf-8")
    _late_rows(synthetic_log).to_parquet(folder / "candidates.parquet", index=False)
    data, trained = folder / "data", folder / "run"
    raw = [
        *("--schema", folder / "schema.yaml", "--log", synthetic_log.log),
        *("--users", synthetic_log.users, "--items", synthetic_log.items),
    ]
    commands: dict[str, list[str | Path]] = {
        "validate": raw,
        "prepare": [*raw, "--set", f"snapshots=['{TEST_START}']", "--output", data],
        "train": ["--data", data, "--config", folder / "train.yaml", "--output", trained],
        "evaluate": [
            *("--bundle", trained / "bundle", "--data", data, "--run", trained),
            *(*FEW_REPLICATES, "--output", trained),
        ],
        "score": [
            *("--bundle", trained / "bundle", "--state", data / "snapshots" / TEST_START),
            *("--candidates", folder / "candidates.parquet"),
            *("--output", folder / "slates.parquet"),
        ],
        "verify": [trained / "bundle"],
    }
    ran = {}
    for name, words in commands.items():
        ran[name] = run_ranker(name, *words, "--json", "--quiet")
        assert (ran[name].code, ran[name].err) == (0, ""), f"{name}: {ran[name]}"
    return Run(folder=folder, ran=ran)


def _late_rows(log: SyntheticLog) -> pd.DataFrame:
    rows = pd.read_parquet(log.log)
    start_s = pd.Timestamp(TEST_START, tz="UTC").timestamp()
    late = rows.loc[rows["time_s"] >= start_s, CANDIDATE_COLUMNS].drop_duplicates()
    return late.sort_values("request_id", kind="stable")


def test_only_declared_features_are_stored(
    run: Run, prepared_synthetic: Path, synthetic_schema: Schema
) -> None:
    store, full = EncodedStore(run.folder / "data"), EncodedStore(prepared_synthetic)
    assert store.schema.all_features == synthetic_schema.features
    names = [column.name for column in store_columns(store.schema)]
    assert len(names) == 6 + len(synthetic_schema.features) + len(synthetic_schema.tasks)
    for name in names:
        assert np.array_equal(store.column(name), full.column(name), equal_nan=True), name


def test_every_row_is_evaluated_and_scored(run: Run, synthetic_log: SyntheticLog) -> None:
    late = _late_rows(synthetic_log)
    tasks = run.ran["evaluate"].json["tasks"]
    assert tasks["click"]["rows"] == len(late)
    slates = pd.read_parquet(run.folder / "slates.parquet")
    assert len(slates) == len(late)
    assert slates["rank"].max() > 1
    best = slates.sort_values("rank").groupby("request_id")["score"]
    assert (best.first() == best.max()).all()


def test_candidates_are_refused(run: Run, synthetic_log: SyntheticLog) -> None:
    ran = run_ranker(
        *("candidates", "--state", run.folder / "data" / "snapshots" / TEST_START),
        *("--log", synthetic_log.log, "--from", TEST_START),
        *("--output", run.folder / "candidates-2.parquet"),
    )
    assert ran.code == 2
    assert "history: null" in ran.err
    assert "Traceback" not in ran.err
