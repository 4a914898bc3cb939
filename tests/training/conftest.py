"""What the tests of training share: the sample store, training into a folder, digests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ranker.atomic import sha256_of
from ranker.bundle import ModelBundle
from ranker.data.store import EncodedStore
from ranker.training.fit import train
from ranker.training.settings import TrainConfig

Digests = dict[str, str]
TrainInto = Callable[..., Digests]


def digests(run_folder: Path) -> Digests:
    """sha256 of weights and optimizer state."""
    names = ("weights.safetensors", "optimizer.safetensors")
    return {name: sha256_of(run_folder / "bundle" / name) for name in names}


@pytest.fixture
def store(prepared_synthetic: Path) -> EncodedStore:
    return EncodedStore(prepared_synthetic)


@pytest.fixture
def three_days(small_train_config: TrainConfig) -> TrainConfig:
    """1,314 rows of three days in 25 batches."""
    return small_train_config.model_copy(update={"before_window": "2024-03-07"})


@pytest.fixture
def train_into() -> TrainInto:
    def run(
        folder: Path,
        store: EncodedStore,
        config: TrainConfig,
        start_from: ModelBundle | None = None,
        **options: object,
    ) -> Digests:
        folder.mkdir(exist_ok=True)
        train(store, config, folder, start_from=start_from, **options)  # type: ignore[arg-type]
        return digests(folder)

    return run
