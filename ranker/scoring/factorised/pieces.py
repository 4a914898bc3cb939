"""A piece of a shard: the terms of its candidates added up, and the other layers of the model.

Shapes: ``N`` rows of the shard, ``B`` of a block, ``G`` runs of the piece, ``K`` tasks; ``O``,
``W``, ``L`` as in `ranker.scoring.factorised.input_split`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ranker.models.folded import FoldedModel
from ranker.models.position import PositionTower
from ranker.scoring.factorised.input_split import InputSplit
from ranker.scoring.factorised.item_terms import PIECE_RUNS, TermTable
from ranker.scoring.factorised.owners import Shared
from ranker.scoring.factorised.sides import EncodedSide, slice_features

# A piece's request terms and a block's hidden layer stay in a core's cache, products stay efficient
PIECE_ROWS = 4096
BLOCK_ROWS = 512
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
        lane = self._table.lanes.get()  # whose rows no other piece writes to meanwhile
        try:
            return self._score(shard, piece, table_row, lane)
        finally:
            self._table.lanes.put(lane)

    def _score(self, shard: EncodedShard, piece: Piece, table_row: Tensor, lane: slice) -> Tensor:
        first_run = int(shard.requests.of_row[piece.start])
        stop_run = int(shard.requests.of_row[piece.stop - 1]) + 1
        features = slice_features(shard.request_side.features, first_run, stop_run)
        device = shard.request_side.device[first_run:stop_run]
        self._fill_request_terms(self._table.terms[lane][: stop_run - first_run], features, device)
        run = torch.from_numpy(shard.requests.of_row[piece.start : piece.stop] - first_run)  # [n]
        history = None
        if self._split.attention is not None:
            history = self._split.attention.embedder.history_tokens(features)
        both = torch.stack([table_row, run + lane.start], dim=1)  # [n, 2] rows of the table
        logits = []
        for first in range(0, len(run), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            # one pass over memory: gathered and added up
            outputs = functional.embedding_bag(both[rows], self._table.terms, mode="sum")  # [B, O]
            start = piece.start + first
            pair = self._pair_features(shard, start, start + len(outputs))
            self._add_pair_term(pair, outputs)
            self._add_attention(pair, history, run[rows], table_row[rows], outputs)
            logits.append(self._folded.after_first(outputs))
        return torch.cat(logits)

    def _fill_request_terms(self, out: Tensor, features: dict[str, Tensor], device: Tensor) -> None:
        """Write the request's terms of G runs into ``out`` [G, O]."""
        term = self._split.terms["request"]
        columns = term.columns(features)
        if columns is None:
            out.copy_(self._split.bias)
        else:
            torch.addmm(self._split.bias, columns, term.weight, out=out)
        if self._position_tower is not None:
            tower = self._position_tower.missing(device)
            out[:, out.shape[1] - tower.shape[1] :] += tower

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
        history: tuple[Tensor, Tensor] | None,
        run: Tensor,
        table_row: Tensor,
        outputs: Tensor,
    ) -> None:
        attention = self._split.attention
        if attention is None or history is None:
            return
        tokens, real = (part[run] for part in history)  # [B, L, W], [B, L]
        if attention.by_pair:
            query = attention.embedder.candidate_query(pair)
        else:
            query = self._table.query[table_row]  # [B, W]
        columns = attention.columns(query, tokens, real)
        outputs.addmm_(columns, attention.weight)
