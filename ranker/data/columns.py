"""One raw column becomes a canonical one; what can't be is reported, and its rows are bad."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import is_text
from ranker.data.parquet import DataError
from ranker.data.problems import BatchChecker, BoolArray
from ranker.schema import MS_PER_UNIT, FeatureSpec, Schema, TaskSpec

EARLIEST_MS = 631_152_000_000  # 1990-01-01: earlier stamps are seconds taken for milliseconds
LATEST_MS = 4_102_444_800_000  # 2100-01-01
LARGEST = float(np.finfo(np.float32).max)  # the store has float32
FloatArray = npt.NDArray[np.float64]


def id_column(values: pa.Array, column: str, checker: BatchChecker, *, nullable: bool) -> pa.Array:
    """Ids as int64 or string, never float; bad rows hold null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not nullable:
        nulls = mask(pc.is_null(values, nan_is_null=True))
        checker.reject(nulls, reason="null", column=column, expected="an id")
    if is_text(values.type):
        return pc.cast(values, pa.string())
    if pa.types.is_floating(values.type):
        numbers = _floats(values)
        whole = np.isnan(numbers) | ((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53))
        checker.reject(~whole, reason="not a whole number", column=column, expected="an id")
        usable = whole & ~np.isnan(numbers)
        integers = np.where(usable, numbers, 0).astype(np.int64)
        return pa.array(integers, mask=~usable)
    if values.type == pa.uint64():
        large = mask(_too_large(values))
        checker.reject(large, reason="too large", column=column, expected="an id below 2**63")
        values = pc.if_else(pa.array(large), pa.scalar(None, pa.uint64()), values)
    return pc.cast(values, pa.int64())


def time_column(values: pa.Array, schema: Schema, checker: BatchChecker) -> npt.NDArray[np.int64]:
    """UTC milliseconds; 0 where there is none."""
    column = schema.log.time
    checker.reject(mask(pc.is_null(values)), reason="null", column=column, expected="a time stamp")
    stamps, possible = time_stamps_ms(values, schema)
    checker.reject(
        ~possible & mask(pc.is_valid(values)),
        reason="impossible time stamp",
        column=column,
        expected=f"a time between 1990 and 2100 in the schema's unit ({schema.log.time_unit})",
    )
    return stamps


def time_stamps_ms(values: pa.Array, schema: Schema) -> tuple[npt.NDArray[np.int64], BoolArray]:
    """UTC milliseconds, and whether there is one; 0 where it is null or impossible."""
    factor = MS_PER_UNIT[schema.log.time_unit]
    if pa.types.is_timestamp(values.type):
        values, factor = pc.cast(values, pa.timestamp("ms", values.type.tz), safe=False), 1.0
    raw = pc.fill_null(pc.cast(values, pa.int64(), safe=False), 0)
    stamps: npt.NDArray[np.int64] = raw.to_numpy(zero_copy_only=False)
    scaled = stamps.astype(np.float64) * factor
    possible = (scaled >= EARLIEST_MS) & (scaled < LATEST_MS)
    stamps = np.where(possible, stamps, 0)
    return (stamps // 1000 if factor < 1 else stamps * int(factor)), possible


def watch_column(
    rows: pa.RecordBatch, schema: Schema, checker: BatchChecker
) -> npt.NDArray[np.int64]:
    """Watch time in ms; a null is no watch and delays nothing."""
    column = schema.log.watch_time
    if column is None:
        return np.zeros(rows.num_rows, dtype=np.int64)
    watch = _floats(rows.column(column)) * MS_PER_UNIT[schema.log.watch_time_unit]
    given = ~mask(pc.is_null(rows.column(column)))
    with np.errstate(invalid="ignore"):
        checker.reject(
            given & (watch < 0), reason="negative watch time", column=column, expected="0 or more"
        )
        checker.reject(
            given & ~(watch < 1e13), reason="no duration", column=column, expected="under 300 years"
        )
        usable = given & (watch >= 0) & (watch < 1e13)
    return np.where(usable, watch, 0).round().astype(np.int64)


def position_column(rows: pa.RecordBatch, schema: Schema, checker: BatchChecker) -> pa.Array:
    """0-based position, -1 where the log has none; deeper ones share the last position."""
    column = schema.log.position
    if column is None:
        return pa.array(np.full(rows.num_rows, -1, dtype=np.int32))
    given = ~mask(pc.is_null(rows.column(column)))
    # Cast first: an unsigned column can't hold -1. A wrapped huge value is negative: rejected.
    integers = pc.cast(rows.column(column), pa.int64(), safe=False)
    raw = pc.fill_null(integers, -1).to_numpy(zero_copy_only=False)
    checker.reject(given & (raw < 0), reason="negative", column=column, expected="positions from 0")
    return pa.array(np.minimum(raw, schema.max_positions - 1).astype(np.int32))


def label_column(rows: pa.RecordBatch, task: TaskSpec, checker: BatchChecker) -> pa.Array:
    """A label in the task's unit; null = not observed, NaN is an error."""
    values = rows.column(task.label)
    observed = ~mask(pc.is_null(values))
    raw = _floats(values)
    finite = np.isfinite(raw)
    checker.reject(
        observed & np.isnan(raw), reason="NaN", column=task.label, expected="a number or null"
    )
    checker.reject(
        observed & np.isinf(raw), reason="infinite", column=task.label, expected="a number or null"
    )
    label = np.where(finite, raw, 0.0)
    if task.threshold is not None:
        label = (label >= task.threshold).astype(np.float64)
    label *= task.label_factor
    if task.kind == "binary":
        wrong, expected = (label != 0) & (label != 1), "0 or 1"
    else:
        maximum = LARGEST if task.maximum is None else min(task.maximum, LARGEST)
        wrong = (label < max(task.minimum, -LARGEST)) | (label > maximum)
        expected = f"{task.minimum:g} .. {maximum:g} after the factor {task.label_factor:g}"
    wrong &= observed & finite
    checker.reject(wrong, reason="out of range", column=task.label, expected=expected)
    if task.cap is not None:
        label = np.minimum(label, task.cap)
    return pa.array(label, mask=~(observed & finite))


def masked_labels(labels: dict[str, pa.Array], schema: Schema) -> dict[str, pa.Array]:
    """Conditional tasks are observed only where their condition happened."""
    masked = dict(labels)
    for task in schema.tasks:
        if task.conditional_on is not None:
            happened = pc.fill_null(pc.equal(labels[task.conditional_on], 1.0), False)
            masked[task.name] = pc.if_else(
                happened, labels[task.name], pa.scalar(None, pa.float64())
            )
    return {f"label.{name}": values for name, values in masked.items()}


def feature_column(rows: pa.RecordBatch, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    """A declared feature: ids, lists of ids, numbers, or dates in ms; not transformed yet."""
    values, column = rows.column(feature.column), feature.column
    if feature.transform == "age_days":
        return _date_ms(values, feature, checker)
    if feature.kind == "categorical":
        return id_column(values, column, checker, nullable=feature.nullable)
    if feature.kind == "sequence":
        return _sequence(values, feature, checker)
    given = ~mask(pc.is_null(values))
    numbers = _floats(values)
    if not feature.nullable:
        checker.reject(~given, reason="null", column=column, expected="a number")
    checker.reject(
        given & np.isnan(numbers), reason="NaN", column=column, expected="a number or null"
    )
    checker.reject(
        given & np.isinf(numbers), reason="infinite", column=column, expected="a finite number"
    )
    if feature.transform == "log1p":
        with np.errstate(invalid="ignore"):
            checker.reject(
                given & (numbers < 0), reason="negative", column=column, expected="0 or more"
            )
    huge = np.isfinite(numbers) & (np.abs(numbers) > LARGEST)
    checker.reject(
        given & huge, reason="too large", column=column, expected=f"at most {LARGEST:.2g} in size"
    )
    usable = given & np.isfinite(numbers) & ~huge
    return pa.array(np.where(usable, numbers, 0.0), mask=~usable)


def _date_ms(values: pa.Array, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    given = ~mask(pc.is_null(values))
    if is_text(values.type):
        parsed = pd.to_datetime(values.to_pandas(), errors="coerce", format="ISO8601", utc=True)
        dates = pa.array(parsed.dt.as_unit("ms"), pa.timestamp("ms", "UTC"))
    else:
        dates = pc.cast(values, pa.timestamp("ms", getattr(values.type, "tz", None)), safe=False)
    bad = given & mask(pc.is_null(dates))
    checker.reject(bad, reason="not a date", column=feature.column, expected="like 2022-04-10")
    if not feature.nullable:
        checker.reject(~given, reason="null", column=feature.column, expected="a date")
    return pc.cast(dates, pa.int64())


def _sequence(values: pa.Array, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not feature.nullable:
        nulls = mask(pc.is_null(values))
        checker.reject(nulls, reason="null", column=feature.column, expected="a sequence")
    if is_text(values.type):
        if not feature.separator:
            raise DataError(
                f"{checker.located.file}: column {feature.column!r} is text; "
                f"the schema's feature {feature.name!r} needs a separator"
            )
        text = pc.cast(values, pa.string())
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)  # no elements
        return pc.cast(pc.split_pattern(text, feature.separator), _list_of(pa.string()))
    element = values.type.value_type
    if not (pa.types.is_integer(element) or is_text(element)):
        raise DataError(
            f"{checker.located.file}: column {feature.column!r} must hold lists of integers or "
            f"texts, got {values.type}"
        )
    if element == pa.uint64():
        values = _without_large(values, feature, checker)
    return pc.cast(values, _list_of(pa.string() if is_text(element) else pa.int64()))


def _without_large(values: pa.Array, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    """Lists of numbers that int64 can hold; others are reported, and null."""
    large = mask(_too_large(values.flatten()))
    bad = np.zeros(len(values), dtype=np.bool_)
    bad[pc.list_parent_indices(values).to_numpy()[large]] = True
    checker.reject(bad, reason="too large", column=feature.column, expected="ids below 2**63")
    return pc.if_else(pa.array(bad), pa.scalar(None, values.type), values)


def _too_large(numbers: pa.Array) -> pa.Array:
    return pc.fill_null(pc.greater(numbers, pa.scalar(2**63 - 1, pa.uint64())), False)


def _list_of(element: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", element))  # Parquet's name, so that reading keeps the type


def _floats(values: pa.Array) -> FloatArray:
    floats: FloatArray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def mask(values: pa.Array) -> BoolArray:
    """A boolean Arrow array without nulls as NumPy's."""
    flags: BoolArray = values.to_numpy(zero_copy_only=False)
    return flags
