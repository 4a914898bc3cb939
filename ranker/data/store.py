"""The encoded column store: one memory-mapped file a column, rows in time order.

``store.json`` names the columns, their types, the windows (days, usually) with their rows, and how
large every vocabulary was at the end of each window: an index beyond that size was not yet known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ranker.atomic import write_text
from ranker.data.encode import Encoders
from ranker.data.parquet import DataError
from ranker.schema import Schema, load_schema

STORE_FILE = "store.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredColumn:
    """A column's type; ``width`` > 0 for sequences stored as [N, width]."""

    name: str
    dtype: str
    width: int


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


def store_columns(schema: Schema) -> list[StoredColumn]:
    """The columns of a store with this schema."""
    columns = [
        StoredColumn(name="time_ms", dtype="<i8", width=0),
        StoredColumn(name="request", dtype="<i8", width=0),
        *(StoredColumn(name=n, dtype="<i4", width=0) for n in ("user", "item")),
        *(StoredColumn(name=n, dtype="<i4", width=0) for n in ("position", "device")),
    ]
    for feature in schema.all_features:
        columns.append(
            StoredColumn(
                name=f"feature.{feature.name}",
                dtype="<f4" if feature.kind == "numeric" else "<i4",
                width=feature.length if feature.kind == "sequence" else 0,
            )
        )
    labels = [StoredColumn(name=f"label.{t.name}", dtype="<f4", width=0) for t in schema.tasks]
    return columns + labels


class StoreWriter:
    """Appends rows column by column; `finish` writes ``store.json`` with every file's sha256."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._columns = store_columns(schema)
        self._windows: list[Window] = []
        self._rows = 0
        (folder / "columns").mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {
            column.name: (folder / "columns" / f"{column.name}.bin").open("wb")
            for column in self._columns
        }
        self._digests = {column.name: hashlib.sha256() for column in self._columns}

    @property
    def num_rows(self) -> int:
        """Rows appended so far."""
        return self._rows

    def append(
        self,
        columns: Mapping[str, npt.NDArray[np.generic]],
        window_label: str,
        vocabulary_sizes: Mapping[str, int],
    ) -> None:
        """Append rows of one window (the last one, or a new one), and its vocabularies' sizes."""
        num_rows = len(columns["time_ms"])
        for column in self._columns:
            data = np.ascontiguousarray(columns[column.name].astype(column.dtype)).tobytes()
            self._files[column.name].write(data)
            self._digests[column.name].update(data)
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
        encoders.save(self._folder / "encoders.json")
        document = {
            "format": FORMAT,
            "rows": self._rows,
            "columns": {
                c.name: {"dtype": c.dtype, "width": c.width, "sha256": d.hexdigest()}
                for c, d in zip(self._columns, self._digests.values(), strict=True)
            },
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
            raise DataError(f"{root}: store format {found}, expected {FORMAT}")
        self.schema = load_schema(folder / "schema.yaml")
        try:
            self.num_rows = int(document["rows"])
            self.windows = tuple(Window(**window) for window in document["windows"])
            self.sha256_by_column = {n: c["sha256"] for n, c in document["columns"].items()}
            specs = [document["columns"][c.name] for c in store_columns(self.schema)]
            expected = [(c.dtype, c.width) for c in store_columns(self.schema)]
            if [(spec["dtype"], spec["width"]) for spec in specs] != expected:
                raise ValueError("its columns are not those of schema.yaml")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{root / STORE_FILE}: damaged: {error!r}") from None
        self._columns = {
            column.name: _map_column(root / "columns" / f"{column.name}.bin", column, self.num_rows)
            for column in store_columns(self.schema)
        }
        self._encoders: Encoders | None = None

    @property
    def encoders(self) -> Encoders:
        """The encoders at the end of the store."""
        if self._encoders is None:
            self._encoders = Encoders.load(self.folder / "store" / "encoders.json")
        return self._encoders

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """A whole column, memory-mapped: [N] or [N, width]."""
        return self._columns[name]

    def windows_between(self, first: str | None, before: str | None) -> tuple[Window, ...]:
        """Windows with ``first <= label < before``; ``None`` leaves a side open."""
        return tuple(
            w
            for w in self.windows
            if (first is None or w.label >= first) and (before is None or w.label < before)
        )


def _map_column(path: Path, column: StoredColumn, num_rows: int) -> npt.NDArray[np.generic]:
    dtype = np.dtype(column.dtype)
    shape = (num_rows, column.width) if column.width else (num_rows,)
    expected = int(np.prod(shape)) * dtype.itemsize
    size = path.stat().st_size if path.is_file() else -1
    if size != expected:
        raise DataError(f"{path}: expected {expected} bytes, got {max(size, 0)}; prepare again")
    if expected == 0:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
