"""Anybody's rows brought into our order: found by ids and time, duplicates told apart.

`N` rows wanted, `M` rows given, `S` of those left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import is_text
from ranker.data.given_columns import one_column
from ranker.data.parquet import DataError
from ranker.schema import MS_PER_UNIT

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """Which given row answers each wanted one.

    Attributes:
        rows: row among the given ones, -1 where there is none, [N].
        surplus: given rows left over although their key is wanted: it was given more often, [S].
        surplus_first: the first given row with the same key as each of ``surplus``, [S].
        codes: equal for wanted rows of equal keys, [N].
    """

    rows: IntArray
    surplus: IntArray
    surplus_first: IntArray
    codes: IntArray


def match_rows(wanted: pa.Table, given: pa.Table) -> Match:
    """Match rows by equal values in all columns, which both tables have in equal types.

    A key's first occurrence is matched with its first, the second with its second. A null equals
    nothing.
    """
    code, given_code = _codes(wanted, given)
    order = np.argsort(given_code, kind="stable")
    in_order = given_code[order]
    first = np.searchsorted(in_order, code, side="left")
    place = first + _occurrence(code)
    found = (place < np.searchsorted(in_order, code, side="right")) & (code >= 0)
    rows = np.full(len(code), -1, dtype=np.int64)
    rows[found] = order[place[found]]

    num_codes = int(max(code.max(initial=-1), given_code.max(initial=-1))) + 1
    times_wanted = np.bincount(code[code >= 0], minlength=num_codes)
    known = given_code >= 0
    is_surplus = np.zeros(len(given_code), dtype=np.bool_)
    limit = times_wanted[given_code[known]]
    is_surplus[known] = (limit > 0) & (_occurrence(given_code)[known] >= limit)
    surplus = np.flatnonzero(is_surplus)
    return Match(
        rows=rows,
        surplus=surplus,
        surplus_first=order[np.searchsorted(in_order, given_code[surplus], side="left")],
        codes=code,
    )


def key_columns(table: pa.Table, types: Mapping[str, pa.DataType], source: str) -> pa.Table:
    """The id columns named in ``types``, converted to these types (int64 or string).

    Raises:
        DataError: a column is missing or there twice, or holds texts where integers are expected
            or vice versa.
    """
    columns = {}
    for name, expected in types.items():
        values = one_column(table, name, source)
        if is_text(values.type) != pa.types.is_string(expected):
            raise DataError(
                f"{source}: column {name!r} is {values.type}, but the log's is {expected}; "
                "write ids in the log's type"
            )
        columns[name] = (
            values.cast(expected) if is_text(expected) else _integers(values, name, source)
        )
    return pa.table(columns)


def time_column_ms(table: pa.Table, name: str, unit: str, source: str) -> pa.ChunkedArray:
    """The time column as UTC milliseconds: numbers are in the schema's ``unit``.

    Raises:
        DataError: it is missing, there twice, or neither numbers nor time stamps.
    """
    values = one_column(table, name, source)
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.timestamp("ms", values.type.tz), safe=False).cast(pa.int64())
    stamps = _integers(values, name, source)
    factor = MS_PER_UNIT[unit]
    if factor < 1:
        return pc.divide(stamps, 1000)
    return pc.multiply(stamps, int(factor))


def _integers(values: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    elif not (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise DataError(f"{source}: column {name!r} must hold whole numbers, got {values.type}")
    try:
        return values.cast(pa.int64())
    except pa.ArrowException as error:
        raise DataError(f"{source}: column {name!r} must hold whole numbers: {error}") from None


def _codes(wanted: pa.Table, given: pa.Table) -> tuple[IntArray, IntArray]:
    """Equal keys get equal codes in both tables; a key with a null gets -1."""
    frames = [table.to_pandas() for table in (wanted, given)]
    both = pd.concat(frames, ignore_index=True)
    groups = both.groupby(list(both.columns), sort=False, dropna=True).ngroup()
    codes = np.asarray(groups.fillna(-1), dtype=np.int64)
    return codes[: wanted.num_rows], codes[wanted.num_rows :]


def _occurrence(codes: IntArray) -> IntArray:
    """0, 1, 2, ... for the first, second, third row with the same code."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    places = np.arange(len(codes), dtype=np.int64)
    is_first = np.ones(len(codes), dtype=np.bool_)
    is_first[1:] = in_order[1:] != in_order[:-1]
    occurrence = np.empty(len(codes), dtype=np.int64)
    occurrence[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return occurrence
