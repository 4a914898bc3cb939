"""What users did with slates: rows of an outcomes table become one value a label and impression.

An outcomes table holds the columns that identify an impression (`key_columns`), every label column
of the schema, and the log's watch time. It may hold one row an impression, or one an event in which
the columns of the others are null.

`N` rows, `G` impressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import check_files
from ranker.data.columns import label_column, time_stamps_ms, watch_column
from ranker.data.moment_text import moment_text
from ranker.data.parquet import DataError, find_files, open_file, stream
from ranker.data.problems import BatchChecker, ProblemLog
from ranker.schema import Schema
from ranker.scoring.join.impression_keys import Keys, key_columns, keys_of, with_time_type

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """The rows of an outcomes table.

    Attributes:
        source: its path.
        table: as it was read.
        times_ms: when the feedback came, [N]; None where that is not known.
        labels: by column, NaN = none, [N].
    """

    source: str
    table: pa.Table
    keys: Keys
    times_ms: IntArray | None
    labels: dict[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergedOutcomes:
    """One entry an impression.

    Attributes:
        impressions: keys, ascending, [G].
        rows: one of each impression's rows in the outcomes table, [G].
        labels: by column, NaN = none, [G].
        num_repeated: rows that said nothing new.
    """

    impressions: IntArray
    rows: IntArray
    labels: dict[str, FloatArray]
    num_repeated: int


def outcome_columns(schema: Schema) -> list[str]:
    """The log's columns that come from outcomes: labels, and the watch time."""
    names = [task.label for task in schema.tasks]
    if schema.log.watch_time is not None:
        names.append(schema.log.watch_time)
    return list(dict.fromkeys(names))


def read_outcomes(path: Path, schema: Schema, *, outcome_time: str | None) -> Outcomes:
    """Read an outcomes table into memory: its keys, labels and time.

    Raises:
        DataError: missing columns, or values that `prepare` would not take either.
    """
    names = outcome_columns(schema)
    kinds = {
        **dict.fromkeys(key_columns(schema), "id"),
        **dict.fromkeys(names, "number"),
    }
    if schema.log.request is None:
        kinds[schema.log.time] = "time"
    if outcome_time is not None:
        kinds[outcome_time] = "time"
    _check_columns(path, kinds, names)
    tables, problems = [], ProblemLog()
    for located in stream(path, list(kinds)):
        checker = BatchChecker(located, problems)
        for task in schema.tasks:
            label_column(located.rows, task, checker)
        watch_column(located.rows, schema, checker)
        tables.append(_with_plain_columns(pa.Table.from_batches([located.rows]), names))
    if problems.problems:
        raise DataError("\n".join(problems.sentences()))
    if not tables:  # nobody did anything: still an answer
        empty = open_file(find_files(path)[0]).schema_arrow.empty_table().select(list(kinds))
        tables = [_with_plain_columns(empty, names)]
    source = str(path)
    for column in [name for name, kind in kinds.items() if kind == "time"]:
        time_type = tables[0].schema.field(column).type
        tables = [with_time_type(rows, column, time_type, schema, source) for rows in tables]
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    return Outcomes(
        source=source,
        table=table,
        keys=keys_of(table, schema, source),
        times_ms=None
        if outcome_time is None
        else _outcome_times(table, outcome_time, schema, source),
        labels={name: table.column(name).to_numpy() for name in names},
    )


def latest_outcome_ms(outcomes: Outcomes, *, now_ms: int) -> int:
    """When the latest feedback came; 0 where none says.

    Raises:
        DataError: after ``now_ms``. A single wrong clock would make every impression complete.
    """
    if outcomes.times_ms is None:
        return 0
    latest_ms = int(outcomes.times_ms.max(initial=0))
    if latest_ms > now_ms:
        raise DataError(
            f"{outcomes.source}: row {int(outcomes.times_ms.argmax())}: its feedback came at "
            f"{moment_text(latest_ms)}, which lies in the future: a clock is wrong, and the "
            "latest outcome can't tell up to when feedback is known; say it with --as-of"
        )
    return latest_ms


def merge_outcomes(outcomes: Outcomes, usable: Mask, *, latest: bool) -> MergedOutcomes:
    """Bring the usable rows [N] of each impression together; nulls give way to values.

    Args:
        outcomes: the rows.
        usable: which of them count.
        latest: of different values the latest counts; otherwise they are an error.

    Raises:
        DataError: two values of a label for one impression, unless ``latest``.
    """
    rows = np.flatnonzero(usable)
    key = outcomes.keys.impression[rows]
    times = np.zeros(len(rows), dtype=np.int64)
    if outcomes.times_ms is not None:
        times = outcomes.times_ms[rows]
    order = np.lexsort((times, key))  # stable: of one moment the table's last is the latest
    rows, key = rows[order], key[order]
    firsts = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
    labels = {}
    for name, values in outcomes.labels.items():
        labels[name], conflicting = _one_value(values[rows], firsts)
        if conflicting.any() and not latest:
            _refuse_conflict(outcomes, rows[firsts[conflicting.argmax()]], name, conflicting)
    return MergedOutcomes(
        impressions=key[firsts],
        rows=rows[firsts],
        labels=labels,
        num_repeated=len(rows) - len(firsts),
    )


def _one_value(values: FloatArray, firsts: IntArray) -> tuple[FloatArray, Mask]:
    """Each group's last value that is one, and whether it has different ones: both [G]."""
    if not len(firsts):
        return np.zeros(0), np.zeros(0, dtype=np.bool_)
    place = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.reduceat(place, firsts)
    value = np.where(last >= 0, values[last], np.nan)
    different = np.fmax.reduceat(values, firsts) != np.fmin.reduceat(values, firsts)
    return value, different & (last >= 0)


def _refuse_conflict(outcomes: Outcomes, row: int, name: str, conflicting: Mask) -> None:
    key = {part: values[int(row)].as_py() for part, values in outcomes.keys.parts.items()}
    raise DataError(
        f"{outcomes.source}: column {name!r} has different values for one impression, first for "
        f"{key} ({int(conflicting.sum()):,} impressions); write one, or give outcome_time and "
        "--set conflicts=latest"
    )


def _check_columns(path: Path, kinds: dict[str, str], labels: list[str]) -> None:
    try:
        check_files(path, kinds)
    except DataError as error:
        if "missing; the file has" not in str(error):
            raise
        raise DataError(
            f"{error}; outcomes need {list(kinds)}: nulls where a label ({labels}) was not observed"
        ) from None


def _outcome_times(table: pa.Table, column: str, schema: Schema, source: str) -> IntArray:
    values = table.column(column).combine_chunks()
    if not (pa.types.is_timestamp(values.type) or pa.types.is_integer(values.type)):
        raise DataError(
            f"{source}: column {column!r} must hold timestamps or integers, got {values.type}"
        )
    times_ms, possible = time_stamps_ms(values, schema)
    if not possible.all():
        raise DataError(
            f"{source}: row {int((~possible).argmax())}, column {column!r}: expected a time in the "
            f"schema's unit ({schema.log.time_unit}) ({int((~possible).sum()):,} such rows)"
        )
    return times_ms


def _with_plain_columns(table: pa.Table, labels: list[str]) -> pa.Table:
    """The same rows without dictionaries and with labels as float64, whatever each file has."""
    for place, field in enumerate(table.schema):
        values = table.column(place)
        if pa.types.is_dictionary(field.type):
            values = values.cast(field.type.value_type)
        if field.name in labels:
            values = pc.cast(values, pa.float64(), safe=False)  # above 2^53 the nearest, as ever
        table = table.set_column(place, field.name, values)
    return table
