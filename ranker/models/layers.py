"""Dense building blocks: an MLP, several MLPs as one batched product, a forgiving batch norm.

Shapes: ``B`` batch, ``N`` parallel networks (experts or tasks), ``I`` inputs, ``H`` outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, assert_never, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.models.relu_layers import relu_layers

Activation = Literal["relu", "silu"]
Normalization = Literal["none", "batch", "layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStyle:
    """What follows each linear map of a hidden layer: normalisation, activation, dropout."""

    activation: Activation = "relu"
    normalization: Normalization = "none"
    dropout: float = 0.0


def module_key(name: str) -> str:
    """A name for a submodule of feature, vocabulary or task ``name``, distinct for each name.

    `torch.nn.ModuleDict` refuses dots and its own attributes' names (``type``, ``keys``, ...).
    """
    return "_" + name.replace("%", "%25").replace(".", "%2E")


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B, H] that also trains on a batch of one row.

    One row has no variance: it is normalised by the running statistics and leaves them alone. The
    last batch of a window may be that small, and no row may be lost.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, H]."""
        if self.training and x.shape[0] > 1:
            return super().forward(x)
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class BatchedLinear(nn.Module):
    """``num`` linear maps with weights of their own, computed as one product.

    Each map starts as an `nn.Linear` would.
    """

    def __init__(self, num: int, in_width: int, out_width: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_width)
        # [N, H, I]: a shared input then needs one plain product, without any copy of the weights
        self.weight = nn.Parameter(torch.empty(num, out_width, in_width).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(num, out_width).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I] (the same input for all) or [B, N, I] (one each) to [B, N, H]."""
        num, out_width, _ = self.weight.shape
        if x.dim() == 2:
            bias = None if self.bias is None else self.bias.flatten()
            out = functional.linear(x, self.weight.flatten(0, 1), bias)  # [B, N * H]
            return out.view(-1, num, out_width)
        x = x.transpose(0, 1)  # [N, B, I]
        weight = self.weight.transpose(1, 2)  # [N, I, H]
        if self.bias is None:
            return torch.bmm(x, weight).transpose(0, 1)  # [B, N, H]
        return torch.baddbmm(self.bias[:, None], x, weight).transpose(0, 1)  # [B, N, H]


class MLP(nn.Module):
    """Hidden layers of ``widths``: linear, normalisation, activation, dropout; none = identity."""

    def __init__(self, in_width: int, widths: Sequence[int], *, style: LayerStyle) -> None:
        super().__init__()
        self.out_width = widths[-1] if widths else in_width
        # a bias before batch normalisation would be subtracted again
        bias = style.normalization != "batch"
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Linear(inputs, outputs, bias=bias),
                    Norm(1, outputs, normalization=style.normalization),
                    _activation(style.activation),
                    nn.Dropout(style.dropout),
                )
                for inputs, outputs in pairwise([in_width, *widths])
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I] to [B, H]."""
        out: Tensor = self.layers(x)
        return out


class BatchedMLP(nn.Module):
    """``num`` MLPs of the same shape with weights of their own, each layer one product."""

    def __init__(
        self, num: int, in_width: int, widths: Sequence[int], *, style: LayerStyle
    ) -> None:
        super().__init__()
        self.out_width = widths[-1] if widths else in_width
        bias = style.normalization != "batch"
        self._only_relu = bool(widths) and style == LayerStyle()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    BatchedLinear(num, inputs, outputs, bias=bias),
                    Norm(num, outputs, normalization=style.normalization),
                    _activation(style.activation),
                    nn.Dropout(style.dropout),
                )
                for inputs, outputs in pairwise([in_width, *widths])
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I] or [B, N, I] to [B, N, H]; without layers x comes back as it is."""
        if self._only_relu and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            maps = [cast(nn.Sequential, layer)[0] for layer in self.layers]
            known = [one for one in maps if isinstance(one, BatchedLinear) and one.bias is not None]
            if len(known) == len(maps):  # not so in stacked models, whose maps are others
                biases = [cast(Tensor, one.bias) for one in known]
                return relu_layers(x, [one.weight for one in known], biases)
        out: Tensor = self.layers(x)
        return out


class Norm(nn.Module):
    """Normalise [B, H] or [B, N, H], each of the ``num`` networks by itself."""

    def __init__(self, num: int, width: int, *, normalization: Normalization) -> None:
        super().__init__()
        self.width = width
        self.kind: Normalization = normalization
        match normalization:
            case "none":
                pass
            case "batch":
                self.batch_norm = BatchNorm(num * width)
            case "layer":
                shape = (width,) if num == 1 else (num, width)
                self.weight = nn.Parameter(torch.ones(shape))
                self.bias = nn.Parameter(torch.zeros(shape))
            case _:
                assert_never(normalization)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of [..., H]."""
        match self.kind:
            case "none":
                return x
            case "batch":
                normalised: Tensor = self.batch_norm(x.flatten(1))  # [B, N * H]
                return normalised.view(x.shape)
            case "layer":
                centred = functional.layer_norm(x, (self.width,))
                return torch.addcmul(self.bias, centred, self.weight)
            case _:
                assert_never(self.kind)


def _activation(activation: Activation) -> nn.Module:
    match activation:
        case "relu":
            return nn.ReLU()
        case "silu":
            return nn.SiLU()
        case _:
            assert_never(activation)
