"""Layers that hold the weights of S models, for rows that take turns: row b · S + s is model s's.

Only layers with weights or batch statistics have to know whose row it is. All else in a model
(softmax, mixtures, pooling, dropout) works row by row and needs no stacked form.

Every parameter and buffer has the name it has in one model, and S in front of its shape.

Shapes: ``S`` models, ``B`` rows of each, ``N`` parallel networks, ``I`` inputs, ``H`` outputs,
``K`` tasks, ``R`` rows of one model's table, ``W`` its width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.models.embedding_table import EmbeddingTable
from ranker.models.layers import BatchedLinear, BatchNorm, Norm
from ranker.models.position import PositionTower


def stacked_layer(layers: Sequence[nn.Module]) -> nn.Module | None:
    """One layer that does the work of S layers of one kind and shape; None if they hold nothing.

    Raises:
        TypeError: they hold weights, and their kind has no stacked form.
    """
    first = layers[0]
    match first:
        case nn.Linear():
            return StackedLinear(layers, in_width=first.in_features)
        case BatchedLinear():
            return StackedBatchedLinear(layers)
        case BatchNorm():
            return StackedBatchNorm(layers, eps=first.eps, momentum=first.momentum)
        case EmbeddingTable():
            return StackedTable(layers, first)
        case PositionTower():
            return StackedPositionTower(layers, first)
        case Norm(kind="layer"):
            return StackedLayerNorm(layers, width=first.width)
        case _ if next(first.parameters(recurse=False), None) is None:
            return None
        case _:
            raise TypeError(
                f"{type(first).__name__} has weights of its own and no stacked form; add one to "
                "ranker.models.stacked_layers"
            )


class _Stacked(nn.Module):
    """Takes over the parameters and buffers of S layers, stacked."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.num_models = len(layers)
        for name, _ in layers[0].named_parameters(recurse=False):
            values = torch.stack([layer.get_parameter(name).detach() for layer in layers])
            self.register_parameter(name, nn.Parameter(values))
        for name, _ in layers[0].named_buffers(recurse=False):
            values = torch.stack([layer.get_buffer(name) for layer in layers])
            self.register_buffer(name, values)

    def _by_model(self, x: Tensor) -> Tensor:
        """[B * S, ...] -> [B, S, ...]."""
        return x.view(-1, self.num_models, *x.shape[1:])


class StackedLinear(_Stacked):
    """`torch.nn.Linear` of S models."""

    weight: Tensor  # [S, H, I]
    bias: Tensor | None  # [S, H]

    def __init__(self, layers: Sequence[nn.Module], *, in_width: int) -> None:
        super().__init__(layers)
        self.in_features = in_width
        if "bias" not in dict(self.named_parameters()):
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B * S, I] to [B * S, H]."""
        out = products(self._by_model(x), self.weight)  # [B, S, H]
        return (out if self.bias is None else out + self.bias).flatten(0, 1)


class StackedBatchedLinear(_Stacked):
    """`ranker.models.layers.BatchedLinear` of S models."""

    weight: Tensor  # [S, N, H, I]
    bias: Tensor | None  # [S, N, H]

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        if "bias" not in dict(self.named_parameters()):
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B * S, I] (one input for all networks) or [B * S, N, I] to [B * S, N, H]."""
        if x.dim() == 2:
            out = products(self._by_model(x), self.weight.flatten(1, 2))  # [B, S, N * H]
        else:
            each = self._by_model(x).flatten(1, 2)  # [B, S * N, I]
            out = products(each, self.weight.flatten(0, 1))  # [B, S * N, H]
        out = out.reshape(-1, *self.weight.shape[:3])  # [B, S, N, H]
        return (out if self.bias is None else out + self.bias).flatten(0, 1)


class StackedBatchNorm(_Stacked):
    """`ranker.models.layers.BatchNorm` of S models: each one's rows have their own statistics."""

    weight: Tensor  # [S, H], as are all but the last
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor  # [S]

    def __init__(self, layers: Sequence[nn.Module], *, eps: float, momentum: float | None) -> None:
        super().__init__(layers)
        assert momentum is not None
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B * S, H]; one row a model is normalised by the running statistics."""
        columns = self._by_model(x).flatten(1)  # [B, S * H]
        learns = self.training and len(columns) > 1
        if learns:
            self.num_batches_tracked.add_(1)
        normalised = functional.batch_norm(
            columns,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.flatten(),
            self.bias.flatten(),
            training=learns,
            momentum=self.momentum,
            eps=self.eps,
        )
        return normalised.view(x.shape)


class StackedLayerNorm(_Stacked):
    """Layer normalisation of S models, as in the hidden layers of `ranker.models.layers`."""

    weight: Tensor  # [S, H] or [S, N, H]
    bias: Tensor

    def __init__(self, layers: Sequence[nn.Module], *, width: int) -> None:
        super().__init__(layers)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B * S, H] or [B * S, N, H]."""
        centred = functional.layer_norm(self._by_model(x), (self.width,))
        return torch.addcmul(self.bias, centred, self.weight).flatten(0, 1)


class StackedTable(_Stacked):
    """`ranker.models.embedding_table.EmbeddingTable` of S models, one table after the other."""

    weight: nn.Parameter  # [S * R, W]
    occurrences: Tensor | None  # [S * R]

    def __init__(self, layers: Sequence[nn.Module], first: EmbeddingTable) -> None:
        super().__init__(layers)
        self.weight = nn.Parameter(self.weight.detach().flatten(0, 1))
        counts = self.occurrences if first.admit_after else None
        self.register_buffer("occurrences", None if counts is None else counts.flatten())
        self.num_rows = first.weight.shape[0]
        self.offsets, self.admit_after = first.offsets, first.admit_after

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Look up ``indices`` [B * S, n] within the vocabularies that begin at ``offsets`` [n]."""
        unknown = self._first_rows(indices) + offsets  # [B * S, n]
        rows = indices + unknown
        if self.occurrences is not None:
            rows = torch.where(self.occurrences[rows] >= self.admit_after, rows, unknown)
        return functional.embedding(rows, self.weight, sparse=True)  # [B * S, n, W]

    @torch.no_grad()
    def count(self, indices: Tensor, offsets: Tensor) -> None:
        """Note that the ids ``indices`` [B * S, n] have occurred."""
        if self.occurrences is not None:
            rows = (self._first_rows(indices) + offsets + indices).flatten()
            ones = torch.ones_like(rows, dtype=self.occurrences.dtype)
            self.occurrences.index_add_(0, rows, ones)

    def _first_rows(self, indices: Tensor) -> Tensor:
        """Where the table of each row's model begins, [B * S, 1]."""
        first = torch.arange(self.num_models, device=indices.device) * self.num_rows
        return first.repeat(len(indices) // self.num_models)[:, None]


class StackedPositionTower(_Stacked):
    """`ranker.models.position.PositionTower` of S models."""

    positions: Tensor  # [S, P + 1, K]
    devices: Tensor  # [S, V + 1, K]
    pairs: Tensor  # [S, V + 1, P + 1, K]

    def __init__(self, layers: Sequence[nn.Module], first: PositionTower) -> None:
        super().__init__(layers)
        self.num_positions, self.dropout = first.num_positions, first.dropout

    def forward(self, position: Tensor, device: Tensor) -> Tensor:
        """Logits [B * S, K] to train with, from indices [B * S] each."""
        position = position.clamp(max=self.num_positions)
        if self.training and self.dropout > 0:
            dropped = torch.rand(position.shape, device=position.device) < self.dropout
            position = position.masked_fill(dropped, 0)
        return self._logits(position, device)

    def missing(self, device: Tensor) -> Tensor:
        """Logits [B * S, K] to score with."""
        return self._logits(torch.zeros_like(device), device)

    def _logits(self, position: Tensor, device: Tensor) -> Tensor:
        model = torch.arange(self.num_models, device=device.device)
        model = model.repeat(len(device) // self.num_models)  # [B * S]
        logits = self.positions[model, position] + self.devices[model, device]
        return logits + self.pairs[model, device, position]


def products(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x [B, G, I] by weight [G, H, I], each of the G by its own: [B, G, H]."""
    return torch.bmm(x.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)
