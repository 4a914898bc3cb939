"""Rows wait until there are enough to fit the scales on; then they are standardised and stored."""

from __future__ import annotations

import numpy as np

from ranker.data.encode import Encoders
from ranker.data.features import ColumnArray, fit_scales, standardise_columns
from ranker.data.store_writer import StoreWriter
from ranker.schema import Schema

MAX_SCALE_ROWS = 200_000


class ScalingWriter:
    """Holds rows back until there are enough to fit the scales on, then standardises and writes.

    The scales are fitted on the first windows that together hold ``scale_rows`` rows, but on no
    more than the first `MAX_SCALE_ROWS`: so they do not depend on how windows are cut into chunks,
    and a huge first window need not fit in memory.
    """

    def __init__(self, writer: StoreWriter, encoders: Encoders, schema: Schema) -> None:
        self._writer, self._encoders, self._schema = writer, encoders, schema
        self._held: list[tuple[dict[str, ColumnArray], str, dict[str, int]]] = []

    def begin(self, label: str) -> None:
        """Say which window the next rows belong to, before a snapshot is taken of what is known."""
        if self._held and self._held[-1][1] != label and self._num_held >= self._schema.scale_rows:
            self._write()  # a window has ended

    def append(self, columns: dict[str, ColumnArray], label: str) -> None:
        """Take encoded rows of window ``label``."""
        self._held.append((columns, label, self._encoders.sizes))
        if self._encoders.standardisers or self._num_held >= self._max_rows:
            self._write()

    @property
    def _max_rows(self) -> int:
        return max(self._schema.scale_rows, MAX_SCALE_ROWS)

    @property
    def _num_held(self) -> int:
        return sum(len(held["time_ms"]) for held, _, _ in self._held)

    def finish(self) -> None:
        """Write what is held and describe the store."""
        self._write()
        self._writer.finish(self._encoders)

    def _write(self) -> None:
        if self._held and not self._encoders.standardisers:
            names = self._held[0][0]
            together = {
                n: np.concatenate([held[n] for held, _, _ in self._held])[: self._max_rows]
                for n in names
            }
            fit_scales(together, self._encoders, self._schema)
        for columns, label, sizes in self._held:
            self._writer.append(standardise_columns(columns, self._encoders), label, sizes)
        self._held = []
