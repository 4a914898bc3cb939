"""One run of the whole chain, which the tests here share and nobody changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chain_run import Chain, Demo, demo_words, run_ranker

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


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`ranker demo` in a process of its own; takes a minute or more."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    done = subprocess.run(
        demo_words(folder), cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Demo(folder=folder, out=done.stdout, err=done.stderr)
