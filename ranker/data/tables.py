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
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import check_files, type_class
from ranker.data.columns import (
    feature_column,
    id_column,
    label_column,
    mask,
    masked_labels,
    position_column,
    time_column,
    time_stamps_ms,
    watch_column,
)
from ranker.data.parallel import map_stream
from ranker.data.parquet import DataError, LocatedBatch, stream
from ranker.data.problems import BatchChecker, ProblemLog
from ranker.data.row_hash import hash_rows
from ranker.schema import FeatureSpec, Owner, Schema

# Impressions have labels; candidates are a request and an item; requests have no item yet.
Content = Literal["impressions", "candidates", "requests"]
MAX_ORDER = 2.0**62
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
    check_files(path, _log_columns(schema, content))

    def convert(located: LocatedBatch) -> tuple[pa.Table, BatchChecker]:
        checker = BatchChecker(located=located, log=ProblemLog())
        columns = _canonical_log(located, schema, checker, content)
        if content == "impressions":
            columns["row_hash"] = pa.array(hash_log_rows(located.rows, schema))
        rows = pa.table(columns)
        return (rows.filter(pa.array(~checker.bad)) if checker.bad.any() else rows), checker

    for rows, checker in map_stream(convert, stream(path)):
        problems.merge(checker.log)
        if checker.bad.any():
            quarantine(checker.quarantined())
        yield rows


def hash_log_rows(rows: pa.RecordBatch, schema: Schema) -> npt.NDArray[np.int64]:
    """Hash of raw rows [N]; times count in ms, however a file writes them down."""
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    times_ms, _ = time_stamps_ms(columns[schema.log.time], schema)
    return hash_rows(columns | {schema.log.time: pa.array(times_ms)})


def check_candidate_files(path: Path, schema: Schema) -> None:
    """Raise `DataError` unless every file has the columns of candidates in fitting types."""
    check_files(path, _log_columns(schema, "candidates"))


def candidate_columns(schema: Schema) -> list[str]:
    """The raw columns that candidate rows are read from."""
    return list(_log_columns(schema, "candidates"))


def convert_candidates(located: LocatedBatch, schema: Schema, problems: ProblemLog) -> pa.Table:
    """One batch of candidates as a canonical table; ``problems`` gets what is wrong with it."""
    checker = BatchChecker(located=located, log=problems)
    return pa.table(_canonical_log(located, schema, checker, "candidates"))


def request_columns(schema: Schema) -> list[str]:
    """The raw columns that tell requests apart: the request's, else user and time."""
    log = schema.log
    return [log.user, log.time] if log.request is None else [log.request]


def convert_request_keys(
    located: LocatedBatch, schema: Schema, problems: ProblemLog
) -> dict[str, pa.Array]:
    """What tells the requests of a batch apart, canonical; reads `request_columns` alone."""
    checker = BatchChecker(located=located, log=problems)
    log, rows = schema.log, located.rows
    if log.request is not None:
        values = id_column(rows.column(log.request), log.request, checker, nullable=False)
        return {"request": values}
    return {
        "user": id_column(rows.column(log.user), log.user, checker, nullable=False),
        "time_ms": pa.array(time_column(rows.column(log.time), schema, checker)),
    }


def read_owner_table(path: Path, schema: Schema, owner: Owner) -> pa.Table:
    """Read the user or item table: column ``id`` and a ``feature.<name>`` for each feature.

    Raises:
        DataError: missing or retyped column, null, NaN or infinite value, or an id twice.
    """
    key = schema.log.user if owner == "user" else schema.log.item
    features = table_features(schema, owner)
    columns = {key: "id", **{f.column: type_class(f) for f in features}}
    check_files(path, columns)
    problems = ProblemLog()
    tables = []
    for located in stream(path, list(columns)):
        checker = BatchChecker(located=located, log=problems)
        canonical = {"id": id_column(located.rows.column(key), key, checker, nullable=False)}
        for feature in features:
            canonical[f"feature.{feature.name}"] = feature_column(located.rows, feature, checker)
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
    needed = {schema.log.user: "id", schema.log.item: "id", order: "integer"}
    check_files(path, needed, optional={task.label: "number" for task in schema.tasks})
    problems = ProblemLog()
    tables = []
    for located in stream(path):
        rows = located.rows
        checker = BatchChecker(located=located, log=problems)
        order_values = rows.column(order)
        checker.reject(
            mask(pc.is_null(order_values)), reason="null", column=order, expected="an integer"
        )
        size = pc.cast(order_values, pa.float64(), safe=False)
        checker.reject(
            mask(pc.fill_null(pc.greater(size, MAX_ORDER), False)),
            reason="too large",
            column=order,
            expected=f"at most {MAX_ORDER:.0f}",
        )
        columns = {
            "user": id_column(
                rows.column(schema.log.user), schema.log.user, checker, nullable=False
            ),
            "item": id_column(
                rows.column(schema.log.item), schema.log.item, checker, nullable=False
            ),
            "order": pc.cast(order_values, pa.int64(), safe=False),
        }
        labels = {
            task.name: label_column(rows, task, checker)
            if task.label in rows.schema.names
            else pa.nulls(rows.num_rows, pa.float64())
            for task in schema.tasks
        }
        columns |= masked_labels(labels, schema)
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
            columns.setdefault(feature.column, type_class(feature))
    return columns


def _content_features(schema: Schema, content: Content) -> list[FeatureSpec]:
    features = log_features(schema)
    if content == "requests":
        features = [f for f in features if f.owner in ("user", "context")]
    return features


def _canonical_log(
    located: LocatedBatch, schema: Schema, checker: BatchChecker, content: Content
) -> dict[str, pa.Array]:
    rows, log = located.rows, schema.log
    columns = {"user": id_column(rows.column(log.user), log.user, checker, nullable=False)}
    if content != "requests":
        columns["item"] = id_column(rows.column(log.item), log.item, checker, nullable=False)
    if log.request is not None:
        columns["request"] = id_column(
            rows.column(log.request), log.request, checker, nullable=False
        )
    time_ms = time_column(rows.column(log.time), schema, checker)
    columns["time_ms"] = pa.array(time_ms)
    if log.device is not None:
        columns["device"] = id_column(rows.column(log.device), log.device, checker, nullable=True)
    if content == "impressions":
        watch_ms = watch_column(rows, schema, checker)
        delay_ms = round(schema.reporting_delay_s * 1000)
        columns["visible_ms"] = pa.array(time_ms + watch_ms + delay_ms)
        columns["position"] = position_column(rows, schema, checker)
        labels = {task.name: label_column(rows, task, checker) for task in schema.tasks}
        columns |= masked_labels(labels, schema)
    for feature in _content_features(schema, content):
        if feature.transform != "hour" and feature.column not in (log.user, log.item):
            columns[f"feature.{feature.name}"] = feature_column(rows, feature, checker)
    return columns
