from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from ranker.models.layers import MLP, BatchedLinear, BatchedMLP, BatchNorm, LayerStyle, module_key

ROWS, NUM, INPUTS, OUTPUTS = 7, 5, 11, 3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared_input", [True, False])
def test_batched_linear_equals_a_loop(bias: bool, shared_input: bool) -> None:
    layer = BatchedLinear(NUM, INPUTS, OUTPUTS, bias=bias)
    x = torch.randn(ROWS, INPUTS) if shared_input else torch.randn(ROWS, NUM, INPUTS)
    expected = torch.stack(
        [
            functional.linear(
                x if shared_input else x[:, i],
                layer.weight[i],
                None if layer.bias is None else layer.bias[i],
            )
            for i in range(NUM)
        ],
        dim=1,
    )
    assert layer(x).shape == (ROWS, NUM, OUTPUTS)
    torch.testing.assert_close(layer(x), expected)


def test_batched_linear_starts_like_linear_in_each_slice() -> None:
    torch.manual_seed(0)
    layer = BatchedLinear(2, 400, 300)
    reference = nn.Linear(400, 300)
    for i in range(2):
        assert layer.weight[i].abs().max() <= 1 / math.sqrt(400)
        assert layer.weight[i].std().item() == pytest.approx(
            reference.weight.std().item(), rel=0.02
        )


@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_batched_mlp_equals_separate_mlps(normalization: str, activation: str) -> None:
    torch.manual_seed(1)
    style = LayerStyle(activation=activation, normalization=normalization)  # type: ignore[arg-type]
    batched = BatchedMLP(NUM, INPUTS, [4, OUTPUTS], style=style)
    for parameter in batched.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(ROWS, INPUTS)
    outs = []
    for i in range(NUM):
        single = MLP(INPUTS, [4, OUTPUTS], style=style)
        for layer, source in zip(single.layers, batched.layers, strict=True):
            layer[0].weight.data = source[0].weight[i].data
            if normalization != "batch":
                layer[0].bias.data = source[0].bias[i].data
            if normalization == "batch":
                width = layer[0].out_features
                part = slice(i * width, (i + 1) * width)
                layer[1].batch_norm.weight.data = source[1].batch_norm.weight[part].data
                layer[1].batch_norm.bias.data = source[1].batch_norm.bias[part].data
            if normalization == "layer":
                layer[1].weight.data = source[1].weight[i].data
                layer[1].bias.data = source[1].bias[i].data
        outs.append(single(x))
    torch.testing.assert_close(batched(x), torch.stack(outs, dim=1), rtol=1e-4, atol=1e-5)


def test_mlp_without_layers_is_the_identity() -> None:
    x = torch.randn(ROWS, INPUTS)
    for mlp in (
        MLP(INPUTS, [], style=LayerStyle()),
        BatchedMLP(NUM, INPUTS, [], style=LayerStyle()),
    ):
        assert mlp.out_width == INPUTS
        assert mlp(x) is x


def test_batch_norm_trains_on_one_row_by_running_statistics() -> None:
    norm = BatchNorm(OUTPUTS, eps=0.0)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0, 16.0]))
    out = norm(torch.tensor([[3.0, 5.0, -1.0]]))
    torch.testing.assert_close(out, torch.tensor([[1.0, 1.0, -1.0]]))
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]
    assert norm.num_batches_tracked == 0


def test_batch_norm_of_several_rows_is_the_usual_one() -> None:
    x = torch.randn(ROWS, OUTPUTS) * 3 + 1
    out = BatchNorm(OUTPUTS)(x)
    expected = (x - x.mean(dim=0)) / (x.var(dim=0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(out, expected)


def test_module_keys_are_valid_and_distinct() -> None:
    names = ["type", "keys", "a.b", "a_b", "a%2Eb", "_a", "a"]
    modules = nn.ModuleDict({module_key(name): nn.Identity() for name in names})
    assert len(modules) == len(names)
