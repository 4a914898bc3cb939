from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from ranker.diagnosis.gates import expert_utilisation, polarized_tasks


def test_utilisation_by_hand() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8]])
    found = expert_utilisation({"click": weights})["click"]
    assert found.mean_weights == pytest.approx((0.3, 0.3, 0.4))
    assert found.entropy_nats == pytest.approx(stats.entropy([0.3, 0.3, 0.4]))
    rows = (stats.entropy([0.5, 0.5]) + stats.entropy([0.1, 0.1, 0.8])) / 2
    assert found.row_entropy_nats == pytest.approx(rows, rel=1e-6)


def test_gates_that_choose_by_row_use_all_experts_on_average() -> None:
    found = expert_utilisation({"click": torch.eye(5).repeat(7, 1)})["click"]
    assert found.entropy_nats == pytest.approx(math.log(5))
    assert found.row_entropy_nats == 0
    assert not found.is_polarized


@pytest.mark.parametrize(
    ("mean_weights", "polarized"),
    [
        ([0.91, 0.03, 0.06], True),
        ([0.89, 0.05, 0.06], False),
        ([0.5, 0.485, 0.005, 0.005, 0.005], True),  # three of five unused
        ([0.4, 0.3, 0.29, 0.005, 0.005], False),  # two of five
        ([0.495, 0.495, 0.005, 0.005], False),  # half is not more than half
        ([1.0], False),
        ([0.95, 0.05], True),
    ],
)
def test_polarized_gates(mean_weights: list[float], polarized: bool) -> None:
    weights = torch.tensor([mean_weights]).expand(7, -1)
    healthy = torch.full((7, 3), 1 / 3)
    utilisation = expert_utilisation({"like": healthy, "click": weights})
    assert polarized_tasks(utilisation) == (("click",) if polarized else ())


def test_no_gates_no_utilisation() -> None:
    assert expert_utilisation({}) == {}
    assert polarized_tasks({}) == ()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.empty(0, 3), "at least one row"),
        (torch.ones(3), "at least one row"),
        (torch.ones(7, 3), "sum to 1"),
        (torch.full((7, 3), torch.nan), "sum to 1"),
        (torch.tensor([[1.5, -0.5]]), "minimum of -0.5"),
    ],
)
def test_what_is_no_gate_is_refused(weights: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'click'.*{message}"):
        expert_utilisation({"click": weights})
