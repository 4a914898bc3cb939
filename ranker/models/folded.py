"""A model in evaluation mode as plain products: the same function, ready to be taken apart.

Batch normalisation is an affine map once its statistics stand still, so it is folded into the
linear map before it. What is left of the model is one affine map of the whole input, the first
layer, and what follows it. The first layer's columns can then be added up piece by piece.

Shapes: ``B`` batch, ``D`` inputs, ``N`` parallel networks (experts or tasks), ``I`` inputs and
``H`` outputs of a layer, ``E`` experts, ``K`` tasks, ``F`` outputs of the first hidden layer, ``G``
gate logits that are computed from the input (0 or K * E).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.models.layers import MLP, Activation, BatchedLinear, BatchedMLP, BatchNorm, Norm
from ranker.models.mmoe import MMoE
from ranker.models.ranking_model import RankingModel
from ranker.models.shared_bottom import SharedBottom


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedLayer:
    """``N`` layers side by side: product, what could not be folded of the norm, activation.

    Attributes:
        weight: [N, I, H].
        flat_weight: [I, N * H], the same numbers: one product where all N read one input.
        bias: [N, 1, H].
        layer_norm: weight and bias [N, 1, H] of a layer normalisation, or None.
    """

    weight: Tensor
    flat_weight: Tensor
    bias: Tensor
    layer_norm: tuple[Tensor, Tensor] | None
    activation: Activation | None

    def __call__(self, x: Tensor) -> Tensor:
        """Map [N, B, I], or [1, B, I] read by all N, to [N, B, H]."""
        if x.shape[0] == self.weight.shape[0]:
            # baddbmm would first write the bias to memory, row by row: adding it costs less
            return self.finish(torch.bmm(x, self.weight).add_(self.bias))
        num, _, outputs = self.weight.shape
        product = torch.addmm(self.bias.flatten(), x[0], self.flat_weight)  # [B, N * H]
        return self.finish(product.view(-1, num, outputs).transpose(0, 1))

    def finish(self, x: Tensor) -> Tensor:
        """Normalise and activate the product [N, B, H], in place where that is possible."""
        if self.layer_norm is not None:
            weight, bias = self.layer_norm
            x = torch.addcmul(bias, functional.layer_norm(x, x.shape[2:]), weight)
        match self.activation:
            case "relu":
                return x.relu_()
            case "silu":
                return functional.silu(x, inplace=True)
            case None:
                return x
            case _:
                assert_never(self.activation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstLayer:
    """All that the model does with its input [B, D]: one affine map, x A + b.

    Its outputs are, side by side: ``F`` of the first hidden layer, before norm and activation; the
    ``G`` logits of gates that read the input; the linear part's K logits (0 without such a part).

    Attributes:
        weight: A, [D, F + G + K].
        bias: b, [F + G + K].
    """

    weight: Tensor
    bias: Tensor
    num_hidden: int
    num_gates: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """Experts and gates above the layers that they share.

    ``gates`` are weight [S, K * E] and bias of gates that read the shared layers, or None where
    the first layer has computed their logits.
    """

    shared: tuple[FoldedLayer, ...]
    experts: tuple[FoldedLayer, ...]
    gates: tuple[Tensor, Tensor] | None
    num_tasks: int

    def __call__(self, hidden: Tensor, gate_logits: Tensor) -> Tensor:
        """Map the finished first layer [N, B, .] and gate logits [B, G] to [K, B, H]."""
        for layer in self.shared:
            hidden = layer(hidden)
        if self.gates is not None:
            weight, bias = self.gates
            gate_logits = torch.addmm(bias, hidden[0], weight)  # [B, K * E]
        # a softmax over a few neighbours in memory is slow: it is taken across the batch's columns
        by_task = gate_logits.t().contiguous().view(self.num_tasks, -1, len(gate_logits))
        weights = by_task.softmax(dim=1).permute(2, 0, 1).contiguous()  # [B, K, E]
        for layer in self.experts:
            hidden = layer(hidden)  # [E, B, H]
        return torch.bmm(weights, hidden.transpose(0, 1)).transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedModel:
    """A ranking model without its embedder, position tower and heads.

    Attributes:
        first: the map of the input.
        opening: finishes the first hidden layer; its own product is part of ``first``.
        mixture: what follows in a bottom with experts, else None.
        layers: the further layers of a bottom without.
        towers: the tasks' layers, down to the logit.
    """

    first: FirstLayer
    opening: FoldedLayer
    mixture: Mixture | None
    layers: tuple[FoldedLayer, ...]
    towers: tuple[FoldedLayer, ...]

    def after_first(self, outputs: Tensor) -> Tensor:
        """Logits [B, K] from the first layer's outputs [B, F + G + K], which are overwritten."""
        gates_from = self.first.num_hidden
        direct_from = gates_from + self.first.num_gates
        hidden, direct = outputs[:, :gates_from], outputs[:, direct_from:]
        num = self.opening.weight.shape[0]
        x = self.opening.finish(hidden.view(len(hidden), num, -1).transpose(0, 1))  # [N, B, .]
        if self.mixture is not None:
            x = self.mixture(x, outputs[:, gates_from:direct_from])
        for layer in (*self.layers, *self.towers):
            x = layer(x)
        return x.squeeze(2).t() + direct


@torch.no_grad()
def fold_model(model: RankingModel) -> FoldedModel:
    """Fold a model that is in evaluation mode; later training does not change the result.

    Raises:
        ValueError: the model is in training mode.
        TypeError: a bottom that is not known here.
    """
    if model.training:
        raise ValueError("fold: the model is in training mode; call eval() first")
    bottom = cast(nn.Module, model.bottom)
    gates, mixture = None, None
    match bottom:
        case MMoE():
            opening, mixture = _fold_mmoe(bottom)
            gates = bottom.gates if mixture.gates is None else None
            layers: tuple[FoldedLayer, ...] = ()
        case SharedBottom():
            opening, *further = fold_layers(bottom.mlp)
            layers = tuple(further)
        case _:
            raise TypeError(f"fold: {type(bottom).__name__} has no case here; add one")
    towers = fold_layers(model.towers.hidden)
    towers.append(_fold(model.towers.final, None, None))
    return FoldedModel(
        first=_first_layer(model, opening, gates),
        opening=opening,
        mixture=mixture,
        layers=layers,
        towers=tuple(towers),
    )


def fold_layers(mlp: MLP | BatchedMLP) -> list[FoldedLayer]:
    """Each hidden layer, its batch normalisation folded into its product."""
    folded = []
    for layer in mlp.layers:
        linear, norm, activation, _ = cast(nn.Sequential, layer)
        assert isinstance(linear, nn.Linear | BatchedLinear) and isinstance(norm, Norm)
        folded.append(_fold(linear, norm, activation))
    return folded


def _fold_mmoe(bottom: MMoE) -> tuple[FoldedLayer, Mixture]:
    """The layer that reads the input, and all above it."""
    shared, experts = fold_layers(bottom.shared), fold_layers(bottom.experts)
    opening = (shared or experts).pop(0)
    on_input = bottom.gate_input == "input" or not bottom.shared.layers
    gates = None
    if not on_input:
        gates = (bottom.gates.weight.t().contiguous(), bottom.gates.bias.clone())
    mixture = Mixture(
        shared=tuple(shared), experts=tuple(experts), gates=gates, num_tasks=len(bottom.tasks)
    )
    return opening, mixture


def _fold(
    linear: nn.Linear | BatchedLinear, norm: Norm | None, activation: nn.Module | None
) -> FoldedLayer:
    weight = linear.weight if linear.weight.dim() == 3 else linear.weight[None]  # [N, H, I]
    num, outputs, inputs = weight.shape
    weight = weight.transpose(1, 2).double()  # [N, I, H]
    bias = torch.zeros(num, 1, outputs, dtype=torch.float64)
    if linear.bias is not None:
        bias = linear.bias.double().view(num, 1, outputs)
    layer_norm = None
    if norm is not None and norm.kind == "batch":
        scale, shift = _affine(norm.batch_norm)
        scale, shift = scale.view(num, 1, outputs), shift.view(num, 1, outputs)
        weight, bias = weight * scale, bias * scale + shift
    elif norm is not None and norm.kind == "layer":
        shape = (num, 1, outputs)
        layer_norm = (norm.weight.detach().view(shape), norm.bias.detach().view(shape))
    kind: Activation | None = None
    if activation is not None:
        kind = "relu" if isinstance(activation, nn.ReLU) else "silu"
    return FoldedLayer(
        weight=weight.float().contiguous(),
        flat_weight=weight.transpose(0, 1).reshape(inputs, num * outputs).float(),
        bias=bias.float(),
        layer_norm=layer_norm,
        activation=kind,
    )


def _affine(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Batch normalisation by the running statistics as x * scale + shift, each [H], float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _first_layer(model: RankingModel, opening: FoldedLayer, gates: nn.Linear | None) -> FirstLayer:
    """The input's normalisation, first product, gates and linear part as one affine map."""
    num, inputs, outputs = opening.weight.shape
    num_tasks = len(model.tasks)
    weights = [opening.weight.double().transpose(0, 1).reshape(inputs, num * outputs)]
    biases = [opening.bias.double().flatten()]
    if gates is not None:
        weights.append(gates.weight.double().t())
        biases.append(gates.bias.double())
    direct = torch.zeros(inputs, num_tasks, dtype=torch.float64)
    if model.linear is not None:
        direct[inputs - model.linear.in_features :] = model.linear.weight.double().t()
    weight = torch.cat([*weights, direct], dim=1)  # [D, F + G + K]
    bias = torch.cat([*biases, torch.zeros(num_tasks, dtype=torch.float64)])
    normalize = model.embedder.normalize
    if isinstance(normalize, BatchNorm):
        scale, shift = _affine(normalize)
        embedded = weight[: len(scale)].clone()
        bias = bias + shift @ embedded
        weight[: len(scale)] = embedded * scale[:, None]
    return FirstLayer(
        weight=weight.float(),
        bias=bias.float(),
        num_hidden=num * outputs,
        num_gates=0 if gates is None else gates.out_features,
    )
