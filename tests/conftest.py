"""A small prepared log that many tests share; nobody may write to it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.synthetic import SyntheticLog, write_synthetic_log
from ranker.schema import Schema, load_schema

if TYPE_CHECKING:
    from ranker.training.settings import TrainConfig

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # so a shell starts what runs in the background, and Ctrl-C would not reach the commands tested
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def small_train_config() -> TrainConfig:
    """A small model of no two sizes alike; a day of the synthetic log takes a tenth of a second."""
    from ranker.config import parse_config
    from ranker.training.settings import TrainConfig

    values = {
        "seed": 5,
        "batch_rows": 64,
        "shuffle_block_rows": 16,
        "shuffle_buffer_rows": 160,
        "threads": 1,
        "accelerator": "cpu",
        "model": {
            "embedding_width": 4,
            "bottom": {
                "kind": "mmoe",
                "shared_widths": [9],
                "num_experts": 3,
                "expert_widths": [8],
            },
            "tower_widths": [7],
            "dropout": 0.1,
        },
    }
    return parse_config(TrainConfig, values, source="small")


@pytest.fixture(scope="session")
def trained_synthetic(
    tmp_path_factory: pytest.TempPathFactory,
    prepared_synthetic: Path,
    small_train_config: TrainConfig,
) -> Path:
    """The run folder of a small model trained on the first 10 of the 14 days."""
    from ranker.data.store import EncodedStore
    from ranker.training.fit import train

    folder = tmp_path_factory.mktemp("trained-synthetic")
    config = small_train_config.model_copy(update={"before_window": "2024-03-14"})
    train(EncodedStore(prepared_synthetic), config, folder)
    return folder


@pytest.fixture
def tiny_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of as many KiB as the test's parameter says."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
