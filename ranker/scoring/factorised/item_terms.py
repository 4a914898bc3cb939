"""The items' share of the first layer: once for each item of the catalogue, or of a shard.

A catalogue's terms are kept as long as they fit `CATALOGUE_BYTES`, and filled in blocks of the
catalogue's own order when a shard first needs them. A block's numbers are a function of the block,
so it makes no difference to any result which shards came before. Items that are not in
the catalogue, or that the moment or a row's own columns make another, are computed for the shard.

Shapes: ``C`` items of the catalogue; ``O``, ``W`` as in `input_split`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from queue import LifoQueue
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from ranker.scoring.factorised.input_split import InputSplit
from ranker.scoring.factorised.sides import CountedRows, EncodedSide, slice_features

CATALOGUE_BYTES = 2**30
SHARD_BYTES = 2**28
ENCODED_ITEMS = 16_384  # encoded at a time
BLOCK_ITEMS = 512  # multiplied at a time
MIN_SHARD_ITEMS = 1024
PIECE_RUNS = 512  # of one request's rows, in a piece of a shard
IntArray = npt.NDArray[np.int64]
Item = TypeVar("Item")
Result = TypeVar("Result")


class RunAll(Protocol):
    """Call a function with each item, several at a time, and return the results in order."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``[function(item) for item in items]``."""
        ...


class TermTable:
    """First-layer terms, row by row: the catalogue's C items, a shard's own, and requests.

    Attributes:
        terms: [C + room + lanes, O].
        lanes: rows of ``terms`` for a piece's requests, `PIECE_RUNS` each, one a core; whoever
            takes one puts it back.
        query: [C + room, W], what attends to the history; W = 0 without attention.
    """

    def __init__(self, split: InputSplit, *, num_items: int, room: int) -> None:
        """Rows are reserved, not computed; memory is taken as they are filled."""
        self._split, self.num_items, self.room = split, num_items, room
        num_rows = num_items + room
        num_lanes = max(os.cpu_count() or 1, torch.get_num_threads())
        term = split.terms["item"]
        width = 0
        if split.attention is not None and split.attention.embedder.table is not None:
            width = split.attention.embedder.table.width
        self.terms = torch.empty(num_rows + num_lanes * PIECE_RUNS, term.weight.shape[1])
        self.lanes: LifoQueue[slice] = LifoQueue()  # the last one used is in the cache
        for number in range(num_lanes):
            start = num_rows + number * PIECE_RUNS
            self.lanes.put(slice(start, start + PIECE_RUNS))
        self.query = torch.empty(num_rows, width)

    def fill(self, start: int, features: Mapping[str, Tensor], num_rows: int) -> None:
        """Compute ``num_rows`` rows from ``start`` on from the features of as many items."""
        rows = slice(start, start + num_rows)
        term = self._split.terms["item"]
        columns = term.columns(features)
        if columns is None:
            self.terms[rows] = 0.0
        else:
            torch.mm(columns, term.weight, out=self.terms[rows])
        attention = self._split.attention
        if attention is not None and not attention.by_pair:
            self.query[rows] = attention.embedder.candidate_query(features)


def bytes_per_item(split: InputSplit) -> int:
    """Of a row of `TermTable`."""
    table = TermTable(split, num_items=0, room=1)
    return sum(part[:1].nbytes for part in (table.terms, table.query))


class Catalogue:
    """The items known beforehand, encoded and multiplied when a shard first needs them.

    Attributes:
        ids: their ids, C of them, in a fixed order.
        counted: what is to be counted of them, where they are filled.
    """

    def __init__(self, ids: pa.Array, encode: Callable[[pa.Array], EncodedSide]) -> None:
        """``encode`` gives the item side of any ids, as of a moment that sees all of the state."""
        self.ids = ids
        self._encode = encode
        self._index = pd.Index(ids.to_pandas())
        self._filled = np.zeros(-(-len(ids) // ENCODED_ITEMS), dtype=bool)
        self.counted = CountedRows(
            unknown_by_feature={}, without_row=np.zeros(len(ids), dtype=bool)
        )

    def rows_of(self, ids: pa.Array) -> IntArray:
        """Each id's row, -1 for ids not in the catalogue."""
        return np.asarray(self._index.get_indexer(pd.Index(ids.to_pandas())), dtype=np.int64)

    def require(self, rows: IntArray, table: TermTable, run_all: RunAll) -> None:
        """See to it that ``rows`` are filled in ``table``."""
        needed = np.unique(rows // ENCODED_ITEMS)
        for chunk in needed[~self._filled[needed]].tolist():
            start = chunk * ENCODED_ITEMS
            ids = self.ids.slice(start, ENCODED_ITEMS)
            encoded = self._encode(ids)
            rows_here = slice(start, start + len(ids))
            for name, unknown in encoded.counted.unknown_by_feature.items():
                where = self.counted.unknown_by_feature
                where.setdefault(name, np.zeros(len(self.ids), dtype=bool))[rows_here] = unknown
            self.counted.without_row[rows_here] = encoded.counted.without_row
            fill_blocks(table, start, encoded.features, len(ids), run_all)
            self._filled[chunk] = True


def fill_blocks(
    table: TermTable, start: int, features: Mapping[str, Tensor], num_rows: int, run_all: RunAll
) -> None:
    """`TermTable.fill` block by block, on several cores."""

    @torch.inference_mode()
    def fill(first: int) -> None:
        stop = min(first + BLOCK_ITEMS, num_rows)
        table.fill(start + first, slice_features(features, first, stop), stop - first)

    run_all(fill, range(0, num_rows, BLOCK_ITEMS))
