"""Encoded rows are appended to a store chunk by chunk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ranker.atomic import write_text
from ranker.data.encode import ENCODERS_FILE, Encoders
from ranker.data.parallel import map_columns
from ranker.data.store import FORMAT, STORE_FILE, Window, block_file, elements_file, ends_file
from ranker.data.store_layout import Block, Ragged, blocks_of, ragged_of
from ranker.schema import Schema

Columns = Mapping[str, npt.NDArray[np.generic]]


class StoreWriter:
    """Appends rows; `finish` writes ``store.json`` with every column's sha256."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._folder = folder
        self._blocks, self._ragged = blocks_of(schema), ragged_of(schema)
        self._windows: list[Window] = []
        self._rows = 0
        self._elements = {ragged.name: 0 for ragged in self._ragged}
        folder.mkdir(parents=True)
        names = [block_file(block) for block in self._blocks]
        for ragged in self._ragged:
            names += [elements_file(ragged), ends_file(ragged)]
        self._files: dict[str, BinaryIO] = {name: (folder / name).open("wb") for name in names}
        columns = [name for block in self._blocks for name in block.columns]
        for ragged in self._ragged:
            columns += [*ragged.columns, ends_file(ragged)]
        self._digests = {name: hashlib.sha256() for name in columns}

    def append(
        self, columns: Columns, window_label: str, vocabulary_sizes: Mapping[str, int]
    ) -> None:
        """Append rows of one window (the last one, or a new one), and its vocabularies' sizes."""
        num_rows = len(columns["time_ms"])
        map_columns(lambda block: self._append_block(block, columns), self._blocks)
        map_columns(lambda ragged: self._append_ragged(ragged, columns), self._ragged)
        start = self._rows
        if self._windows and self._windows[-1].label == window_label:
            start = self._windows.pop().start
        self._rows += num_rows
        window = Window(
            label=window_label, start=start, stop=self._rows, vocabulary_sizes=vocabulary_sizes
        )
        self._windows.append(window)

    def close(self) -> None:
        """Close the files; without `finish` they are no store."""
        for file in self._files.values():
            file.close()

    def finish(self, encoders: Encoders) -> None:
        """Close the files and describe them."""
        self.close()
        encoders.save(self._folder / ENCODERS_FILE)
        document = {
            "format": FORMAT,
            "rows": self._rows,
            "elements": self._elements,
            "sha256_by_column": self._sha256_by_column(),
            "windows": [
                {
                    "label": w.label,
                    "start": w.start,
                    "stop": w.stop,
                    "vocabulary_sizes": dict(w.vocabulary_sizes),
                }
                for w in self._windows
            ],
        }
        write_text(self._folder / STORE_FILE, json.dumps(document))

    def _sha256_by_column(self) -> dict[str, str]:
        """Digests of all columns; a sequence's is of its elements and of where rows end."""
        for ragged in self._ragged:
            ends = self._digests.pop(ends_file(ragged)).digest()
            for name in ragged.columns:
                self._digests[name].update(ends)
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _append_block(self, block: Block, columns: Columns) -> None:
        matrix = np.empty((len(columns["time_ms"]), len(block.columns)), dtype=block.dtype)
        for place, name in enumerate(block.columns):
            column = np.ascontiguousarray(columns[name], dtype=block.dtype)
            self._digests[name].update(column.data)
            matrix[:, place] = column
        self._files[block_file(block)].write(matrix.data)

    def _append_ragged(self, ragged: Ragged, columns: Columns) -> None:
        padded = np.stack([columns[name] for name in ragged.columns], axis=2)  # [n, L, C]
        given = (padded != 0).any(axis=2)
        inside = np.logical_or.accumulate(given, axis=1)  # from the first element on
        elements = padded[inside].astype("<i4")  # [E, C]
        ends = self._elements[ragged.name] + np.cumsum(inside.sum(axis=1))
        self._elements[ragged.name] += len(elements)
        for place, name in enumerate(ragged.columns):
            self._digests[name].update(np.ascontiguousarray(elements[:, place]).data)
        self._digests[ends_file(ragged)].update(ends.astype("<i8").data)
        self._files[elements_file(ragged)].write(elements.data)
        self._files[ends_file(ragged)].write(ends.astype("<i8").data)
