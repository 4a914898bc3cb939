"""What every sharing structure must do, then what is special about each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.models.layers import LayerStyle
from ranker.models.mmoe import MMoE, drop_experts
from ranker.models.ranking_model import Bottom
from ranker.models.shared_bottom import SharedBottom

ROWS, INPUTS, EXPERTS, WIDTH = 7, 11, 5, 6
TASKS = ("click", "type", "a.b")
PLAIN = LayerStyle()
BATCH = LayerStyle(normalization="batch", dropout=0.2)


def shared_bottom(tasks: Sequence[str], style: LayerStyle) -> Bottom:
    return SharedBottom(in_width=INPUTS, widths=[9, WIDTH], tasks=tasks, style=style)


def mmoe(tasks: Sequence[str], style: LayerStyle) -> Bottom:
    return MMoE(
        in_width=INPUTS,
        shared_widths=[8],
        num_experts=EXPERTS,
        expert_widths=[9, WIDTH],
        tasks=tasks,
        style=style,
    )


def mmoe_on_input(tasks: Sequence[str], style: LayerStyle) -> Bottom:
    return MMoE(
        in_width=INPUTS,
        shared_widths=[],
        num_experts=EXPERTS,
        expert_widths=[WIDTH],
        tasks=tasks,
        style=style,
    )


def mmoe_gated_by_input(tasks: Sequence[str], style: LayerStyle) -> Bottom:
    return MMoE(
        in_width=INPUTS,
        shared_widths=[8],
        num_experts=EXPERTS,
        expert_widths=[WIDTH],
        tasks=tasks,
        gate_input="input",
        style=style,
    )


every_bottom = pytest.mark.parametrize(
    "make", [shared_bottom, mmoe, mmoe_on_input, mmoe_gated_by_input], ids=lambda f: f.__name__
)
Make = Callable[[Sequence[str], LayerStyle], nn.Module]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@every_bottom
@pytest.mark.parametrize("num_tasks", [1, 3, 20])
def test_shapes_and_task_order(make: Make, num_tasks: int) -> None:
    tasks = tuple(f"task{i}" for i in range(num_tasks))
    bottom = make(tasks, BATCH)
    assert bottom.tasks == tasks
    assert bottom.out_width == WIDTH
    assert bottom(torch.randn(ROWS, INPUTS)).shape == (ROWS, num_tasks, WIDTH)


@every_bottom
@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_few_rows_train_and_score(make: Make, num_rows: int) -> None:
    bottom = make(TASKS, BATCH)
    for mode in (True, False):
        out = bottom.train(mode)(torch.randn(num_rows, INPUTS))
        assert out.shape == (num_rows, 3, WIDTH)
        assert out.isfinite().all()


@every_bottom
def test_rows_do_not_influence_each_other_when_scoring(make: Make) -> None:
    bottom = make(TASKS, BATCH)
    bottom(torch.randn(ROWS, INPUTS))  # moves the running statistics
    bottom.eval()
    x = torch.randn(ROWS, INPUTS)
    changed = torch.cat([x[:3], torch.randn(4, INPUTS)])
    torch.testing.assert_close(bottom(changed)[:3], bottom(x)[:3], rtol=0, atol=1e-6)


@every_bottom
def test_every_parameter_gets_a_gradient(make: Make) -> None:
    bottom = make(TASKS, LayerStyle(activation="silu", normalization="batch"))
    out = bottom(torch.randn(ROWS, INPUTS))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in bottom.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


@every_bottom
def test_gate_weights_are_distributions_over_experts(make: Make) -> None:
    bottom = make(TASKS, BATCH)
    weights = bottom.gate_weights(torch.randn(ROWS, INPUTS))
    assert tuple(weights) in ((), TASKS)
    for task_weights in weights.values():
        assert task_weights.shape == (ROWS, EXPERTS)
        torch.testing.assert_close(task_weights.sum(dim=1), torch.ones(ROWS))


def test_tasks_of_a_shared_bottom_see_the_same() -> None:
    out = shared_bottom(TASKS, PLAIN)(torch.randn(ROWS, INPUTS))
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])


def test_mmoe_of_one_expert_equals_its_expert() -> None:
    bottom = MMoE(
        in_width=INPUTS,
        shared_widths=[],
        num_experts=1,
        expert_widths=[9, WIDTH],
        tasks=TASKS,
        expert_dropout=0.5,
        style=PLAIN,
    )
    x = torch.randn(ROWS, INPUTS)
    hidden = x
    for layer in bottom.experts.layers:
        hidden = functional.relu(hidden @ layer[0].weight[0].T + layer[0].bias[0])
    for mode in (True, False):
        out = bottom.train(mode)(x)
        for k in range(3):
            torch.testing.assert_close(out[:, k], hidden)


def test_mmoe_equals_a_loop_over_tasks_and_experts() -> None:
    bottom = mmoe_gated_by_input(TASKS, PLAIN)
    assert isinstance(bottom, MMoE)
    bottom.eval()
    x = torch.randn(ROWS, INPUTS)
    shared = bottom.shared(x)
    first = bottom.experts.layers[0][0]
    out = bottom(x)
    weights = bottom.gate_weights(x)
    for k, task in enumerate(TASKS):
        rows = slice(k * EXPERTS, (k + 1) * EXPERTS)
        gate = (x @ bottom.gates.weight[rows].T + bottom.gates.bias[rows]).softmax(dim=1)
        torch.testing.assert_close(weights[task], gate)
        expected = torch.zeros(ROWS, WIDTH)
        for e in range(EXPERTS):
            expected += gate[:, e : e + 1] * functional.relu(
                shared @ first.weight[e].T + first.bias[e]
            )
        torch.testing.assert_close(out[:, k], expected)


def _dropped_gate(logits: Tensor, probability: float) -> Tensor:
    return drop_experts(logits, probability=probability).softmax(dim=-1)


def test_expert_dropout_drops_at_its_rate_independently() -> None:
    logits = torch.randn(1, 1, EXPERTS).expand(4_000, 3, EXPERTS)
    dropped = _dropped_gate(logits, 0.1) == 0
    # 1e-5 of the gates would lose all five and keep them instead
    num_draws = 4_000 * 3 * EXPERTS
    share = dropped.double().mean().item()
    assert share == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / num_draws))
    pairs = (dropped[:, 0, 0] & dropped[:, 1, 0]).double().mean().item()  # two tasks, one expert
    assert pairs == pytest.approx(0.01, abs=5 * math.sqrt(0.0099 / 4_000))


def test_expert_dropout_renormalises_what_is_left() -> None:
    logits = torch.randn(ROWS * 9, 3, EXPERTS)
    gates = logits.softmax(dim=-1)
    dropped = _dropped_gate(logits, 0.4)
    kept = dropped > 0
    assert (~kept).any()
    torch.testing.assert_close(
        dropped, gates * kept / (gates * kept).sum(dim=-1, keepdim=True), rtol=1e-4, atol=1e-6
    )


def test_expert_dropout_never_drops_all() -> None:
    logits = torch.randn(5_000, 1, 2)
    dropped = _dropped_gate(logits, 0.9)
    torch.testing.assert_close(dropped.sum(dim=-1), torch.ones(5_000, 1))
    intact = (dropped > 0).all(dim=-1).double().mean().item()
    assert intact == pytest.approx(0.81 + 0.01, abs=5 * math.sqrt(0.82 * 0.18 / 5_000))


def test_expert_dropout_survives_a_polarized_gate() -> None:
    logits = torch.tensor([[[200.0, 0.0, 0.0]]]).expand(500, 1, 3)
    dropped = _dropped_gate(logits, 0.5)
    assert dropped.isfinite().all()
    torch.testing.assert_close(dropped.sum(dim=-1), torch.ones(500, 1))


def test_expert_dropout_is_off_when_scoring() -> None:
    bottom = mmoe(TASKS, PLAIN)
    x = torch.randn(ROWS, INPUTS)
    assert isinstance(bottom, MMoE)
    assert not torch.equal(bottom(x.repeat(9, 1)), bottom(x.repeat(9, 1)))
    bottom.eval()
    assert torch.equal(bottom(x), bottom(x))


@pytest.mark.parametrize(
    ("num_experts", "expert_widths", "expert_dropout", "message"),
    [
        (0, [3], 0.1, "got 0 experts"),
        (2, [], 0.1, "at least one layer"),
        (2, [3], 1.0, "expert_dropout must be in"),
    ],
)
def test_impossible_experts_are_refused(
    num_experts: int, expert_widths: list[int], expert_dropout: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MMoE(
            in_width=INPUTS,
            shared_widths=[],
            num_experts=num_experts,
            expert_widths=expert_widths,
            tasks=TASKS,
            expert_dropout=expert_dropout,
            style=PLAIN,
        )
