"""A small prepared log that many tests share; nobody may write to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.synthetic import SyntheticLog, write_synthetic_log
from ranker.schema import Schema, load_schema

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture(scope="session")
def synthetic_schema() -> Schema:
    """The synthetic log's schema; its scales are fitted on the first window alone."""
    schema = load_schema(CONFIGS / "schema" / "synthetic.yaml")
    return schema.model_copy(update={"scale_rows": 50})


@pytest.fixture(scope="session")
def synthetic_log(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLog:
    """14 days of 150 users; every day brings new users and items."""
    folder = tmp_path_factory.mktemp("synthetic-log")
    return write_synthetic_log(folder, num_users=150, num_items=70, num_days=14, seed=3)


@pytest.fixture(scope="session")
def prepared_synthetic(
    tmp_path_factory: pytest.TempPathFactory, synthetic_log: SyntheticLog, synthetic_schema: Schema
) -> Path:
    """The folder that `prepare` makes of the synthetic log."""
    folder = tmp_path_factory.mktemp("prepared-synthetic")
    inputs = Inputs(log=synthetic_log.log, users=synthetic_log.users, items=synthetic_log.items)
    prepare(inputs, synthetic_schema, PrepareSettings(), folder)
    return folder
