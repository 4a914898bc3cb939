"""Requests whose rows lie together: where each begins. `N` rows, `R` requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ranker.schema import Schema

IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def key_names(schema: Schema) -> list[str]:
    """The canonical columns that tell requests apart: the request, else user and time."""
    return ["request"] if schema.log.request is not None else ["user", "time_ms"]


def differs_from_previous(keys: Mapping[str, pa.Array]) -> Mask:
    """Whether a row's keys differ from those of the row before it, [N - 1]."""
    num_rows = len(next(iter(keys.values())))
    differs = np.zeros(max(num_rows - 1, 0), dtype=bool)
    for values in keys.values():
        unequal = pc.not_equal(values.slice(1), values.slice(0, max(num_rows - 1, 0)))
        differs |= pc.fill_null(unequal, False).to_numpy(zero_copy_only=False)
    return differs


def run_codes(rows: pa.Table, schema: Schema) -> IntArray:
    """0, 1, ... by request, [N], for canonical rows in which no request comes twice."""
    keys = {name: one_array(rows.column(name)) for name in key_names(schema)}
    begins = np.append(False, differs_from_previous(keys))[: rows.num_rows]
    return np.cumsum(begins, dtype=np.int64)


def one_array(values: pa.ChunkedArray) -> pa.Array:
    """A column without chunks."""
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
