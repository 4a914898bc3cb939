"""Linear maps followed by ReLU, several networks at once, as one step of autograd.

Layer by layer, autograd gives each activation and each gradient a buffer of its own, and copies
what two layers lay out differently. Here a hidden layer is activated and its gradient masked where
it lies, and a gradient is written in the layout that the layer below reads. The numbers are those
of the layers one by one.

Shapes: ``B`` batch, ``N`` parallel networks (experts or tasks), ``I`` inputs, ``H`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def relu_layers(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Map [B, I] (the same input for all) or [B, N, I] to [B, N, H] of the last layer.

    Args:
        x: under autocast it may be of another precision than the weights.
        weights: [N, H, I] each, from the first layer to the last; at least one.
        biases: [N, H] each.
    """
    # torch leaves `apply` untyped
    out: Tensor = _ReluLayers.apply(x, *weights, *biases)  # type: ignore[no-untyped-call]
    return out


class _ReluLayers(torch.autograd.Function):
    """See `relu_layers`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """The last layer's output [B, N, H], a view of [N, B, H] but for a single shared layer."""
        kind, ctx.input_dtype = x.device.type, x.dtype
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x, *parameters_ = (tensor.to(dtype) for tensor in (x, *parameters))
        num_layers = len(parameters_) // 2
        weights, biases = parameters_[:num_layers], parameters_[num_layers:]
        hidden = [x]
        for weight, bias in zip(weights, biases, strict=True):
            hidden.append(_layer(hidden[-1], weight, bias))
        ctx.save_for_backward(*hidden, *weights)
        return hidden[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input, the weights and the biases."""
        num_layers = len(ctx.saved_tensors) // 2
        hidden, weights = ctx.saved_tensors[: num_layers + 1], ctx.saved_tensors[num_layers + 1 :]
        dtype = ctx.input_dtype
        of_weights: list[Tensor] = []
        of_biases: list[Tensor] = []
        # autograd may give this gradient to others too: only here is it copied
        below: Tensor | None = _masked(gradient, hidden[-1], torch.empty_like(hidden[-1]))
        for number in reversed(range(num_layers)):
            assert below is not None
            of_weight, of_bias = _weight_gradients(below, hidden[number])
            of_weights.insert(0, of_weight.to(dtype))
            of_biases.insert(0, of_bias.to(dtype))
            if number or ctx.needs_input_grad[0]:
                below = _input_gradient(below, weights[number], hidden[number])
                if number:
                    _masked(below, hidden[number], below)
            else:
                below = None
        return None if below is None else below.to(dtype), *of_weights, *of_biases


def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU of one linear map a network: [B, I] or [B, N, I] to [B, N, H]."""
    num, out_width, _ = weight.shape
    if x.dim() == 2:
        out = torch.addmm(bias.flatten(), x, weight.flatten(0, 1).t()).relu_()  # [B, N * H]
        return out.view(-1, num, out_width)
    out = torch.baddbmm(bias[:, None], x.transpose(0, 1), weight.transpose(1, 2))  # [N, B, H]
    return out.relu_().transpose(0, 1)


def _masked(gradient: Tensor, activated: Tensor, out: Tensor) -> Tensor:
    """Write ``gradient`` into ``out``, 0 where ``activated`` is; all [B, N, H]."""
    torch.ops.aten.threshold_backward.grad_input(gradient, activated, 0, grad_input=out)
    return out


def _weight_gradients(gradient: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of a layer with input ``x``, given the ``gradient`` [B, N, H] of its linear map."""
    num, out_width = gradient.shape[1:]
    if x.dim() == 2:
        flat = gradient.flatten(1)  # [B, N * H]
        return (flat.t() @ x).view(num, out_width, -1), flat.sum(dim=0).view(num, out_width)
    by_network = gradient.transpose(0, 1)  # [N, B, H]
    return torch.bmm(by_network.transpose(1, 2), x.transpose(0, 1)), by_network.sum(dim=1)


def _input_gradient(gradient: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """Of the input ``x``, in its own layout: what made it can then read it without a copy."""
    if x.dim() == 2:
        return gradient.flatten(1) @ weight.flatten(0, 1)
    out = torch.empty_like(x)  # [B, N, I]
    torch.bmm(gradient.transpose(0, 1), weight, out=out.transpose(0, 1))
    return out
