"""Columns of an outcomes table become numpy arrays, each checked where it is read.

Shapes: ``N`` rows of a batch.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.parquet import DataError
from ranker.experiment.effect import FloatArray

IntArray = NDArray[np.int64]
MAX_SLICE_VALUES = 50
_EXAMPLES = 3
_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeBatch:
    """Some rows and where they are from: ``source`` and the number of the first one in it."""

    source: str
    first_row: int
    rows: pa.RecordBatch

    def column(self, name: str) -> pa.Array:
        """One column, dictionaries decoded."""
        values = self.rows.column(name)
        if pa.types.is_dictionary(values.type):
            return values.cast(values.type.value_type)
        return values

    def row(self, index: int) -> str:
        """Name a row, for a message."""
        return f"{self.source}, row {self.first_row + index}"


def user_ids(batch: OutcomeBatch, name: str) -> pa.Array:
    """Ids as 64-bit integers or as strings.

    Raises:
        DataError: another type, or a missing id.
    """
    values = batch.column(name)
    if values.null_count:
        place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{batch.row(place)}: column {name!r}: the user is missing")
    if pa.types.is_integer(values.type):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            raise DataError(f"{batch.source}: column {name!r}: ids must be below 2**63") from None
    if _is_text(values.type):
        return values.cast(pa.large_string())
    raise DataError(
        f"{batch.source}: column {name!r}: expected integers or strings, got {values.type}; a "
        "float column of ids comes from missing values: drop those rows"
    )


def day_numbers(batch: OutcomeBatch, name: str) -> IntArray:
    """Days as whole numbers, dates as days since 1970, [N].

    Raises:
        DataError: neither dates nor whole numbers, or a missing day.
    """
    values = batch.column(name)
    if values.null_count:
        place = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{batch.row(place)}: column {name!r}: the day is missing")
    if pa.types.is_integer(values.type):
        return _int64(values)
    if holds_dates(values.type):
        try:
            return _int64(values.cast(pa.date32()).cast(pa.int32()))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{batch.source}: column {name!r}: expected dates such as 2026-03-09: {error}"
            ) from None
    raise DataError(
        f"{batch.source}: column {name!r}: expected dates (also as text, or time stamps without a "
        f"time zone) or whole numbers, got {values.type}"
    )


def holds_dates(kind: pa.DataType) -> bool:
    """Whether a column of days of this type is read as dates."""
    local_time = pa.types.is_timestamp(kind) and kind.tz is None
    return bool(pa.types.is_date(kind) or local_time or _is_text(kind))


def first_day(batch: OutcomeBatch, name: str, *, start: datetime.date | int) -> int:
    """The experiment's first day as `day_numbers` counts.

    Raises:
        DataError: a date where the column has numbers, or the other way round.
    """
    wants_date = isinstance(start, datetime.date)
    if wants_date != holds_dates(batch.column(name).type):
        raise DataError(
            f"{batch.source}: column {name!r} holds {'whole numbers' if wants_date else 'dates'}, "
            f"but start is {start}; write start as the column does"
        )
    return (start - _EPOCH).days if isinstance(start, datetime.date) else start


def day_label(day: int, *, is_date: bool) -> str:
    """A day for people."""
    if not is_date:
        return str(day)
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def arm_codes(
    batch: OutcomeBatch, name: str, *, arms: Sequence[str], needed: NDArray[np.bool_]
) -> IntArray:
    """Place in ``arms`` of each row that is ``needed`` [N], −1 elsewhere, [N].

    Raises:
        DataError: a needed row with an unknown arm or none.
    """
    encoded = batch.column(name).cast(pa.string()).dictionary_encode()
    names = [*encoded.dictionary.to_pylist(), None]
    indices = _int64(pc.fill_null(encoded.indices, len(names) - 1))
    known = np.array([arms.index(one) if one in arms else -1 for one in names])
    codes: IntArray = np.where(needed, known[indices], -1)
    wrong = needed & (codes < 0)
    if wrong.any():
        found = [repr(names[i] or "no arm") for i in np.unique(indices[wrong]).tolist()]
        place = int(np.argmax(wrong))
        raise DataError(
            f"{batch.row(place)}: column {name!r}: expected one of {list(arms)}, got "
            f"{', '.join(found[:_EXAMPLES])}; name the arm in share_by_arm, or leave its rows out"
        )
    return codes


def metric_values(batch: OutcomeBatch, name: str, *, can_be_negative: bool) -> FloatArray:
    """A metric's values, NaN where null: not observed, [N].

    Raises:
        DataError: not numbers, an infinite value, or a negative one where there can't be any.
    """
    values = batch.column(name)
    kind = values.type
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise DataError(f"{batch.source}: column {name!r}: expected numbers, got {kind}")
    try:
        numbers: FloatArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        raise DataError(
            f"{batch.source}: column {name!r}: holds whole numbers beyond 2**53, which would be "
            "rounded; give smaller ones, or floats"
        ) from None
    infinite = np.isinf(numbers)
    if infinite.any():
        place = int(np.argmax(infinite))
        raise DataError(
            f"{batch.row(place)}: column {name!r}: expected finite values, got {numbers[place]}; "
            "null stands for what was not observed"
        )
    if not can_be_negative and (numbers < 0).any():
        place = int(np.argmax(numbers < 0))
        raise DataError(
            f"{batch.row(place)}: column {name!r}: expected values >= 0, got {numbers[place]:g}; "
            "a metric that can be negative says can_be_negative: true"
        )
    return numbers


def slice_codes(batch: OutcomeBatch, name: str, *, codes: dict[str, int]) -> IntArray:
    """Number each row's slice, [N]; a new value gets the next number in ``codes``.

    Raises:
        DataError: more than `MAX_SLICE_VALUES` values: that is no slice but an id or a number.
    """
    encoded = batch.column(name).cast(pa.string()).dictionary_encode()
    names = [*encoded.dictionary.to_pylist(), None]
    indices = _int64(pc.fill_null(encoded.indices, len(names) - 1))
    for index in np.unique(indices).tolist():
        codes.setdefault(_slice_name(names[index]), len(codes))
    if len(codes) > MAX_SLICE_VALUES:
        raise DataError(
            f"{batch.source}: column {name!r} has more than {MAX_SLICE_VALUES} values; a slice "
            "needs few: group them first"
        )
    places: IntArray = np.array([codes.get(_slice_name(one), -1) for one in names])
    return places[indices]


def _slice_name(value: str | None) -> str:
    return "(missing)" if value is None else value


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _int64(values: pa.Array) -> IntArray:
    numbers: IntArray = values.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers
