"""The model's first layer, taken apart by whose property its inputs are.

The first layer is affine, x A + b, and every column of x belongs to the request, to the item, or to
the pair. So it is a sum of three terms, A's rows being sorted by owner:

    x A + b = (x_request A_request + b) + x_item A_item + x_pair A_pair

Target attention, a function of request and item, is the fourth.

Shapes: ``B`` rows, ``L`` slots of a history, ``W`` embedding width, ``O`` = F + G + K
outputs of the first layer (`ranker.models.folded.FirstLayer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ranker.data.feature_side import SIDES, Side
from ranker.models.embedder import Embedder, TargetAttention
from ranker.models.folded import FirstLayer
from ranker.models.input_layout import InputColumn
from ranker.schema import FeatureSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """One side's share of the first layer: columns of the input, and the rows of A they meet.

    Attributes:
        embedder: gives the columns [B, d]; None where the side has none, and d = 0.
        weight: [d, O].
    """

    embedder: Embedder | None
    weight: Tensor

    def columns(self, features: Mapping[str, Tensor]) -> Tensor | None:
        """The side's columns [B, d]; None where it has none."""
        if self.embedder is None:
            return None
        columns: Tensor = self.embedder(features)
        return columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionTerm:
    """Target attention's share: weights over the request's tokens that depend on the item.

    ``by_pair`` where what attends is not a property of the item alone.
    """

    embedder: Embedder
    attention: TargetAttention
    by_pair: bool
    weight: Tensor  # [W, O]

    def columns(self, query: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Attended history [B, W] for queries [B, W], tokens [B, L, W] and their mask [B, L]."""
        weights: Tensor = self.attention(query, tokens, real)  # [B, L]
        return torch.bmm(weights[:, None], tokens).squeeze(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputSplit:
    """The terms, and b [O]; it is added to the request's term."""

    terms: Mapping[Side, Term]
    attention: AttentionTerm | None
    bias: Tensor


def split_input(
    embedder: Embedder, first: FirstLayer, features: Mapping[Side, Sequence[FeatureSpec]]
) -> InputSplit:
    """Sort the rows of the first layer's A by side."""
    width = 0 if embedder.table is None else embedder.table.width
    place = {column: row for row, column in enumerate(embedder.inputs.columns(width))}
    assert len(place) == len(first.weight), "every column of the input has a name of its own"

    def weight(columns: list[InputColumn]) -> Tensor:
        return first.weight[[place.pop(column) for column in columns]]

    terms: dict[Side, Term] = {}
    for side in SIDES:
        part = embedder.restricted([feature.name for feature in features[side]])
        columns = [] if part is None else part.inputs.columns(width)
        terms[side] = Term(embedder=part, weight=weight(columns))
    attention = None
    if embedder.inputs.attends:
        items = {feature.name for feature in features["item"]}
        attention = AttentionTerm(
            embedder=embedder,
            attention=embedder.attention,
            by_pair=not items.issuperset(embedder.inputs.candidate),
            weight=weight([("attention", "", j) for j in range(width)]),
        )
    assert not place, "every column of the input belongs to one term"
    return InputSplit(terms=terms, attention=attention, bias=first.bias)
