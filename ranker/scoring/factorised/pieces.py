"""A piece of a shard: the terms of its candidates added up, and the other layers of the model.

Shapes: ``N`` rows of the shard, ``B`` of a block, ``G`` runs of the piece, ``K`` tasks; ``O``,
``W``, ``L`` as in `ranker.scoring.factorised.input_split`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ranker.models.folded import FoldedModel
from ranker.models.position import PositionTower
from ranker.scoring.factorised.input_split import InputSplit
from ranker.scoring.factorised.item_terms import TermTable
from ranker.scoring.factorised.owners import Shared
from ranker.scoring.factorised.sides import EncodedSide, slice_features

# A piece's request terms and a block's hidden layer stay in a core's cache, products stay efficient
PIECE_ROWS = 4096
PIECE_RUNS = 512
BLOCK_ROWS = 512
FEW_RUNS = 16  # in a block; more are gathered rather than added one by one
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedShard:
    """A shard's rows, encoded by side.

    Attributes:
        requests: the runs of rows with one request's values.
        catalogue_row: [N], the item's row of the catalogue, -1 for the shard's own items.
        own: [N], which of its own items a row has, -1 for those of the catalogue.
    """

    requests: Shared
    request_side: EncodedSide
    pair_side: EncodedSide | None
    own_side: EncodedSide
    catalogue_row: IntArray
    own: IntArray

    @property
    def num_rows(self) -> int:
        """``N``."""
        return len(self.own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows ``start:stop`` of a shard."""

    start: int
    stop: int


def plan_pieces(requests: Shared, start: int, stop: int) -> list[Piece]:
    """Cut rows ``start:stop`` into pieces: where a run begins, if one begins in time."""
    pieces = []
    while start < stop:
        end = min(start + PIECE_ROWS, stop)
        last_run = requests.of_row[start] + PIECE_RUNS
        if last_run < len(requests.first):
            end = min(end, int(requests.first[last_run]))
        if end < stop:
            begin = int(requests.first[requests.of_row[end]])
            end = begin if begin > start else end
        pieces.append(Piece(start=start, stop=end))
        start = end
    return pieces


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _RequestTerms:
    """The request's term [G, O] of each of G runs, and the history attended to."""

    terms: Tensor
    history: tuple[Tensor, Tensor] | None  # tokens [G, L, W], their mask [G, L]


class PieceScorer:
    """Scores the pieces of a shard, each by itself."""

    def __init__(
        self,
        *,
        folded: FoldedModel,
        split: InputSplit,
        table: TermTable,
        position_tower: PositionTower | None,
    ) -> None:
        self._folded, self._split, self._table = folded, split, table
        self._position_tower = position_tower

    @torch.inference_mode()
    def score(self, shard: EncodedShard, piece: Piece, table_row: Tensor) -> Tensor:
        """Logits [n, K] of the n rows of a piece, whose items' terms are in ``table_row`` [n]."""
        first_run = int(shard.requests.of_row[piece.start])
        last_run = int(shard.requests.of_row[piece.stop - 1])
        request = self._request_terms(shard.request_side, first_run, last_run + 1)
        run = shard.requests.of_row[piece.start : piece.stop] - first_run  # [n]
        buffer = torch.empty(BLOCK_ROWS, self._table.terms.shape[1])
        logits = []
        for first in range(0, len(run), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            at = table_row[rows]
            outputs = buffer[: len(at)]
            torch.index_select(self._table.terms, 0, at, out=outputs)
            _add_by_run(request.terms, run[rows], outputs)
            start = piece.start + first
            pair = self._pair_features(shard, start, start + len(at))
            self._add_pair_term(pair, outputs)
            self._add_attention(pair, request, run[rows], at, outputs)
            logits.append(self._folded.after_first(outputs))
        return torch.cat(logits)

    def _request_terms(self, side: EncodedSide, start: int, stop: int) -> _RequestTerms:
        term, split = self._split.terms["request"], self._split
        features = slice_features(side.features, start, stop)
        columns = term.columns(features)
        if columns is None:
            terms = split.bias.repeat(stop - start, 1)
        else:
            terms = torch.addmm(split.bias, columns, term.weight)
        if self._position_tower is not None:
            tower = self._position_tower.missing(side.device[start:stop])
            terms[:, terms.shape[1] - tower.shape[1] :] += tower
        history = None
        if split.attention is not None:
            history = split.attention.embedder.history_tokens(features)
        return _RequestTerms(terms=terms, history=history)

    def _pair_features(self, shard: EncodedShard, start: int, stop: int) -> dict[str, Tensor]:
        if shard.pair_side is None:
            return {}
        return slice_features(shard.pair_side.features, start, stop)

    def _add_pair_term(self, pair: dict[str, Tensor], outputs: Tensor) -> None:
        term = self._split.terms["pair"]
        columns = term.columns(pair)
        if columns is not None:
            outputs.addmm_(columns, term.weight)

    def _add_attention(
        self,
        pair: dict[str, Tensor],
        request: _RequestTerms,
        run: IntArray,
        table_row: Tensor,
        outputs: Tensor,
    ) -> None:
        attention = self._split.attention
        if attention is None or request.history is None:
            return
        tokens, real = (
            part[torch.from_numpy(run)] for part in request.history
        )  # [B, L, W], [B, L]
        if attention.by_pair:
            query = attention.embedder.candidate_query(pair)
        else:
            query = self._table.query[table_row]  # [B, W]
        columns = attention.columns(query, tokens, real)
        outputs.addmm_(columns, attention.weight)


def _add_by_run(terms: Tensor, run: IntArray, rows: Tensor) -> None:
    """Add ``terms`` [G, .] of each row's ``run`` [B], ascending, to ``rows`` [B, .], in place."""
    first, last = int(run[0]), int(run[-1])
    if last - first >= FEW_RUNS:
        rows += terms[torch.from_numpy(run)]
        return
    bounds = np.searchsorted(run, np.arange(first, last + 2))
    for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
        rows[start:stop] += terms[first + number]
