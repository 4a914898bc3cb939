"""Raw tables become canonical ones: known names, known types, checked against the `Schema`.

Canonical log columns: ``user``, ``item``, ``request`` (int64 or string), ``time_ms``,
``visible_ms`` (when features may know the row's feedback), ``position`` (int32, -1 = missing),
``device``, ``label.<task>`` (float64 in the task's unit, null = not observed) and
``feature.<name>`` for the features the log itself holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.parquet import DataError, LocatedBatch, find_files, open_file, stream
from ranker.data.problems import BatchChecker, BoolArray, ProblemLog
from ranker.data.row_hash import hash_rows
from ranker.schema import MS_PER_UNIT, FeatureSpec, Owner, Schema, TaskSpec

EARLIEST_MS = 631_152_000_000  # 1990-01-01: earlier stamps are seconds taken for milliseconds
LATEST_MS = 4_102_444_800_000  # 2100-01-01
FloatArray = npt.NDArray[np.float64]
# Impressions have labels; candidates are a request and an item; requests have no item yet.
Content = Literal["impressions", "candidates", "requests"]
Quarantine = Callable[[pa.Table], None]


def log_features(schema: Schema) -> list[FeatureSpec]:
    """The declared features read from the log itself (not from a user or item table)."""
    return [f for f in schema.features if _source(schema, f) == "log"]


def table_features(schema: Schema, owner: Owner) -> list[FeatureSpec]:
    """The declared features read from the user table or the item table."""
    return [f for f in schema.features if _source(schema, f) == owner]


def _source(schema: Schema, feature: FeatureSpec) -> str:
    if feature.column in (schema.log.user, schema.log.item):
        return "log"
    if feature.owner == "user" and schema.user_table:
        return "user"
    if feature.owner == "item" and schema.item_table:
        return "item"
    return "log"


def stream_log(
    path: Path,
    schema: Schema,
    *,
    problems: ProblemLog,
    quarantine: Quarantine,
    content: Content = "impressions",
) -> Iterator[pa.Table]:
    """Yield the good rows of a log as canonical tables, in the files' order.

    Args:
        path: a Parquet file or folder.
        problems: collects what is wrong, with the first place of each kind.
        quarantine: called with the bad rows of a batch, as they came.
        content: what the rows are (`Content`).

    Raises:
        DataError: missing or retyped columns, or damaged files.
    """
    needed = _log_columns(schema, content)
    _check_files(path, needed)
    for located in stream(path):
        checker = BatchChecker(located=located, log=problems)
        columns = _canonical_log(located, schema, checker, content)
        if content == "impressions":
            columns["row_hash"] = pa.array(
                hash_rows(dict(zip(located.rows.schema.names, located.rows.columns, strict=True)))
            )
        if checker.bad.any():
            quarantine(checker.quarantined())
        yield pa.table(columns).filter(pa.array(~checker.bad))


def read_owner_table(path: Path, schema: Schema, owner: Owner) -> pa.Table:
    """Read the user or item table: column ``id`` and a ``feature.<name>`` for each feature.

    Raises:
        DataError: missing or retyped column, null, NaN or infinite value, or an id twice.
    """
    key = schema.log.user if owner == "user" else schema.log.item
    features = table_features(schema, owner)
    columns = {key: "id", **{f.column: _type_class(f) for f in features}}
    _check_files(path, columns)
    problems = ProblemLog()
    tables = []
    for located in stream(path, list(columns)):
        checker = BatchChecker(located=located, log=problems)
        canonical = {"id": _ids(located.rows.column(key), key, checker, nullable=False)}
        for feature in features:
            canonical[f"feature.{feature.name}"] = _feature(located.rows, feature, checker)
        tables.append(pa.table(canonical))
    if problems.bad_rows:
        raise DataError(f"the {owner} table is rejected:\n" + "\n".join(problems.sentences()))
    table = pa.concat_tables(tables) if tables else None
    if table is None or table.num_rows == 0:
        raise DataError(f"{path}: the {owner} table has no rows")
    ids = table.column("id").to_pandas()
    if ids.duplicated().any():
        raise DataError(
            f"{path}: column {key!r} must be unique in the {owner} table, "
            f"{ids[ids.duplicated()].tolist()[0]!r} occurs more than once"
        )
    return table


def read_earlier_history(path: Path, schema: Schema) -> pa.Table:
    """Read impressions older than the log: ``user``, ``item``, ``order``, ``label.<task>``.

    Label columns that the table lacks are all null.

    Raises:
        DataError: missing or retyped column, or a bad value.
    """
    assert schema.earlier_history is not None
    order = schema.earlier_history.order
    _check_files(path, {schema.log.user: "id", schema.log.item: "id", order: "integer"})
    problems = ProblemLog()
    tables = []
    for located in stream(path):
        rows = located.rows
        checker = BatchChecker(located=located, log=problems)
        order_values = rows.column(order)
        checker.reject(
            _mask(pc.is_null(order_values)), reason="null", column=order, expected="an integer"
        )
        columns = {
            "user": _ids(rows.column(schema.log.user), schema.log.user, checker, nullable=False),
            "item": _ids(rows.column(schema.log.item), schema.log.item, checker, nullable=False),
            "order": pc.cast(order_values, pa.int64(), safe=False),
        }
        labels = {
            task.name: _label(rows, task, checker)
            if task.label in rows.schema.names
            else pa.nulls(rows.num_rows, pa.float64())
            for task in schema.tasks
        }
        columns |= _masked_labels(labels, schema)
        tables.append(pa.table(columns))
    if problems.bad_rows:
        raise DataError("the earlier history is rejected:\n" + "\n".join(problems.sentences()))
    if not any(table.num_rows for table in tables):
        raise DataError(f"{path}: the earlier history has no rows")
    return pa.concat_tables(tables)


def read_requests(
    path: Path, schema: Schema, *, content: Literal["candidates", "requests"]
) -> pa.Table:
    """Read requests or candidates in the log's columns, without labels.

    Raises:
        DataError: any bad row: a batch job must not lose requests silently.
    """
    problems = ProblemLog()
    tables = list(
        stream_log(path, schema, problems=problems, quarantine=lambda _: None, content=content)
    )
    if problems.bad_rows:
        raise DataError(f"{path} is rejected:\n" + "\n".join(problems.sentences()))
    if not any(table.num_rows for table in tables):
        raise DataError(f"{path}: holds no rows")
    return pa.concat_tables(tables)


def _log_columns(schema: Schema, content: Content) -> dict[str, str]:
    log = schema.log
    columns = {log.user: "id", log.time: "time"}
    if content != "requests":
        columns[log.item] = "id"
    if log.request is not None:
        columns[log.request] = "id"
    if log.device is not None:
        columns[log.device] = "id"
    if content == "impressions":
        if log.position is not None:
            columns[log.position] = "integer"
        if log.watch_time is not None:
            columns[log.watch_time] = "number"
        columns |= {task.label: "number" for task in schema.tasks}
    for feature in _content_features(schema, content):
        if feature.transform != "hour":
            columns.setdefault(feature.column, _type_class(feature))
    return columns


def _content_features(schema: Schema, content: Content) -> list[FeatureSpec]:
    features = log_features(schema)
    if content == "requests":
        features = [f for f in features if f.owner in ("user", "context")]
    return features


def _type_class(feature: FeatureSpec) -> str:
    if feature.transform == "age_days":
        return "date"
    if feature.kind == "sequence":
        return "sequence"
    return "id" if feature.kind == "categorical" else "number"


def _check_files(path: Path, needed: dict[str, str]) -> None:
    """Every file has every column in a fitting type, ids in the same type in all files.

    A column of nulls only has Arrow's type null: it fits wherever numbers do.
    """
    id_kinds: dict[str, tuple[str, Path]] = {}
    for file in find_files(path):
        arrow = open_file(file).schema_arrow
        for column, type_class in needed.items():
            if column not in arrow.names:
                raise DataError(
                    f"{file}: column {column!r} is missing; the file has {sorted(arrow.names)}"
                )
            got = arrow.field(column).type
            if not _fits(got, type_class):
                raise DataError(
                    f"{file}: column {column!r} must be {_TYPE_NAMES[type_class]}, got {got}"
                )
            if type_class in ("id", "sequence"):
                kind = "text" if _is_text(_element(got)) else "number"
                first_kind, first_file = id_kinds.setdefault(column, (kind, file))
                if kind != first_kind:
                    raise DataError(
                        f"{file}: column {column!r} is {got}, but {first_kind} in {first_file}; "
                        "ids must have one type in all files"
                    )


_TYPE_NAMES = {
    "id": "an integer, boolean or text (a whole-numbered float is accepted)",
    "integer": "an integer",
    "number": "a number",
    "time": "an integer or a timestamp",
    "date": "a date, a timestamp or text like 2022-04-10",
    "sequence": "text or a list of integers or texts",
}


def _fits(got: pa.DataType, type_class: str) -> bool:
    number = pa.types.is_integer(got) or pa.types.is_floating(got) or pa.types.is_boolean(got)
    match type_class:
        case "id":
            return bool(number or _is_text(got))
        case "integer":
            return bool(pa.types.is_integer(got))
        case "number":
            return bool(number or pa.types.is_null(got))
        case "time":
            return bool(pa.types.is_integer(got) or pa.types.is_timestamp(got))
        case "date":
            return bool(pa.types.is_date(got) or pa.types.is_timestamp(got)) or _is_text(got)
        case _:
            return bool(pa.types.is_list(got) or pa.types.is_large_list(got)) or _is_text(got)


def _element(got: pa.DataType) -> pa.DataType:
    return got.value_type if pa.types.is_list(got) or pa.types.is_large_list(got) else got


def _is_text(got: pa.DataType) -> bool:
    if pa.types.is_dictionary(got):
        got = got.value_type
    return bool(
        pa.types.is_string(got) or pa.types.is_large_string(got) or pa.types.is_string_view(got)
    )


def _canonical_log(
    located: LocatedBatch, schema: Schema, checker: BatchChecker, content: Content
) -> dict[str, pa.Array]:
    rows, log = located.rows, schema.log
    columns = {"user": _ids(rows.column(log.user), log.user, checker, nullable=False)}
    if content != "requests":
        columns["item"] = _ids(rows.column(log.item), log.item, checker, nullable=False)
    if log.request is not None:
        columns["request"] = _ids(rows.column(log.request), log.request, checker, nullable=False)
    time_ms = _time_ms(rows.column(log.time), schema, checker)
    columns["time_ms"] = pa.array(time_ms)
    if log.device is not None:
        columns["device"] = _ids(rows.column(log.device), log.device, checker, nullable=True)
    if content == "impressions":
        watch_ms = _watch_ms(rows, schema, checker)
        delay_ms = round(schema.reporting_delay_s * 1000)
        columns["visible_ms"] = pa.array(time_ms + watch_ms + delay_ms)
        columns["position"] = _position(rows, schema, checker)
        labels = {task.name: _label(rows, task, checker) for task in schema.tasks}
        columns |= _masked_labels(labels, schema)
    for feature in _content_features(schema, content):
        if feature.transform != "hour" and feature.column not in (log.user, log.item):
            columns[f"feature.{feature.name}"] = _feature(rows, feature, checker)
    return columns


def _ids(values: pa.Array, column: str, checker: BatchChecker, *, nullable: bool) -> pa.Array:
    """Ids as int64 or string, never float; bad rows hold null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not nullable:
        nulls = _mask(pc.is_null(values, nan_is_null=True))
        checker.reject(nulls, reason="null", column=column, expected="an id")
    if _is_text(values.type):
        return pc.cast(values, pa.string())
    if pa.types.is_floating(values.type):
        numbers = _floats(values)
        whole = np.isnan(numbers) | ((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53))
        checker.reject(~whole, reason="not a whole number", column=column, expected="an id")
        usable = whole & ~np.isnan(numbers)
        integers = np.where(usable, numbers, 0).astype(np.int64)
        return pa.array(integers, mask=~usable)
    if values.type == pa.uint64():
        large = _mask(pc.greater(values, pa.scalar(2**63 - 1, pa.uint64())))
        checker.reject(large, reason="too large", column=column, expected="an id below 2**63")
        values = pc.if_else(pa.array(large), pa.scalar(None, pa.uint64()), values)
    return pc.cast(values, pa.int64())


def _time_ms(values: pa.Array, schema: Schema, checker: BatchChecker) -> npt.NDArray[np.int64]:
    column, unit = schema.log.time, schema.log.time_unit
    nulls = _mask(pc.is_null(values))
    checker.reject(nulls, reason="null", column=column, expected="a time stamp")
    if pa.types.is_timestamp(values.type):
        values = pc.cast(values, pa.timestamp("ms", values.type.tz), safe=False)
        raw, factor = pc.fill_null(pc.cast(values, pa.int64()), 0), 1.0
    else:
        raw, factor = pc.fill_null(pc.cast(values, pa.int64(), safe=False), 0), MS_PER_UNIT[unit]
    stamps: npt.NDArray[np.int64] = raw.to_numpy(zero_copy_only=False)
    scaled = stamps.astype(np.float64) * factor
    impossible = ~nulls & ((scaled < EARLIEST_MS) | (scaled >= LATEST_MS))
    checker.reject(
        impossible,
        reason="impossible time stamp",
        column=column,
        expected=f"a time between 1990 and 2100 in the schema's unit ({unit})",
    )
    stamps = np.where(impossible | nulls, 0, stamps)
    return stamps // 1000 if factor < 1 else stamps * int(factor)


def _watch_ms(rows: pa.RecordBatch, schema: Schema, checker: BatchChecker) -> npt.NDArray[np.int64]:
    """Watch time in ms; a null is no watch and delays nothing."""
    column = schema.log.watch_time
    if column is None:
        return np.zeros(rows.num_rows, dtype=np.int64)
    watch = _floats(rows.column(column)) * MS_PER_UNIT[schema.log.watch_time_unit]
    given = ~_mask(pc.is_null(rows.column(column)))
    with np.errstate(invalid="ignore"):
        checker.reject(
            given & (watch < 0), reason="negative watch time", column=column, expected="0 or more"
        )
        checker.reject(
            given & ~(watch < 1e13), reason="NaN or infinite", column=column, expected="a duration"
        )
        usable = given & (watch >= 0) & (watch < 1e13)
    return np.where(usable, watch, 0).round().astype(np.int64)


def _position(rows: pa.RecordBatch, schema: Schema, checker: BatchChecker) -> pa.Array:
    """0-based position, -1 where the log has none; deeper ones share the last position."""
    column = schema.log.position
    if column is None:
        return pa.array(np.full(rows.num_rows, -1, dtype=np.int32))
    given = ~_mask(pc.is_null(rows.column(column)))
    # Cast first: an unsigned column can't hold -1. A wrapped huge value is negative: rejected.
    integers = pc.cast(rows.column(column), pa.int64(), safe=False)
    raw = pc.fill_null(integers, -1).to_numpy(zero_copy_only=False)
    checker.reject(given & (raw < 0), reason="negative", column=column, expected="positions from 0")
    return pa.array(np.minimum(raw, schema.max_positions - 1).astype(np.int32))


def _label(rows: pa.RecordBatch, task: TaskSpec, checker: BatchChecker) -> pa.Array:
    """A label in the task's unit; null = not observed, NaN is an error."""
    values = rows.column(task.label)
    observed = ~_mask(pc.is_null(values))
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
        maximum = np.inf if task.maximum is None else task.maximum
        wrong = (label < task.minimum) | (label > maximum)
        expected = f"{task.minimum:g} .. {maximum:g} after the factor {task.label_factor:g}"
    wrong &= observed & finite
    checker.reject(wrong, reason="out of range", column=task.label, expected=expected)
    if task.cap is not None:
        label = np.minimum(label, task.cap)
    return pa.array(label, mask=~(observed & finite))


def _masked_labels(labels: dict[str, pa.Array], schema: Schema) -> dict[str, pa.Array]:
    """Conditional tasks are observed only where their condition happened."""
    masked = dict(labels)
    for task in schema.tasks:
        if task.conditional_on is not None:
            happened = pc.fill_null(pc.equal(labels[task.conditional_on], 1.0), False)
            masked[task.name] = pc.if_else(
                happened, labels[task.name], pa.scalar(None, pa.float64())
            )
    return {f"label.{name}": values for name, values in masked.items()}


def _feature(rows: pa.RecordBatch, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    values, column = rows.column(feature.column), feature.column
    if feature.transform == "age_days":
        return _date_ms(values, feature, checker)
    if feature.kind == "categorical":
        return _ids(values, column, checker, nullable=feature.nullable)
    if feature.kind == "sequence":
        return _sequence(values, feature, checker)
    given = ~_mask(pc.is_null(values))
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
    usable = given & np.isfinite(numbers)
    return pa.array(np.where(usable, numbers, 0.0), mask=~usable)


def _date_ms(values: pa.Array, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    given = ~_mask(pc.is_null(values))
    if _is_text(values.type):
        parsed = pd.to_datetime(values.to_pandas(), errors="coerce", format="ISO8601", utc=True)
        dates = pa.array(parsed.dt.as_unit("ms"), pa.timestamp("ms", "UTC"))
    else:
        dates = pc.cast(values, pa.timestamp("ms", getattr(values.type, "tz", None)), safe=False)
    bad = given & _mask(pc.is_null(dates))
    checker.reject(bad, reason="not a date", column=feature.column, expected="like 2022-04-10")
    if not feature.nullable:
        checker.reject(~given, reason="null", column=feature.column, expected="a date")
    return pc.cast(dates, pa.int64())


def _sequence(values: pa.Array, feature: FeatureSpec, checker: BatchChecker) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not feature.nullable:
        nulls = _mask(pc.is_null(values))
        checker.reject(nulls, reason="null", column=feature.column, expected="a sequence")
    if _is_text(values.type):
        if not feature.separator:
            raise DataError(
                f"{checker.located.file}: column {feature.column!r} is text; "
                f"the schema's feature {feature.name!r} needs a separator"
            )
        text = pc.cast(values, pa.string())
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)  # no elements
        return pc.cast(pc.split_pattern(text, feature.separator), _list_of(pa.string()))
    element = values.type.value_type
    if not (pa.types.is_integer(element) or _is_text(element)):
        raise DataError(
            f"{checker.located.file}: column {feature.column!r} must hold lists of integers or "
            f"texts, got {values.type}"
        )
    return pc.cast(values, _list_of(pa.string() if _is_text(element) else pa.int64()))


def _list_of(element: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", element))  # Parquet's name, so that reading keeps the type


def _floats(values: pa.Array) -> FloatArray:
    floats: FloatArray = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return floats


def _mask(values: pa.Array) -> BoolArray:
    mask: BoolArray = values.to_numpy(zero_copy_only=False)
    return mask
