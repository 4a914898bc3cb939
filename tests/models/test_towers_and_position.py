from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from ranker.models.layers import LayerStyle
from ranker.models.position import PositionTower
from ranker.models.towers import Towers

TASKS = ("click", "like", "watch")
POSITIONS, DEVICES = 6, 2


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_tower(dropout: float = 0.0) -> PositionTower:
    tower = PositionTower(
        num_positions=POSITIONS, num_devices=DEVICES, tasks=TASKS, dropout=dropout
    )
    for parameter in tower.parameters():
        nn.init.normal_(parameter)
    return tower


def test_towers_equal_a_loop_over_tasks() -> None:
    towers = Towers(
        in_width=11, widths=[5], initial_logits=dict.fromkeys(TASKS, 0.0), style=LayerStyle()
    )
    x = torch.randn(7, 3, 11)
    layer = towers.hidden.layers[0][0]
    assert towers.final.bias is not None
    logits = towers(x)
    for k in range(3):
        hidden = functional.relu(x[:, k] @ layer.weight[k].T + layer.bias[k])
        expected = (hidden @ towers.final.weight[k].T + towers.final.bias[k]).squeeze(1)
        torch.testing.assert_close(logits[:, k], expected)


def test_towers_start_at_their_initial_logits() -> None:
    towers = Towers(
        in_width=11, widths=[], initial_logits={"a": -3.0, "b": 2.0}, style=LayerStyle()
    )
    assert towers.tasks == ("a", "b")
    assert towers(torch.zeros(1, 2, 11)).tolist() == [[-3.0, 2.0]]


def test_position_logits_are_position_plus_device_plus_pair() -> None:
    tower = random_tower()
    position, device = torch.tensor([0, 3, 6, 1]), torch.tensor([2, 0, 1, 1])
    logits = tower(position, device)
    for row, (p, v) in enumerate(zip(position.tolist(), device.tolist(), strict=True)):
        expected = tower.positions[p] + tower.devices[v] + tower.pairs[v, p]
        torch.testing.assert_close(logits[row], expected)
    fresh = PositionTower(num_positions=POSITIONS, num_devices=0, tasks=TASKS)
    assert (fresh(position, torch.zeros_like(position)) == 0).all()


def test_positions_beyond_the_last_count_as_the_last() -> None:
    tower = random_tower()
    device = torch.tensor([1])
    assert torch.equal(tower(torch.tensor([400]), device), tower(torch.tensor([POSITIONS]), device))


def test_a_tenth_of_the_positions_is_dropped_in_training_only() -> None:
    tower = random_tower(dropout=0.1)
    position, device = torch.full((5_000,), 4), torch.full((5_000,), 1)
    missing = tower.missing(device[:1])[0]
    dropped = (tower(position, device) == missing).all(dim=1).double().mean().item()
    assert dropped == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 5_000))
    tower.eval()
    assert not (tower(position, device) == missing).all(dim=1).any()


def test_missing_position_keeps_the_device() -> None:
    tower = random_tower()
    device = torch.tensor([0, 1, 2])
    assert torch.equal(tower.missing(device), tower(torch.zeros(3, dtype=torch.int64), device))
    assert not torch.equal(tower.missing(device)[0], tower.missing(device)[1])


def test_the_tower_learns_the_position_effect_and_its_average_for_missing() -> None:
    """Click rates .6 and .2 at two positions: logits .405 and -1.386; missing sees the mean, .4."""
    tower = PositionTower(num_positions=2, num_devices=0, tasks=("click",), dropout=0.1)
    position = torch.tensor([1, 2]).repeat_interleave(500)
    label = torch.cat([torch.arange(500) < 300, torch.arange(500) < 100]).float()
    device = torch.zeros_like(position)
    for _ in range(120):
        tower.zero_grad()
        logits = tower(position, device)[:, 0]
        functional.binary_cross_entropy_with_logits(logits, label).backward()
        with torch.no_grad():
            for parameter in tower.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=4.0)
    tower.eval()
    found = torch.sigmoid(tower(torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.int64)))
    assert found[:, 0].tolist() == pytest.approx([0.4, 0.6, 0.2], abs=0.05)


def test_impossible_position_towers_are_refused() -> None:
    with pytest.raises(ValueError, match="dropout must be in"):
        PositionTower(num_positions=2, num_devices=0, tasks=TASKS, dropout=1.0)
