from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import pad

from ranker.bundle import load_bundle
from ranker.data.loader import ShuffleSettings, WindowBatches, read_in_order
from ranker.data.store import EncodedStore
from ranker.training.module import RankingModule
from ranker.training.settings import TrainConfig, TrainProgress

TrainInto = Callable[..., dict[str, str]]


def row_keys(store: EncodedStore, start: int, stop: int) -> Counter[bytes]:
    """Rows told apart by all that a batch holds of them."""
    (batch,) = read_in_order(store, start, stop, vocabulary_sizes={}, batch_rows=stop - start)
    return keys_of(batch)


def keys_of(batch: object) -> Counter[bytes]:
    columns = [
        torch.nan_to_num(_padded(values).double(), nan=-1.0)
        for group in (batch.features, batch.labels, batch.position)  # type: ignore[attr-defined]
        for _, values in sorted(group.items())
    ]
    table = torch.cat(columns, dim=1).numpy()
    return Counter(row.tobytes() for row in table)


def _padded(values: torch.Tensor) -> torch.Tensor:
    """Columns as [B, 1]; sequences, as long as a buffer's longest, with zeros in front."""
    wide = values.reshape(len(values), -1)
    return wide if values.dim() == 1 else pad(wide, (25 - wide.shape[1], 0))


@pytest.mark.parametrize(("block_rows", "buffer_rows"), [(16, 160), (5, 40), (7, 10_000)])
def test_each_row_comes_once_a_pass(block_rows: int, buffer_rows: int, store: EncodedStore) -> None:
    window = store.windows[13]  # the last one: no id is beyond its vocabularies
    shuffle = ShuffleSettings(seed=1, block_rows=block_rows, buffer_rows=buffer_rows)
    orders = []
    for pass_number in range(2):
        batches = WindowBatches(
            store, window, pass_number=pass_number, batch_rows=64, shuffle=shuffle
        )
        numbered = [batches[number] for number in range(len(batches))]
        assert [batch.number for batch in numbered] == list(range(len(batches)))
        ledger = sum((keys_of(batch.batch) for batch in numbered), Counter[bytes]())
        assert ledger == row_keys(store, window.start, window.stop)
        orders.append(torch.cat([b.batch.features["tenure_days"] for b in numbered]))
    assert not torch.equal(*orders)


def test_passes_and_rows_are_counted(
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    train_into: TrainInto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[tuple[str, int], Counter[bytes]] = {}
    original = RankingModule.training_step

    def noting(module: RankingModule, numbered: object, batch_idx: int) -> None:
        key = (module.cursor.window, module.cursor.pass_number)
        seen.setdefault(key, Counter()).update(keys_of(numbered.batch))  # type: ignore[attr-defined]
        original(module, numbered, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(RankingModule, "training_step", noting)
    progress: list[TrainProgress] = []
    config = three_days.model_copy(update={"passes_per_window": 2})
    train_into(tmp_path, store, config, on_progress=progress.append)
    days = ["2024-03-04", "2024-03-05", "2024-03-06"]
    assert list(seen) == [(day, number) for day in days for number in (0, 1)]
    for day in days:
        assert seen[(day, 0)] == seen[(day, 1)]
    num_rows = [window.num_rows for window in store.windows[:3]]
    assert [sum(seen[(day, 0)].values()) for day in days] == num_rows
    assert load_bundle(tmp_path / "bundle").data_window.rows == 2 * sum(num_rows)
    assert (progress[-1].rows_done, progress[-1].rows_total) == (2 * sum(num_rows),) * 2
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["window"], entry["pass"]) for entry in entries] == list(seen)
    assert all(np.isfinite(entry["mean_loss"]) for entry in entries)


def test_progressive_predictions_are_those_of_a_model_that_has_not_seen_the_window(
    tmp_path: Path,
    store: EncodedStore,
    trained_synthetic: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    config = small_train_config.model_copy(update={"before_window": "2024-03-08"})
    train_into(tmp_path, store, config)
    bundle = load_bundle(tmp_path / "bundle")
    window = store.windows[4]
    assert window.label == "2024-03-08"
    progressive = pq.read_table(trained_synthetic / "progressive" / "2024-03-08.parquet")
    assert progressive.column("row").to_pylist() == list(range(window.start, window.stop))
    sizes = bundle.encoders.sizes
    (batch,) = read_in_order(
        store, window.start, window.stop, vocabulary_sizes=sizes, batch_rows=9999
    )
    new = np.asarray(store.column("feature.user_id")[window.start : window.stop]) >= sizes["user"]
    assert new.any()
    assert (batch.features["user_id"].numpy()[new] == 0).all()
    with torch.no_grad():
        predictions = bundle.model.predict(batch)
    for task, values in predictions.items():
        assert np.array_equal(values.double().numpy(), progressive.column(task).to_numpy())
    days = sorted(path.stem for path in (trained_synthetic / "progressive").iterdir())
    assert days == [window.label for window in store.windows[1:10]]  # none for the first


def test_without_progressive_validation_the_weights_are_the_same(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    for name, wanted in (("with", True), ("without", False)):
        config = three_days.model_copy(update={"progressive_validation": wanted})
        train_into(tmp_path / name, store, config)
    bundles = [load_bundle(tmp_path / name / "bundle") for name in ("with", "without")]
    assert bundles[0].weights_sha256 == bundles[1].weights_sha256
    assert len(list((tmp_path / "with" / "progressive").iterdir())) == 2  # none for the first
    assert not (tmp_path / "without" / "progressive").exists()


def test_the_global_random_state_does_not_matter(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    torch.manual_seed(1)
    first = train_into(tmp_path / "one", store, three_days)
    torch.manual_seed(2)
    np.random.default_rng().random(3)
    assert train_into(tmp_path / "two", store, three_days) == first
    other = three_days.model_copy(update={"seed": three_days.seed + 1})
    assert train_into(tmp_path / "three", store, other) != first
