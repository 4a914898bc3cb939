"""Columns of tables that somebody else has written: predictions, scores, titles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.parquet import DataError


def one_column(table: pa.Table, name: str, source: str) -> pa.ChunkedArray:
    """The column called ``name``, a dictionary as its values.

    Raises:
        DataError: there is none, or more than one.
    """
    times = table.column_names.count(name)
    if times == 0:
        raise DataError(f"{source}: column {name!r} is missing; it has {table.column_names}")
    if times > 1:
        raise DataError(
            f"{source}: column {name!r} is there {times} times; give every column its own name"
        )
    values = table.column(name)
    is_dictionary = pa.types.is_dictionary(values.type)
    return values.cast(values.type.value_type) if is_dictionary else values


def number_column(table: pa.Table, name: str, source: str) -> npt.NDArray[np.float64]:
    """The numbers of one column; NaN where null.

    Raises:
        DataError: see `one_column`; or it holds no numbers.
    """
    values = one_column(table, name, source)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise DataError(f"{source}: column {name!r} must hold numbers, got {values.type}")
    # not safe: integers beyond 2**53 are rounded, as float64 does with any number
    numbers: npt.NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy()
    return numbers
