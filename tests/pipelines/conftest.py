"""One run of the whole chain, which the tests here share and nobody changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_run import Chain, run_ranker

from ranker.config import dump_yaml
from ranker.data.synthetic import SyntheticLog
from ranker.schema import Schema
from ranker.training.settings import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def chain(
    tmp_path_factory: pytest.TempPathFactory,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
) -> Chain:
    """Every command from validate to verify, each of which succeeded and printed one object."""
    chain = Chain(folder=tmp_path_factory.mktemp("chain"), raw=synthetic_log)
    chain.schema.write_text(dump_yaml(synthetic_schema), encoding="utf-8")
    chain.train_config.write_text(dump_yaml(small_train_config), encoding="utf-8")
    for name, words in chain.commands.items():
        ran = run_ranker(name, *words, "--json", "--quiet")
        assert (ran.code, ran.err) == (0, ""), f"{name}: {ran}"
        chain.ran[name] = ran
    return chain
