"""The encoded store: memory-mapped files (`ranker.data.store_layout`), rows in time order.

``store.json`` holds the columns' sha256, the windows (days, usually) with their rows, and how large
every vocabulary was at the end of each window: an index beyond that size was not yet known.
Shapes: ``N`` rows, ``B`` of them, ``C`` columns, ``L`` elements of a sequence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.data.encode import ENCODERS_FILE, Encoders
from ranker.data.parquet import DataError
from ranker.data.store_layout import Block, Ragged, blocks_of, ragged_of, store_columns
from ranker.schema import load_schema

STORE_FILE = "store.json"
FORMAT = 3
IntArray = npt.NDArray[np.int64]
IndexArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Rows ``start:stop`` of one training window, and vocabulary sizes when it had ended.

    ``label`` is the local date (and hour) of its beginning: the same window has the same label in
    every store.
    """

    label: str
    start: int
    stop: int
    vocabulary_sizes: Mapping[str, int]

    @property
    def num_rows(self) -> int:
        """Rows in the window."""
        return self.stop - self.start


def block_file(block: Block) -> str:
    """A block's file in the store's folder."""
    return f"{block.name}.bin"


def elements_file(ragged: Ragged) -> str:
    """The file of a sequence's elements."""
    return f"{ragged.name}.elements.bin"


def ends_file(ragged: Ragged) -> str:
    """The file of where each row's elements end."""
    return f"{ragged.name}.ends.bin"


class EncodedStore:
    """A finished store, read through memory maps."""

    def __init__(self, folder: Path) -> None:
        """Open the store below ``folder`` (which also holds ``schema.yaml``).

        Raises:
            DataError: no store there, another format, or a column of the wrong size.
        """
        self.folder = folder
        root = folder / "store"
        try:
            document = json.loads((root / STORE_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder}: holds no prepared data; run `ranker prepare`") from None
        except ValueError as error:
            raise DataError(f"{root / STORE_FILE}: damaged: {error}") from None
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise DataError(
                f"{root}: store format {found}, expected {FORMAT}: another version of ranker wrote "
                "it; run `ranker prepare` again"
            )
        self.schema = load_schema(folder / "schema.yaml")
        self.blocks = {block.name: block for block in blocks_of(self.schema)}
        self.ragged = {ragged.name: ragged for ragged in ragged_of(self.schema)}
        try:
            self.num_rows = int(document["rows"])
            self.windows = tuple(Window(**window) for window in document["windows"])
            self.sha256_by_column = dict(document["sha256_by_column"])
            elements = {name: int(document["elements"][name]) for name in self.ragged}
            columns = {column.name for column in store_columns(self.schema)}
            if not columns <= self.sha256_by_column.keys():
                raise ValueError("its columns are not those of schema.yaml")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{root / STORE_FILE}: damaged: {error!r}") from None
        self._matrices = {
            name: _map(root / block_file(block), block.dtype, (self.num_rows, len(block.columns)))
            for name, block in self.blocks.items()
        }
        self._elements = {
            name: _map(root / elements_file(one), "<i4", (elements[name], len(one.columns)))
            for name, one in self.ragged.items()
        }
        self._ends = {
            name: _map(root / ends_file(one), "<i8", (self.num_rows,))
            for name, one in self.ragged.items()
        }
        self._encoders: Encoders | None = None

    @property
    def encoders(self) -> Encoders:
        """The encoders at the end of the store."""
        if self._encoders is None:
            self._encoders = Encoders.load(self.folder / "store" / ENCODERS_FILE)
        return self._encoders

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """A whole column: [N], memory-mapped, or a sequence [N, length], copied.

        Raises:
            KeyError: no such column.
        """
        for block in self.blocks.values():
            if name in block.columns:
                return self._matrices[block.name][:, block.columns.index(name)]
        for ragged in self.ragged.values():
            if name in ragged.columns:
                padded = self.sequences(ragged.name, slice(0, self.num_rows), ragged.length)
                return padded[:, :, ragged.columns.index(name)]
        raise KeyError(name)

    def rows(self, block: str, rows: IntArray | slice) -> npt.NDArray[np.generic]:
        """A copy of ``rows`` of a block: [B, C], its columns in the order of ``blocks``."""
        matrix = self._matrices[block]
        return np.array(matrix[rows]) if isinstance(rows, slice) else np.take(matrix, rows, axis=0)

    def sequences(self, ragged: str, rows: IntArray | slice, length: int = 0) -> IndexArray:
        """``rows`` of aligned sequences: [B, L, C], right-aligned, 0 in front.

        L is ``length``, or the longest of these rows (at least 1) where that is 0.
        """
        ends, elements = self._ends[ragged], self._elements[ragged]
        number = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        stop = ends[number]
        start = np.where(number > 0, ends[np.maximum(number, 1) - 1], 0)
        length = length or int((stop - start).max(initial=1))
        slots = stop[:, None] - np.arange(length, 0, -1)[None, :]  # [B, L]
        inside = slots >= start[:, None]
        padded = np.zeros((*slots.shape, elements.shape[1]), dtype=np.int32)
        padded[inside] = elements[slots[inside]]
        return padded

    def windows_between(self, first: str | None, before: str | None) -> tuple[Window, ...]:
        """Windows with ``first <= label < before``; ``None`` leaves a side open."""
        return tuple(
            w
            for w in self.windows
            if (first is None or w.label >= first) and (before is None or w.label < before)
        )


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    size = path.stat().st_size if path.is_file() else -1
    if size != expected:
        raise DataError(f"{path}: expected {expected} bytes, got {max(size, 0)}; prepare again")
    if expected == 0:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
