"""From encoded features to the model's input: lookups, pooled sequences, numbers side by side.

Shapes: ``B`` batch, ``L`` length of a sequence, ``W`` embedding width, ``D`` width of the input.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from ranker.models.embedding_table import EmbeddingTable
from ranker.models.input_layout import OUTCOME_DEPTHS, InputLayout
from ranker.models.layers import BatchNorm

InputNormalization = Literal["none", "batch"]
# An embedding column that hardly varied in training must not explode on the first row that differs
_NORMALIZATION_EPSILON = 1e-3
_ATTENTION_EPSILON = 1e-3
FEEDBACK = "history_feedback"
_PRIOR_RATE, _PRIOR_ITEMS = 0.25, 1.0
_PRIOR_LOGIT = math.log(_PRIOR_RATE / (1 - _PRIOR_RATE))


class Embedder(nn.Module):
    """Turn features into one vector a row.

    The history is pooled twice: by the mean of its watched items, and by target attention, weights
    that depend on the candidate (as in Zhou et al., KDD 2018, but a scaled dot product). Without
    candidate features only the mean is left. Indices are trusted here.

    Attributes:
        table: all embeddings; None where no feature has any.
        out_width: ``D``.
        numeric_width: how many of its last columns are numbers, not embeddings.
    """

    is_candidate: Tensor

    def __init__(
        self,
        *,
        inputs: InputLayout,
        table: EmbeddingTable | None,
        id_dropout: float = 0.0,
        normalization: InputNormalization = "none",
    ) -> None:
        """``table`` holds the vocabularies that ``inputs`` names, initialised.

        ``id_dropout`` is the probability, in training, that a categorical feature of a row becomes
        unknown: without it the unknown row would never learn. ``normalization`` is of the embedded
        columns alone; numbers come standardised.

        Raises:
            ValueError: a vocabulary without rows.
        """
        super().__init__()
        _check_vocabularies(inputs, table)
        self.inputs = inputs
        self.id_dropout = id_dropout
        self.table = table
        width = 0 if table is None else table.width
        if inputs.attends:
            self.attention = TargetAttention(width)
            is_candidate = [float(name in inputs.candidate) for name in inputs.categorical]
            # [C], 1 where a categorical feature belongs to the candidate
            self.register_buffer("is_candidate", torch.tensor(is_candidate), persistent=False)
        num_vectors = len(inputs.categorical) + len(inputs.sequences)
        num_vectors += bool(inputs.history) + inputs.attends
        self.normalize: nn.Module = nn.Identity()
        if normalization == "batch" and num_vectors:
            self.normalize = BatchNorm(num_vectors * width, eps=_NORMALIZATION_EPSILON)
        self.numeric_width = len(inputs.numeric) + 2 * len(inputs.nullable)
        self.numeric_width += inputs.num_outcomes * len(OUTCOME_DEPTHS)
        self.out_width = num_vectors * width + self.numeric_width

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map features ([B] or [B, L] each) to [B, D].

        The columns: categorical features, pooled sequences, the history's mean and attention,
        nullable numbers (null = 0), numbers, an indicator of null per nullable number, and how
        often each outcome occurred among the user's last 1, 5 and L watched items.
        """
        parts = []
        if self.table is not None:
            parts.append(self.normalize(self._embed(self.table, features)))
        names = (*self.inputs.nullable, *self.inputs.numeric)
        if names:
            numbers = torch.stack([features[name] for name in names], dim=1)
            null = numbers[:, : len(self.inputs.nullable)].isnan()
            # other numbers are null too where a user or item has no row in its table
            numbers = torch.where(numbers.isnan(), 0.0, numbers)
            parts += [numbers, null.to(numbers.dtype)]
        if self.inputs.num_outcomes:
            parts.append(_outcome_rates(features[FEEDBACK], self.inputs.num_outcomes))
        return torch.cat(parts, dim=1)  # [B, D]

    def observe(self, features: Mapping[str, Tensor]) -> None:
        """Note the ids of a training batch, for their admission."""
        if self.table is not None and self.table.admit_after and self.inputs.categorical:
            indices, offsets = self._categorical(self.table, features)
            self.table.count(indices, offsets)

    def restricted(self, names: Collection[str]) -> Embedder | None:
        """The columns of the features in ``names`` alone, not normalised, on the same table.

        For scoring, where a row's features needn't all be embedded at once; see
        `InputLayout.restricted` and `InputLayout.columns` for what the columns are.
        """
        inputs = self.inputs.restricted(names)
        if inputs is None:
            return None
        embeds = inputs.categorical or inputs.sequences or inputs.history
        return Embedder(inputs=inputs, table=self.table if embeds else None).eval()

    def history_tokens(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What a candidate attends to: watched items [B, L, W], and which slots hold one [B, L]."""
        assert self.table is not None
        vectors = {}
        for name, vocabulary in self.inputs.history.items():
            start = self.table.offsets[vocabulary]
            offsets = torch.full((features[name].shape[1],), start, device=features[name].device)
            vectors[name] = self.table(features[name], offsets)
        return self._tokens(features, vectors)

    def candidate_query(self, features: Mapping[str, Tensor]) -> Tensor:
        """What attends to the history: the sum of the candidate's embeddings, [B, W]."""
        assert self.table is not None
        names = self.inputs.candidate
        indices = torch.stack([features[name] for name in names], dim=1)
        starts = [self.table.offsets[self.inputs.categorical[name]] for name in names]
        found: Tensor = self.table(indices, torch.tensor(starts, device=indices.device))
        return found.sum(dim=1)

    def _categorical(
        self, table: EmbeddingTable, features: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The categorical features as indices [B, C], and where their vocabularies begin [C]."""
        vocabularies = self.inputs.categorical
        indices = torch.stack([features[name] for name in vocabularies], dim=1)
        offsets = [table.offsets[vocabulary] for vocabulary in vocabularies.values()]
        return indices, torch.tensor(offsets, device=indices.device)

    def _embed(self, table: EmbeddingTable, features: Mapping[str, Tensor]) -> Tensor:
        """All embedded columns, with one lookup."""
        indices, offsets, lengths = [], [], []
        if self.inputs.categorical:
            columns, starts = self._categorical(table, features)  # [B, C]
            if self.training and self.id_dropout > 0:
                dropped = torch.rand(columns.shape, device=columns.device) < self.id_dropout
                columns = columns.masked_fill(dropped, 0)
            indices.append(columns)
            offsets.append(starts)
            lengths.append(len(starts))
        sequences = {**self.inputs.sequences, **self.inputs.history}
        for name, vocabulary in sequences.items():
            sequence = features[name]
            indices.append(sequence)  # [B, L]
            length = sequence.shape[1]
            start = table.offsets[vocabulary]
            offsets.append(torch.full((length,), start, device=sequence.device))
            lengths.append(length)
        found = table(torch.cat(indices, dim=1), torch.cat(offsets))  # [B, C + sum of L, W]
        # a split, unlike slices, needs no full-sized zeros in the backward pass
        split = list(torch.split_with_sizes(found, lengths, dim=1))
        embedded = []
        single = None
        if self.inputs.categorical:
            single = split.pop(0)  # [B, C, W]
            embedded.append(single.flatten(1))
        vectors = dict(zip(sequences, split, strict=True))
        for name in self.inputs.sequences:
            weights = _mean_weights(features[name] != 0, found.dtype)  # [B, L]
            embedded.append(torch.bmm(weights[:, None], vectors[name]).squeeze(1))
        if self.inputs.history:
            embedded.append(self._pool_history(features, vectors, single))
        return torch.cat(embedded, dim=1)

    def _pool_history(
        self,
        features: Mapping[str, Tensor],
        vectors: Mapping[str, Tensor],
        single: Tensor | None,
    ) -> Tensor:
        """The history as [B, W] (mean) or [B, 2 W] (mean, then attention).

        ``vectors`` are the sequences' [B, L, W], ``single`` the categorical features' [B, C, W].
        """
        tokens, real = self._tokens(features, vectors)
        weights = _mean_weights(real, tokens.dtype)[:, None]  # [B, 1, L]
        if self.inputs.attends:
            assert single is not None
            query = (single * self.is_candidate[:, None]).sum(dim=1)  # [B, W]
            attended = self.attention(query, tokens, real)[:, None]
            weights = torch.cat([weights, attended], dim=1)  # [B, 2, L]
        return torch.bmm(weights, tokens).flatten(1)

    def _tokens(
        self, features: Mapping[str, Tensor], vectors: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The watched items [B, L, W] and which of the slots hold one [B, L]."""
        history = list(self.inputs.history)
        tokens = reduce(torch.add, [vectors[name] for name in history])
        # a watched item may be unknown in one vocabulary, but not in all
        real = reduce(torch.bitwise_or, [features[name] for name in history]) != 0
        return tokens, real


class TargetAttention(nn.Module):
    """How much each token of a user's history matters for a candidate.

    A dot product of two projections is a bilinear form, q' Wq' Wk t, and both square matrices are
    one matrix here. It starts at the identity: what resembles the candidate counts more from the
    first step on, while small random embeddings would long give uniform weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.project.weight)

    def forward(self, query: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Map query [B, W], tokens [B, L, W] and their mask [B, L] to weights [B, L].

        Weights sum to one over the real tokens and are 0 elsewhere, also where no token is real.
        Query and tokens count by direction: their length is normalised to sqrt(W).
        """
        query = query * _inverse_rms(query)[:, None]  # [B, W]
        scores = torch.bmm(tokens, self.project(query)[:, :, None]).squeeze(2)  # [B, L]
        scores = scores * _inverse_rms(tokens) / math.sqrt(query.shape[1])
        lowest = torch.finfo(scores.dtype).min  # not -inf: a row of it alone would give NaN
        return scores.masked_fill(~real, lowest).softmax(dim=1) * real


def _outcome_rates(codes: Tensor, num_outcomes: int) -> Tensor:
    """Log odds of each outcome among the last 1, 5 and L items: [B, L] -> [B, 3 T].

    Shares are smoothed, and 0 means no items.

    A user's last few outcomes say more of the moment than the counts over all time.
    """
    powers = 1 << torch.arange(num_outcomes, dtype=codes.dtype, device=codes.device)
    outcomes = (codes[:, :, None] - 1).clamp(min=0)
    happened = torch.div(outcomes, powers, rounding_mode="floor") % 2  # [B, L, T]
    real = (codes != 0).to(torch.get_default_dtype())  # [B, L]
    happened = happened.to(real.dtype)
    age = torch.arange(codes.shape[1], 0, -1, device=codes.device)  # [L], 1 = the newest
    rates = []
    for depth in OUTCOME_DEPTHS:
        # a mask, not a slice: exported models take histories of any length, also shorter ones
        recent = real if depth == 0 else real * (age <= depth)
        total = (happened * recent[:, :, None]).sum(dim=1)
        seen = recent.sum(dim=1, keepdim=True)
        share = (total + _PRIOR_RATE * _PRIOR_ITEMS) / (seen + _PRIOR_ITEMS)
        rates.append(share.logit() - _PRIOR_LOGIT)
    return torch.cat(rates, dim=1)


def _inverse_rms(x: Tensor) -> Tensor:
    """1 / root mean square over the last dimension, bounded for vectors near zero."""
    return torch.rsqrt(x.square().mean(dim=-1) + _ATTENTION_EPSILON)


def _mean_weights(real: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [B, L] that average the real elements; all 0 where there is none."""
    mask = real.to(dtype)
    return mask / mask.sum(dim=1, keepdim=True).clamp(min=1)


def _check_vocabularies(inputs: InputLayout, table: EmbeddingTable | None) -> None:
    used = {*inputs.categorical.values(), *inputs.sequences.values(), *inputs.history.values()}
    known = set() if table is None else set(table.sizes)
    if used - known:
        raise ValueError(
            f"embedder: no rows for vocabularies {sorted(used - known)}; got {sorted(known)}"
        )
