"""ReLU layers as one step of autograd against the same layers one by one."""

import pytest
import torch
from torch import nn

from ranker.models.layers import BatchedMLP, LayerStyle
from ranker.models.relu_layers import relu_layers

ROWS, NUM, INPUTS = 7, 3, 11


@pytest.mark.parametrize("widths", [[5], [5, 4], [5, 4, 6]])
@pytest.mark.parametrize("has_own_inputs", [False, True])
def test_values_and_gradients_are_those_of_the_layers_one_by_one(
    widths: list[int], has_own_inputs: bool
) -> None:
    torch.manual_seed(0)
    shape = (ROWS, NUM, INPUTS) if has_own_inputs else (ROWS, INPUTS)
    x = torch.randn(shape, requires_grad=True)
    mlp = BatchedMLP(NUM, INPUTS, widths, style=LayerStyle())
    weighting = torch.randn(ROWS, NUM, widths[-1])
    outs, gradients = [], []
    for forward in (mlp, mlp.layers):  # a Sequential knows nothing of the fused form
        out = forward(x)
        found = torch.autograd.grad((out * weighting).sum(), [x, *mlp.parameters()])
        outs.append(out)
        gradients.append(found)
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=0)
    for fused, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("shape", [(ROWS, INPUTS), (ROWS, NUM, INPUTS)])
def test_gradients_are_the_slopes_of_finite_differences(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    maps = [
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((NUM, 5, INPUTS), (NUM, 4, 5), (NUM, 5), (NUM, 4))
    ]
    assert torch.autograd.gradcheck(lambda x, *m: relu_layers(x, m[:2], m[2:]), (x, *maps))


def test_a_gradient_shared_with_others_stays_as_it_was() -> None:
    torch.manual_seed(2)
    mlp = BatchedMLP(NUM, INPUTS, [5], style=LayerStyle())
    given = torch.randn(ROWS, NUM, 5)
    before = given.clone()
    mlp(torch.randn(ROWS, INPUTS)).backward(given)
    assert torch.equal(given, before)


def test_an_input_without_gradient_gets_none() -> None:
    x = torch.randn(ROWS, INPUTS)
    mlp = BatchedMLP(NUM, INPUTS, [5, 4], style=LayerStyle())
    mlp(x).sum().backward()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_under_autocast_it_is_the_layers_under_autocast() -> None:
    torch.manual_seed(3)
    mlp = BatchedMLP(NUM, INPUTS, [5, 4], style=LayerStyle())
    for parameter in mlp.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(ROWS, INPUTS, requires_grad=True)
    found = []
    for forward in (mlp, mlp.layers):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = forward(x)
        found.append([out, *torch.autograd.grad(out.float().sum(), [x, *mlp.parameters()])])
    for fused, plain in zip(*found, strict=True):
        assert fused.dtype == plain.dtype
        torch.testing.assert_close(fused, plain, rtol=2e-2, atol=2e-2)
