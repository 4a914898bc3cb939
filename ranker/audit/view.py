"""The audited rows under their roles: codes, times and labels, without exact duplicates.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.audit.column import Column, FloatArray, IntArray, columns_of
from ranker.audit.roles import Roles
from ranker.audit.sample import LogSample
from ranker.data.row_hash import hash_rows
from ranker.schema import Owner, Schema, TaskSpec

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerColumns:
    """A user or item table: its columns, and each log row's row in it (−1 = none)."""

    columns: Mapping[str, Column]
    place: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureColumn:
    """A declared or drafted feature, joined to the log's rows.

    Attributes:
        numbers: NaN = null; None where it is a category, [N].
        codes: of its values, −1 = null, [N].
        date_ms: for a feature that is an age: the date, NaN = null, [N].
    """

    name: str
    owner: Owner
    numbers: FloatArray | None
    codes: IntArray
    date_ms: FloatArray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """What the checks look at; what the log lacks is None.

    Attributes:
        share: of the log's users (or rows) that are here.
        columns: of the rows that are left.
        user, item, request: codes, −1 = null, [N].
        time_ms: NaN where there is no moment, [N].
        positions: as logged, NaN = null, [N].
        labels: by task in the task's unit, NaN = not observed, [N].
    """

    schema: Schema
    roles: Roles
    num_rows_total: int
    num_duplicates: int
    share: float
    columns: Mapping[str, Column]
    user: IntArray | None
    item: IntArray | None
    request: IntArray | None
    time_ms: FloatArray | None
    positions: FloatArray | None
    labels: Mapping[str, FloatArray]
    features: tuple[FeatureColumn, ...]
    tables: Mapping[Owner, OwnerColumns] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())).values)


def without_duplicates(rows: pa.Table) -> pa.Table:
    """The first of each set of equal rows, in the same order."""
    if rows.num_rows == 0:
        return rows
    columns = {name: rows.column(name).combine_chunks() for name in rows.column_names}
    _, first = np.unique(hash_rows(columns), return_index=True)
    if len(first) == rows.num_rows:
        return rows
    return rows.take(pa.array(np.sort(first)))


def view_log(
    sample: LogSample,
    kept: pa.Table,
    *,
    schema: Schema,
    roles: Roles,
    tables: Mapping[Owner, pa.Table],
) -> LogView:
    """Lay ``kept``, the sample without duplicates, out by role.

    Args:
        sample: what was read.
        kept: its different rows.
        schema: the given or drafted one; columns that it names and the log lacks are passed over.
        roles: of the log's columns.
        tables: of users and items.
    """
    columns = columns_of(kept)
    joined = {owner: _join(table, schema, owner, columns) for owner, table in tables.items()}
    return LogView(
        schema=schema,
        roles=roles,
        num_rows_total=sample.num_rows_total,
        num_duplicates=sample.rows.num_rows - kept.num_rows,
        share=sample.share,
        columns=columns,
        user=_codes(columns, roles.user),
        item=_codes(columns, roles.item),
        request=_codes(columns, roles.request),
        time_ms=None if roles.time is None else columns[roles.time].time_ms,
        positions=None if roles.position is None else columns[roles.position].numbers,
        labels={
            task.name: _label(columns[task.label], task)
            for task in schema.tasks
            if task.label in columns
        },
        features=_features(columns, schema, joined),
        tables=joined,
    )


def _codes(columns: Mapping[str, Column], name: str | None) -> IntArray | None:
    return None if name is None else columns[name].codes


def _label(column: Column, task: TaskSpec) -> FloatArray:
    """In the task's unit; infinities count as not observed."""
    values = np.where(np.isfinite(column.numbers), column.numbers, np.nan)
    if task.threshold is not None:
        values = np.where(np.isnan(values), np.nan, values >= task.threshold)
    values = values * task.label_factor
    return values if task.cap is None else np.minimum(values, task.cap)


def _join(
    table: pa.Table, schema: Schema, owner: Owner, columns: Mapping[str, Column]
) -> OwnerColumns:
    key = schema.log.user if owner == "user" else schema.log.item
    num_rows = len(next(iter(columns.values())).values)
    found = columns_of(table)
    place = np.full(num_rows, -1, dtype=np.int64)
    if key in found and key in columns:
        place = _places(columns[key], found[key])
    return OwnerColumns(columns=found, place=place)


def _places(log_ids: Column, table_ids: Column) -> IntArray:
    """The first row of the table with each row's id; ids of different types never meet."""
    num_rows = len(log_ids.values)
    if log_ids.kind != table_ids.kind:
        return np.full(num_rows, -1, dtype=np.int64)
    whole = all(pa.types.is_integer(ids.values.type) for ids in (log_ids, table_ids))
    target = pa.large_string() if log_ids.kind == "text" else pa.float64()
    target = pa.int64() if whole else target
    ids = [ids.values.cast(target, safe=False) for ids in (table_ids, log_ids)]
    both = pa.concat_arrays(ids).dictionary_encode().indices
    codes = both.fill_null(-1).to_numpy(zero_copy_only=False)
    in_table, in_log = codes[: len(ids[0])], codes[len(ids[0]) :]
    first = np.full(int(codes.max(initial=-1)) + 2, -1, dtype=np.int64)  # the last: of null
    given = in_table >= 0
    first[in_table[given][::-1]] = np.flatnonzero(given)[::-1]
    return np.asarray(first[in_log])


def _features(
    columns: Mapping[str, Column], schema: Schema, tables: Mapping[Owner, OwnerColumns]
) -> tuple[FeatureColumn, ...]:
    features = []
    for spec in schema.features:
        if spec.transform == "hour" or spec.column in (schema.log.user, schema.log.item):
            continue
        table = tables.get(spec.owner)
        in_table = table is not None and spec.column in table.columns
        if not in_table and spec.column not in columns:
            continue
        if in_table and (spec.column not in columns or _is_table_feature(schema, spec.owner)):
            assert table is not None
            source, place = table.columns[spec.column], table.place
        else:
            source, place = columns[spec.column], None
        is_date = spec.transform == "age_days"
        numeric = spec.kind == "numeric" and not is_date
        features.append(
            FeatureColumn(
                name=spec.name,
                owner=spec.owner,
                numbers=_taken(source.numbers, place) if numeric else None,
                codes=_taken_codes(source.codes, place),
                date_ms=_taken(source.time_ms, place) if is_date else None,
            )
        )
    return tuple(features)


def _is_table_feature(schema: Schema, owner: Owner) -> bool:
    return schema.user_table if owner == "user" else schema.item_table


def _taken(values: FloatArray, place: IntArray | None) -> FloatArray:
    return values if place is None else np.append(values, np.nan)[place]


def _taken_codes(codes: IntArray, place: IntArray | None) -> IntArray:
    return codes if place is None else np.append(codes, -1)[place]
