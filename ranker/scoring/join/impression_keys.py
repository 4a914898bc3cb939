"""What identifies an impression in slates and in outcomes, as one number a row.

`N` rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import is_text
from ranker.data.columns import time_stamps_ms
from ranker.data.parquet import DataError
from ranker.data.row_hash import hash_rows
from ranker.schema import Schema

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keys:
    """Hashes of 64 bits: equal impressions have equal ones.

    Attributes:
        impression: request and item, [N].
        request: the log's request, or else user and time, [N].
        parts: what was hashed, by the names of `key_columns`.
    """

    impression: IntArray
    request: IntArray
    parts: dict[str, pa.Array]


def key_columns(schema: Schema) -> list[str]:
    """The log's columns that identify an impression: request and item, or user, time and item."""
    log = schema.log
    return [log.user, log.time, log.item] if log.request is None else [log.request, log.item]


def keys_of(rows: pa.Table, schema: Schema, source: str) -> Keys:
    """The keys of ``rows``.

    Raises:
        DataError: a null, or an impossible time, named with its row in ``source``.
    """
    parts = {}
    for name in key_columns(schema):
        values = rows.column(name)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if name == schema.log.time:
            values = pa.array(row_times_ms(rows, schema, source))
        _refuse(np.asarray(pc.is_null(values, nan_is_null=True)), name, "a value", source)
        parts[name] = values
    of_request = {name: values for name, values in parts.items() if name != schema.log.item}
    return Keys(impression=hash_rows(parts), request=hash_rows(of_request), parts=parts)


def row_times_ms(rows: pa.Table, schema: Schema, source: str) -> IntArray:
    """The log's time column in milliseconds, [N].

    Raises:
        DataError: null or impossible.
    """
    values = rows.column(schema.log.time)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not (pa.types.is_timestamp(values.type) or pa.types.is_integer(values.type)):
        raise DataError(
            f"{source}: column {schema.log.time!r} must hold timestamps or integers, got "
            f"{values.type}"
        )
    times_ms, possible = time_stamps_ms(values, schema)
    expected = f"a time in the schema's unit ({schema.log.time_unit})"
    _refuse(~possible, schema.log.time, expected, source)
    return times_ms


def with_time_type(
    rows: pa.Table, column: str, kind: pa.DataType, schema: Schema, source: str
) -> pa.Table:
    """``rows`` with a column of times as ``kind``; integers are in the schema's unit.

    Raises:
        DataError: a time that ``kind`` can't hold.
    """
    values = rows.column(column)
    if values.type == kind:
        return rows
    unit = pa.timestamp(schema.log.time_unit, getattr(kind, "tz", None))
    try:
        if pa.types.is_timestamp(values.type) and pa.types.is_integer(kind):
            values = values.cast(unit).cast(pa.int64())
        elif pa.types.is_integer(values.type) and pa.types.is_timestamp(kind):
            values = values.cast(pa.int64()).cast(unit)
        return rows.set_column(rows.column_names.index(column), column, values.cast(kind))
    except pa.ArrowException as error:
        raise DataError(
            f"{source}: column {column!r} is {rows.column(column).type}, but {kind} in the first "
            f"file, which can't hold its times: {error}; write all files in one type"
        ) from None


def check_same_kind(slates: Keys, outcomes: Keys) -> None:
    """Raise `DataError` if ids are texts on one side and numbers on the other: none would meet."""
    for name, values in slates.parts.items():
        other = outcomes.parts[name]
        if is_text(values.type) != is_text(other.type):
            raise DataError(
                f"column {name!r} is {values.type} in the slates and {other.type} in the outcomes; "
                "write it in one type"
            )


def _refuse(bad: npt.NDArray[np.bool_], column: str, expected: str, source: str) -> None:
    if bad.any():
        raise DataError(
            f"{source}: row {int(bad.argmax())}, column {column!r}: expected {expected} "
            f"({int(bad.sum()):,} such rows)"
        )
