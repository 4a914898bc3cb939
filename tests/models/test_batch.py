from __future__ import annotations

import torch

from ranker.data.batch import Batch


def test_batch_counts_its_rows_and_moves_as_a_whole() -> None:
    batch = Batch(
        features={"price": torch.zeros(7)},
        labels={"click": torch.zeros(7)},
        position={"device": torch.zeros(7, dtype=torch.int64)},
    )
    assert batch.num_rows == 7
    moved = batch.to("meta")
    columns = [*moved.features.values(), *moved.labels.values(), *moved.position.values()]
    assert [column.device.type for column in columns] == ["meta"] * 3
    assert batch.features["price"].device.type == "cpu"


def test_batch_without_features_or_tensors_is_sized() -> None:
    assert Batch(features={}, labels={}, position={"position": torch.zeros(3)}).num_rows == 3
    assert Batch(features={}, labels={}, position={}).num_rows == 0
