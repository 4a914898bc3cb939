"""From encoded features to the model's input: lookups, pooled sequences, numbers side by side.

Shapes: ``B`` batch, ``L`` length of a sequence, ``W`` embedding width, ``D`` width of the input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from ranker.models.layers import BatchNorm, module_key

InputNormalization = Literal["none", "batch"]
# An embedding column that hardly varied in training must not explode on the first row that differs
_NORMALIZATION_EPSILON = 1e-3
_ATTENTION_EPSILON = 1e-3
FEEDBACK = "history_feedback"
_OUTCOME_DEPTHS = (1, 5, 0)  # 0: the whole sequence
_PRIOR_RATE, _PRIOR_ITEMS = 0.25, 1.0
_PRIOR_LOGIT = math.log(_PRIOR_RATE / (1 - _PRIOR_RATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLayout:
    """Which features the model reads, and how; the order of the names is the order of the input.

    Attributes:
        categorical: feature -> vocabulary.
        sequences: feature -> vocabulary; pooled by the mean of their elements.
        history: aligned sequences (slot by slot one watched item) -> vocabulary.
        candidate: categorical features of the candidate that correspond to ``history``.
        numeric: features that are never null.
        nullable: numeric features whose null is a value of its own.
        num_outcomes: binary outcomes encoded in each code of ``history_feedback`` (code - 1 holds
            a bit for each); 0 without that sequence.
    """

    categorical: Mapping[str, str]
    sequences: Mapping[str, str]
    history: Mapping[str, str]
    candidate: tuple[str, ...]
    numeric: tuple[str, ...]
    nullable: tuple[str, ...]
    num_outcomes: int = 0

    def __post_init__(self) -> None:
        """Check that there is something to read and that ``candidate`` is part of it."""
        if not (
            self.categorical or self.sequences or self.history or self.numeric or self.nullable
        ):
            raise ValueError("model: no features are left to read; exclude fewer of them")
        unknown = set(self.candidate) - set(self.categorical)
        if unknown:
            raise ValueError(f"model: candidate features {sorted(unknown)} are not categorical")


class Embedder(nn.Module):
    """Turn features into one vector a row.

    The history is pooled twice: by the mean of its watched items, and by target attention, weights
    that depend on the candidate (as in Zhou et al., KDD 2018, but a scaled dot product). Without
    candidate features only the mean is left. Indices are trusted here.

    Attributes:
        tables: the embeddings; row 0 is the unknown id and "no element".
        out_width: ``D``.
        numeric_width: how many of its last columns are numbers, not embeddings.
    """

    def __init__(
        self,
        *,
        inputs: InputLayout,
        tables: Mapping[str, Tensor],
        id_dropout: float = 0.0,
        normalization: InputNormalization = "none",
    ) -> None:
        """Start from ``tables``: vocabulary -> [rows, W], unknown row included.

        ``id_dropout`` is the probability, in training, that a categorical feature of a row becomes
        unknown: without it the unknown row would never learn. ``normalization`` is of the embedded
        columns alone; numbers come standardised.

        Raises:
            ValueError: tables of several widths, or a vocabulary without a table.
        """
        super().__init__()
        used = {**inputs.categorical, **inputs.sequences, **inputs.history}
        vocabularies = tuple(dict.fromkeys(used.values()))
        width = _check_tables(tables, vocabularies)
        self.inputs = inputs
        self.id_dropout = id_dropout
        self.tables = nn.ModuleDict({module_key(v): _table(tables[v]) for v in vocabularies})
        self._features_by_vocabulary = {
            vocabulary: tuple(name for name, used_v in used.items() if used_v == vocabulary)
            for vocabulary in vocabularies
        }
        self._attends = bool(inputs.history and inputs.candidate)
        if self._attends:
            self.attention = TargetAttention(width)
        num_vectors = len(inputs.categorical) + len(inputs.sequences)
        num_vectors += bool(inputs.history) + self._attends
        self.normalize: nn.Module = nn.Identity()
        if normalization == "batch" and num_vectors:
            self.normalize = BatchNorm(num_vectors * width, eps=_NORMALIZATION_EPSILON)
        self.numeric_width = len(inputs.numeric) + 2 * len(inputs.nullable)
        self.numeric_width += inputs.num_outcomes * len(_OUTCOME_DEPTHS)
        self.out_width = num_vectors * width + self.numeric_width

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map features ([B] or [B, L] each) to [B, D].

        The columns: categorical features, pooled sequences, the history's mean and attention,
        nullable numbers (null = 0), numbers, an indicator of null per nullable number, and how
        often each outcome occurred among the user's last 1, 5 and L watched items.
        """
        parts = []
        if self._features_by_vocabulary:
            vectors = self._look_up(features)
            embedded = [vectors[name].squeeze(1) for name in self.inputs.categorical]  # [B, W]
            for name in self.inputs.sequences:
                weights = _mean_weights(features[name] != 0, vectors[name].dtype)  # [B, L]
                embedded.append(torch.bmm(weights[:, None], vectors[name]).squeeze(1))
            if self.inputs.history:
                embedded.append(self._pool_history(features, vectors))
            parts.append(self.normalize(torch.cat(embedded, dim=1)))
        names = (*self.inputs.nullable, *self.inputs.numeric)
        if names:
            numbers = torch.stack([features[name] for name in names], dim=1)
            null = numbers[:, : len(self.inputs.nullable)].isnan()
            parts += [torch.where(numbers.isnan(), 0.0, numbers), null.to(numbers.dtype)]
        if self.inputs.num_outcomes:
            parts.append(_outcome_rates(features[FEEDBACK], self.inputs.num_outcomes))
        return torch.cat(parts, dim=1)  # [B, D]

    def table(self, vocabulary: str) -> nn.Embedding:
        """The embedding table of ``vocabulary``.

        Raises:
            ValueError: no feature of the model uses that vocabulary.
        """
        if vocabulary not in self._features_by_vocabulary:
            known = sorted(self._features_by_vocabulary)
            raise ValueError(f"embedder: no vocabulary {vocabulary!r}; there are {known}")
        table = self.tables[module_key(vocabulary)]
        assert isinstance(table, nn.Embedding)
        return table

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Rows of each table, the unknown row included."""
        return {v: self.table(v).num_embeddings for v in self._features_by_vocabulary}

    def grow(self, vocabulary: str, new_rows: Tensor) -> None:
        """Append ``new_rows`` [N, W] for ids seen since; the old rows keep their bits.

        The table's parameter is a new object afterwards: optimizers have to be told.
        """
        old = self.table(vocabulary)
        if new_rows.dim() != 2 or new_rows.shape[1] != old.embedding_dim:
            raise ValueError(
                f"embedder: new rows of {vocabulary!r} must be [N, {old.embedding_dim}], got "
                f"{list(new_rows.shape)}"
            )
        self.tables[module_key(vocabulary)] = _table(
            torch.cat([old.weight.detach(), new_rows.to(old.weight)])
        )

    def _look_up(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Feature -> [B, L, W] (L = 1 for categorical), with one lookup a vocabulary.

        One lookup means one sparse gradient a table, and a split, unlike slices, needs no
        full-sized zeros in the backward pass.
        """
        indices = {name: features[name][:, None] for name in self.inputs.categorical}
        if self.training and self.id_dropout > 0 and indices:
            names = list(indices)
            columns = torch.cat([indices[name] for name in names], dim=1)  # [B, categorical]
            dropped = torch.rand(columns.shape, device=columns.device) < self.id_dropout
            columns = columns.masked_fill(dropped, 0)
            single = torch.split_with_sizes(columns, [1] * len(names), dim=1)  # [B, 1] each
            indices = dict(zip(names, single, strict=True))
        for name in (*self.inputs.sequences, *self.inputs.history):
            indices[name] = features[name]
        vectors: dict[str, Tensor] = {}
        for vocabulary, names_of in self._features_by_vocabulary.items():
            parts = [indices[name] for name in names_of]
            found = self.table(vocabulary)(torch.cat(parts, dim=1))  # [B, sum of L, W]
            lengths = [part.shape[1] for part in parts]
            split = torch.split_with_sizes(found, lengths, dim=1)
            vectors.update(zip(names_of, split, strict=True))
        return vectors

    def _pool_history(
        self, features: Mapping[str, Tensor], vectors: Mapping[str, Tensor]
    ) -> Tensor:
        """The history as [B, W] (mean) or [B, 2 W] (mean, then attention)."""
        history = list(self.inputs.history)
        tokens = reduce(torch.add, [vectors[name] for name in history])  # [B, L, W]
        # a watched item may be unknown in one vocabulary, but not in all
        real = reduce(torch.bitwise_or, [features[name] for name in history]) != 0  # [B, L]
        weights = _mean_weights(real, tokens.dtype)[:, None]  # [B, 1, L]
        if self._attends:
            query = reduce(torch.add, [vectors[n].squeeze(1) for n in self.inputs.candidate])
            attended = self.attention(query, tokens, real)[:, None]
            weights = torch.cat([weights, attended], dim=1)  # [B, 2, L]
        return torch.bmm(weights, tokens).flatten(1)


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
    bits = torch.arange(num_outcomes, device=codes.device)
    happened = ((codes[:, :, None] - 1).clamp(min=0) >> bits) & 1  # [B, L, T]
    real = (codes != 0).to(torch.get_default_dtype())  # [B, L]
    happened = happened.to(real.dtype)
    rates = []
    for depth in _OUTCOME_DEPTHS:
        first = max(0, codes.shape[1] - depth) if depth else 0
        seen = real[:, first:].sum(dim=1, keepdim=True)
        total = happened[:, first:].sum(dim=1)
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


def _table(rows: Tensor) -> nn.Embedding:
    num_rows, width = rows.shape
    return nn.Embedding(num_rows, width, sparse=True, _weight=rows.clone())


def _check_tables(tables: Mapping[str, Tensor], vocabularies: tuple[str, ...]) -> int:
    missing = [vocabulary for vocabulary in vocabularies if vocabulary not in tables]
    if missing:
        raise ValueError(f"embedder: no table for {missing}; got {sorted(tables)}")
    widths = {tables[vocabulary].shape[1] for vocabulary in vocabularies}
    if len(widths) > 1:
        raise ValueError(f"embedder: all tables must have one width, got {sorted(widths)}")
    return widths.pop() if widths else 0
