"""No position can change a score: bundle, calibrators and combination together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ranker.bundle import ModelBundle, load_bundle
from ranker.data.batch import Batch
from ranker.data.loader import read_in_order
from ranker.data.store import EncodedStore
from ranker.score_weights import ScoreWeights
from ranker.scoring.combine import combine

ROWS = 83


@pytest.fixture(scope="module")
def bundle(trained_synthetic: Path) -> ModelBundle:
    loaded = load_bundle(trained_synthetic / "bundle")
    assert loaded.model.position_tower is not None
    assert "platt" in loaded.calibrators.kind_by_task.values()
    return loaded


@pytest.fixture(scope="module")
def batch(bundle: ModelBundle, prepared_synthetic: Path) -> Batch:
    store = EncodedStore(prepared_synthetic)
    sizes = bundle.encoders.sizes
    (one,) = read_in_order(store, 900, 900 + ROWS, vocabulary_sizes=sizes, batch_rows=ROWS)
    return one


def scores(
    bundle: ModelBundle, batch: Batch, position: Mapping[str, Tensor], combination: str
) -> np.ndarray:
    moved = Batch(features=batch.features, labels={}, position=position)
    with torch.no_grad():
        raw = {task: p.double().numpy() for task, p in bundle.model.predict(moved).items()}
    weights = bundle.score_weights.weights
    score_weights = ScoreWeights.model_validate({"combination": combination, "weights": weights})
    return combine(
        bundle.calibrators.apply(raw),
        score_weights=score_weights,
        tasks=bundle.schema.tasks,
        requests=np.arange(ROWS, dtype=np.int64) // 7,
    )


@pytest.mark.parametrize("combination", ["weighted_product", "weighted_sum", "rank_normalised_sum"])
@pytest.mark.parametrize("devices", ["as logged", "unknown", "absent", "all alike"])
def test_no_position_can_change_a_score(
    devices: str, combination: str, bundle: ModelBundle, batch: Batch
) -> None:
    logged = batch.position["device"]
    device = {
        "as logged": {"device": logged},
        "unknown": {"device": torch.zeros_like(logged)},
        "absent": {},
        "all alike": {"device": torch.ones_like(logged)},
    }[devices]
    generator = torch.Generator().manual_seed(4)
    positions = {
        "missing": {"position": torch.zeros_like(logged)},
        "absent": {},
        "logged": {"position": batch.position["position"]},
        "first": {"position": torch.ones_like(logged)},
        "beyond any": {"position": torch.full_like(logged, 10_000)},
        "random": {"position": torch.randint(0, 9, (ROWS,), generator=generator)},
    }
    expected = scores(bundle, batch, {**positions["missing"], **device}, combination)
    assert len(np.unique(expected)) > ROWS // 3  # sums of ranks tie
    for position in positions.values():
        found = scores(bundle, batch, {**position, **device}, combination)
        np.testing.assert_array_equal(found, expected)


def test_but_positions_do_explain_the_log(bundle: ModelBundle, batch: Batch) -> None:
    """Else the test above would say nothing."""
    first = {**batch.position, "position": torch.ones_like(batch.position["position"])}
    last = {**first, "position": torch.full_like(first["position"], 5)}
    with torch.no_grad():
        logits = [
            bundle.model.training_logits(Batch(features=batch.features, labels={}, position=p))
            for p in (first, last)
        ]
    assert not torch.equal(logits[0]["click"], logits[1]["click"])
