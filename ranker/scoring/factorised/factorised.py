"""Exact predictions, the first layer computed once a request and once an item.

The first layer is most of a model's work, and a sum of a request's, an item's and a pair's term
(`input_split`). A request's is computed once for its candidates, an item's once for
all requests (`item_terms`); per candidate the terms are added and the other layers
follow. In the same way features are encoded: a request's once, an item's once.

The rows of a shard are cut by a plan that depends on the shard alone, and each piece is worked on
by one core alone. So predictions are the same bytes whatever was scored before and with any number
of cores.

Shapes: ``N`` rows, ``G`` runs (`owners.runs`), ``M`` items of a shard's own, ``K``
tasks, ``O``, ``W``, ``L`` as in `ranker.scoring.factorised.input_split`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ranker.bundle import ModelBundle
from ranker.data.feature_side import Side
from ranker.data.features import FeatureSource
from ranker.models.folded import fold_model
from ranker.schema import Owner
from ranker.scoring.factorised.input_split import split_input
from ranker.scoring.factorised.item_terms import (
    CATALOGUE_BYTES,
    MIN_SHARD_ITEMS,
    SHARD_BYTES,
    Catalogue,
    Item,
    Result,
    RunAll,
    TermTable,
    bytes_per_item,
    fill_blocks,
)
from ranker.scoring.factorised.owners import (
    columns_of_rows,
    distinct_items,
    features_by_side,
    runs,
)
from ranker.scoring.factorised.pieces import EncodedShard, Piece, PieceScorer, plan_pieces
from ranker.scoring.factorised.sides import CountedRows, EncodedSide, counted_owners, encode_side
from ranker.scoring.predict import ScoringCounts, check_belongs, check_not_newer
from ranker.scoring.stage_clock import stage

# The catalogue is worth its time only to shards that hold a good part of it
CATALOGUE_SHARE = 8
IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermMemory:
    """Bytes that the items' terms may take: the catalogue's, and those of a shard's own items."""

    catalogue_bytes: int = CATALOGUE_BYTES
    shard_bytes: int = SHARD_BYTES


class FactorisedPredictor:
    """Predicts candidates from the terms of requests, items and pairs; see the module."""

    def __init__(
        self, bundle: ModelBundle, source: FeatureSource, *, memory: TermMemory | None = None
    ) -> None:
        """Fold the model; the catalogue's terms are computed when shards need them.

        Raises:
            DataError: the state does not belong to the bundle.
        """
        check_belongs(bundle, source)
        memory = memory or TermMemory()
        self._bundle, self._source = bundle, source
        self._features = features_by_side(bundle.model.embedder.inputs, bundle.schema)
        folded = fold_model(bundle.model)
        split = split_input(bundle.model.embedder, folded.first, self._features)
        row_bytes = bytes_per_item(split)
        self._item_columns = columns_of_rows(self._features["item"], source)
        ids = _catalogue_ids(source)
        self._catalogue = None
        if not self._item_columns and 0 < len(ids) * row_bytes <= memory.catalogue_bytes:
            self._catalogue = Catalogue(ids, self._encode_catalogue)
        table = TermTable(
            split,
            num_items=0 if self._catalogue is None else len(ids),
            room=max(MIN_SHARD_ITEMS, memory.shard_bytes // row_bytes),
        )
        self._table = table
        self._scorer = PieceScorer(
            folded=folded,
            split=split,
            table=table,
            position_tower=bundle.model.position_tower,
        )

    @torch.inference_mode()
    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """Task -> predictions [N] of canonical candidate rows; see `Predictor.predict`."""
        check_not_newer(self._source, rows)
        logits = torch.empty(rows.num_rows, len(self._bundle.model.tasks))
        if rows.num_rows:
            with stage("encode"):
                shard = self._encode_shard(rows)
            with stage("forward"), _workers() as run_all:
                self._score(shard, logits, run_all)
            self._count(shard, counts)
        heads = self._bundle.model.heads.values()
        predictions = [h.prediction(c) for h, c in zip(heads, logits.unbind(1), strict=True)]
        names = self._bundle.model.tasks
        return {n: p.double().numpy() for n, p in zip(names, predictions, strict=True)}

    def _encode(self, rows: pa.Table, side: Side) -> EncodedSide:
        features = self._features[side]
        return encode_side(rows, side, features, bundle=self._bundle, source=self._source)

    def _encode_shard(self, rows: pa.Table) -> EncodedShard:
        requests = runs(rows, columns_of_rows(self._features["request"], self._source))
        epoch = self._epoch(rows)
        catalogue_row = self._catalogue_rows(rows, epoch)
        others = np.flatnonzero(catalogue_row < 0)
        rest = rows if len(others) == rows.num_rows else rows.take(pa.array(others))
        items = distinct_items(rest, epoch[others], self._item_columns)
        own = np.full(rows.num_rows, -1, dtype=np.int64)
        own[others] = items.of_row
        return EncodedShard(
            requests=requests,
            request_side=self._encode(rows.take(pa.array(requests.first)), "request"),
            pair_side=self._encode(rows, "pair") if self._features["pair"] else None,
            own_side=self._encode(rest.take(pa.array(items.first)), "item"),
            catalogue_row=catalogue_row,
            own=own,
        )

    def _epoch(self, rows: pa.Table) -> IntArray:
        """How many of the state's pending events each row sees, [N].

        Between two such events all that is counted of an item stays the same.
        """
        computed = {feature.name for feature in self._source.schema.history_features}
        if not any(feature.name in computed for feature in self._features["item"]):
            return np.full(rows.num_rows, self._num_pending, dtype=np.int64)
        visible_ms = np.sort(self._source.history.pending.visible_ms)
        time_ms = np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64)
        return np.searchsorted(visible_ms, time_ms, side="left").astype(np.int64)

    @property
    def _num_pending(self) -> int:
        return self._source.history.pending.num_rows

    def _catalogue_rows(self, rows: pa.Table, epoch: IntArray) -> IntArray:
        """Each row's item in the catalogue; -1 unless the row sees all of the state's events."""
        none = np.full(rows.num_rows, -1, dtype=np.int64)
        if self._catalogue is None:
            return none
        encoded = rows.column("item").combine_chunks().dictionary_encode()
        if len(encoded.dictionary) * CATALOGUE_SHARE < len(self._catalogue.ids):
            return none
        found = self._catalogue.rows_of(encoded.dictionary)[encoded.indices.to_numpy()]
        return np.where(epoch == self._num_pending, found, -1)

    def _encode_catalogue(self, ids: pa.Array) -> EncodedSide:
        """The item side of ``ids`` at a moment that sees all pending events."""
        pending = self._source.history.pending
        time_ms = max(int(pending.visible_ms.max(initial=0)) + 1, self._source.history.as_of_ms)
        user_ids = self._source.encoders.vocabularies["user"].ids
        columns = {
            "user": pa.nulls(len(ids), pa.int64() if user_ids.dtype == np.int64 else pa.string()),
            "item": ids,
            "time_ms": pa.array(np.full(len(ids), time_ms, dtype=np.int64)),
        }
        if self._source.schema.log.device is not None:
            columns["device"] = pa.nulls(len(ids), pa.string())
        with stage("encode"):
            return self._encode(pa.table(columns), "item")

    def _score(self, shard: EncodedShard, logits: Tensor, run_all: RunAll) -> None:
        """Fill ``logits`` [N, K], so many rows at a time as their own items have room."""
        table = self._table
        in_catalogue = shard.catalogue_row[shard.catalogue_row >= 0]
        if self._catalogue is not None and len(in_catalogue):
            self._catalogue.require(in_catalogue, table, run_all)
        num_own = shard.own_side.num_rows
        step = shard.num_rows if num_own <= table.room else table.room
        for start in range(0, shard.num_rows, step):
            stop = min(start + step, shard.num_rows)
            table_row = self._place_items(shard, start, stop, run_all)

            def score(piece: Piece, start: int = start, at: Tensor = table_row) -> Tensor:
                return self._scorer.score(
                    shard, piece, at[piece.start - start : piece.stop - start]
                )

            parts = run_all(score, plan_pieces(shard.requests, start, stop))
            torch.cat(parts, out=logits[start:stop])

    def _place_items(self, shard: EncodedShard, start: int, stop: int, run_all: RunAll) -> Tensor:
        """The table's row for the items of rows ``start:stop``, once their own ones are filled."""
        first = self._table.num_items
        own = np.unique(shard.own[start:stop])
        own = own[own >= 0]
        index = torch.from_numpy(own)
        features = {name: values[index] for name, values in shard.own_side.features.items()}
        fill_blocks(self._table, first, features, len(own), run_all)
        place = first + np.searchsorted(own, shard.own[start:stop])
        known = shard.catalogue_row[start:stop]
        return torch.from_numpy(np.where(known >= 0, known, place))

    def _count(self, shard: EncodedShard, counts: ScoringCounts) -> None:
        """Count what is unusual by candidate, as the plain path does."""
        by_run = np.bincount(shard.requests.of_row, minlength=len(shard.requests.first))
        num_own = shard.own_side.num_rows
        by_own = np.bincount(shard.own[shard.own >= 0], minlength=num_own)
        owners = counted_owners(self._source)
        counts.rows += shard.num_rows
        counts.missing_owners.update(dict.fromkeys(owners.values(), 0))
        _count_side(shard.request_side.counted, by_run, owners.get("request"), counts)
        _count_side(shard.own_side.counted, by_own, owners.get("item"), counts)
        if shard.pair_side is not None:
            _count_side(
                shard.pair_side.counted, np.ones(shard.num_rows, dtype=np.int64), None, counts
            )
        known = shard.catalogue_row[shard.catalogue_row >= 0]
        if self._catalogue is not None and len(known):
            by_item = np.bincount(known, minlength=len(self._catalogue.ids))
            _count_side(self._catalogue.counted, by_item, owners.get("item"), counts)


def _count_side(
    side: CountedRows, times: IntArray, owner: Owner | None, counts: ScoringCounts
) -> None:
    """Add what ``side`` [B] has to count, row i ``times[i]`` times."""
    for name, unknown in side.unknown_by_feature.items():
        counts.unknown_by_feature[name] += int(times[unknown].sum())
    if owner is not None:
        counts.missing_owners[owner] += int(times[side.without_row].sum())


def _catalogue_ids(source: FeatureSource) -> pa.Array:
    """The items of the item table, or else those that the log has shown."""
    if source.items is not None:
        return source.items.table.column("id").combine_chunks()
    ids = source.encoders.vocabularies["item"].ids
    return pa.array(ids, type=pa.int64() if ids.dtype == np.int64 else pa.string())


@contextmanager
def _workers() -> Iterator[RunAll]:
    """As many threads as torch has, each with a core of its own: products aren't cut further."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if before == 1:
            yield _one_after_the_other
        else:
            with ThreadPoolExecutor(before) as pool:
                yield lambda function, items: list(pool.map(function, items))
    finally:
        torch.set_num_threads(before)


def _one_after_the_other(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return [function(item) for item in items]
