"""The whole model, for every sharing structure that can be configured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ranker.data.batch import Batch
from ranker.models.build import (
    MMoEConfig,
    ModelConfig,
    NoPositionTowerConfig,
    SharedBottomConfig,
)
from ranker.models.layers import LayerStyle
from ranker.models.ranking_model import RankingModel
from ranker.models.towers import Towers

MakeModel = Callable[..., RankingModel]
MakeBatch = Callable[..., Batch]
BOTTOMS = [
    SharedBottomConfig(widths=(13, 9)),
    MMoEConfig(shared_widths=(), num_experts=5, expert_widths=(9, 6)),
    MMoEConfig(shared_widths=(13,), num_experts=1, expert_widths=(6,), gate_input="input"),
]
every_bottom = pytest.mark.parametrize("bottom", BOTTOMS, ids=lambda config: config.kind)
TASKS = ("click", "rating", "watch_time_s")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def total_loss(model: RankingModel, batch: Batch) -> torch.Tensor:
    logits = model.training_logits(batch)
    return torch.stack(
        [head.loss(logits[task], batch.labels[task]).sum() for task, head in model.heads.items()]
    ).sum()


@every_bottom
def test_logits_and_predictions_by_task(
    bottom: MMoEConfig, make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig(bottom=bottom)).eval()
    batch = make_batch()
    for found in (model.training_logits(batch), model.scoring_logits(batch), model.predict(batch)):
        assert tuple(found) == TASKS
        assert all(column.shape == (7,) for column in found.values())
        assert all(column.isfinite().all() for column in found.values())
    predictions = model.predict(batch)
    torch.testing.assert_close(
        predictions["click"], torch.sigmoid(model.scoring_logits(batch)["click"])
    )
    assert (predictions["watch_time_s"] >= 0).all()


@every_bottom
def test_every_parameter_gets_a_gradient_and_nulls_break_nothing(
    bottom: MMoEConfig, make_model: MakeModel, make_batch: MakeBatch
) -> None:
    config = ModelConfig(bottom=bottom, activation="silu", embedding_width=4)
    model = make_model(config)
    total_loss(model, make_batch(num_rows=60)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        gradient = parameter.grad.to_dense()
        assert gradient.isfinite().all(), name
        is_gate_of_one = name.startswith("bottom.gates") and bottom.num_experts == 1
        assert (gradient.abs().max() > 1e-9) != is_gate_of_one, name


@every_bottom
def test_rows_do_not_influence_each_other_when_scoring(
    bottom: MMoEConfig, make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig(bottom=bottom, dropout=0.3))
    model.training_logits(make_batch(num_rows=50))
    model.eval()
    batch, other = make_batch(seed=1), make_batch(seed=2)
    mixed = Batch(
        features={
            name: torch.cat([column[:3], other.features[name][3:]])
            for name, column in batch.features.items()
        },
        labels={},
        position={},
    )
    alone = model.predict(replace(batch, position={}))
    for task, column in model.predict(mixed).items():
        torch.testing.assert_close(column[:3], alone[task][:3], rtol=1e-5, atol=1e-6)


@every_bottom
@pytest.mark.parametrize("num_rows", [0, 1])
def test_tiny_batches(
    bottom: MMoEConfig, num_rows: int, make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig(bottom=bottom))
    batch = make_batch(num_rows=num_rows)
    total_loss(model, batch).backward()
    assert all(
        parameter.grad is None or parameter.grad.to_dense().isfinite().all()
        for parameter in model.parameters()
    )
    assert model.eval().predict(batch)["click"].shape == (num_rows,)


@every_bottom
@pytest.mark.parametrize("training", [True, False])
def test_no_position_can_change_a_score(
    bottom: MMoEConfig, training: bool, make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig(bottom=bottom, id_dropout=0.0)).train(training)
    assert model.position_tower is not None
    for parameter in model.position_tower.parameters():
        torch.nn.init.normal_(parameter)
    batch = make_batch()
    moved = replace(batch, position={**batch.position, "position": 10 - batch.position["position"]})
    unknown = replace(batch, position={"device": batch.position["device"]})
    results = []
    for variant in (batch, moved, unknown):
        torch.manual_seed(1)
        results.append(model.predict(variant))
    for task in TASKS:
        assert torch.equal(results[0][task], results[1][task])
        assert torch.equal(results[0][task], results[2][task])
    if not training:
        shown, elsewhere = model.training_logits(batch), model.training_logits(moved)
        assert not torch.allclose(shown["click"], elsewhere["click"])


def test_training_logits_add_the_position_tower(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig()).eval()
    bare = make_model(ModelConfig(position_tower=NoPositionTowerConfig())).eval()
    tower = model.position_tower
    assert tower is not None
    assert bare.position_tower is None
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter)
    batch = make_batch()
    added = tower(batch.position["position"], batch.position["device"])
    for k, task in enumerate(TASKS):
        main = bare.scoring_logits(batch)[task]
        torch.testing.assert_close(bare.training_logits(batch)[task], main)
        torch.testing.assert_close(model.training_logits(batch)[task], main + added[:, k])


def test_training_without_positions_is_refused(
    make_model: MakeModel, make_batch: MakeBatch
) -> None:
    model = make_model(ModelConfig())
    with pytest.raises(ValueError, match="the batch has none; give the log's position column"):
        model.training_logits(replace(make_batch(), position={}))


def test_gate_weights_by_task(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model(ModelConfig(bottom=BOTTOMS[1])).eval()
    weights = model.gate_weights(make_batch())
    assert {task: tuple(w.shape) for task, w in weights.items()} == dict.fromkeys(TASKS, (7, 5))
    assert make_model(ModelConfig(bottom=BOTTOMS[0])).gate_weights(make_batch()) == {}


def test_weights_survive_saving(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model(ModelConfig())
    batch = make_batch()
    logits = model.training_logits(batch)
    for task, head in model.heads.items():
        head.observe(logits[task], batch.labels[task])
    other = make_model(ModelConfig(), seed=1)
    assert not torch.equal(
        other.eval().predict(batch)["click"], model.eval().predict(batch)["click"]
    )
    other.load_state_dict(model.state_dict())
    for task, column in other.predict(batch).items():
        assert torch.equal(column, model.predict(batch)[task])


def test_a_few_steps_fit_the_batch(make_model: MakeModel, make_batch: MakeBatch) -> None:
    model = make_model(ModelConfig(bottom=BOTTOMS[1], id_dropout=0.0))
    batch = make_batch(num_rows=64)
    before = total_loss(model, batch).item()
    # signs of the gradients by hand: torch.optim takes seconds to import
    for _ in range(25):
        model.zero_grad()
        total_loss(model, batch).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad.to_dense().sign(), alpha=0.02)
    assert total_loss(model, batch).item() < 0.5 * before


def test_parts_with_other_tasks_are_refused(make_model: MakeModel) -> None:
    model = make_model(ModelConfig(tower_widths=()))
    towers = Towers(
        in_width=model.bottom.out_width,
        widths=[],
        initial_logits={"rating": 0.0, "click": 0.0, "watch_time_s": 0.0},
        style=LayerStyle(),
    )
    with pytest.raises(ValueError, match="Towers has tasks"):
        RankingModel(embedder=model.embedder, bottom=model.bottom, towers=towers, heads=model.heads)
