"""What a log holds and what is wrong with it: one streaming look that writes no data.

Memory grows with the users and items, and with the sample on which label copies are looked for,
not with the rows; the rows are sorted as `prepare` sorts them, with spill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.features import OwnerTable
from ranker.data.leakage import SampledRows, Suspect, find_future_times, find_label_copies
from ranker.data.parquet import BATCH_ROWS
from ranker.data.period_statistics import OwnerHalves, find_period_statistics, middle_ms
from ranker.data.prepare import LabelSummary
from ranker.data.problems import ProblemLog
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time
from ranker.data.tables import log_features, stream_log, table_features
from ranker.data.vocabulary import Vocabulary
from ranker.data.windows import window_labels
from ranker.schema import Owner, Schema

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MS_PER_HOUR = 3_600_000
WATCH_TIME = "watch time"


@dataclass(slots=True, kw_only=True)
class LogSurvey:
    """What was read, and what was found in the good rows without exact duplicates.

    Attributes:
        rows_out_of_order: good rows older than one before them in the files.
        first_ms, last_ms: the time range (0 without rows).
        rows_without_owner: rows whose user (item) is not in its table.
        nulls: rows in which a nullable feature is null, also for want of a row in its table.
        rows_sampled: on how many rows label copies and future times were looked for.
    """

    problems: ProblemLog = field(default_factory=ProblemLog)
    rows_read: int = 0
    rows_kept: int = 0
    exact_duplicates: int = 0
    rows_out_of_order: int = 0
    first_ms: int = 0
    last_ms: int = 0
    users: int = 0
    items: int = 0
    rows_by_window: dict[str, int] = field(default_factory=dict)
    rows_without_owner: dict[str, int] = field(default_factory=dict)
    labels: dict[str, LabelSummary] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)
    rows_sampled: int = 0
    suspects: list[Suspect] = field(default_factory=list)


def survey_log(
    log: Path,
    schema: Schema,
    *,
    tables: dict[Owner, OwnerTable],
    sample_rows: int,
    sort_rows: int,
    spill: Path,
) -> LogSurvey:
    """Read a whole log, count what it holds and look for leaks.

    Args:
        log: a Parquet file or folder.
        schema: what it means.
        tables: the user and item table; features of one not given are not looked at.
        sample_rows: about how many rows, of whole users, are kept to look for label copies.
        sort_rows: rows sorted in memory at a time; more are spilled to disk.
        spill: an existing folder for that.

    Raises:
        DataError: missing or retyped columns, or damaged files.
    """
    survey = LogSurvey(labels={task.name: LabelSummary() for task in schema.tasks})
    rows_by_hour: Counter[int] = Counter()
    duplicates = DuplicateCount()
    reader = _read(log, schema, survey, rows_by_hour)
    pieces: list[pa.Table] = []
    halves: dict[Owner, OwnerHalves] = {}
    ids: dict[Owner, Vocabulary] = {"user": Vocabulary(), "item": Vocabulary()}
    # Everything is read before the first sorted row comes, so that middle and total are known.
    for table in sort_by_time(reader, spill=spill, run_rows=sort_rows, duplicates=duplicates):
        if not halves:
            split_ms = middle_ms(rows_by_hour)
            names = [task.name for task in schema.tasks]
            halves = {owner: OwnerHalves(names, split_ms=split_ms) for owner in ids}
        share = sample_rows / sum(rows_by_hour.values())
        for start in range(0, table.num_rows, BATCH_ROWS):
            rows = table.slice(start, BATCH_ROWS)
            joined = _join(rows, schema, tables, survey)
            _count(rows, joined, survey, schema)
            _add_to_halves(rows, ids, halves, schema)
            pieces.append(_sampled(joined, share=share))
    survey.exact_duplicates = duplicates.rows
    survey.users, survey.items = len(ids["user"]) - 1, len(ids["item"]) - 1
    if pieces:
        _look_for_leaks(pa.concat_tables(pieces), schema, survey)
        for owner, table in tables.items():
            features = _owner_numbers(table, ids[owner], schema, owner)
            survey.suspects += find_period_statistics(halves[owner], features)
    return survey


def _read(
    log: Path, schema: Schema, survey: LogSurvey, rows_by_hour: Counter[int]
) -> Iterator[Arrival]:
    newest_ms = 0
    for table in stream_log(log, schema, problems=survey.problems, quarantine=lambda _: None):
        time_ms = np.asarray(table.column("time_ms").to_numpy())
        newest = np.maximum.accumulate(np.concatenate([[newest_ms], time_ms]))
        survey.rows_out_of_order += int((time_ms < newest[:-1]).sum())
        newest_ms = int(newest[-1])
        hours, counts = np.unique(time_ms // MS_PER_HOUR, return_counts=True)
        rows_by_hour.update(dict(zip(hours.tolist(), counts.tolist(), strict=True)))
        survey.rows_read += table.num_rows
        yield Arrival(rows=table)
    survey.rows_read += survey.problems.bad_rows


def _join(
    rows: pa.Table, schema: Schema, tables: dict[Owner, OwnerTable], survey: LogSurvey
) -> pa.Table:
    """The rows with a ``feature.<name>`` for each declared feature of the log and the tables."""
    for owner, table in tables.items():
        taken, missing = table.lookup(rows.column(owner))
        survey.rows_without_owner[owner] = survey.rows_without_owner.get(owner, 0) + missing
        for feature in table_features(schema, owner):
            name = f"feature.{feature.name}"
            rows = rows.append_column(name, taken.column(name))
    for feature in log_features(schema):
        if feature.column in (schema.log.user, schema.log.item):
            ids = "user" if feature.column == schema.log.user else "item"
            rows = rows.append_column(f"feature.{feature.name}", rows.column(ids))
    return rows


def _count(rows: pa.Table, joined: pa.Table, survey: LogSurvey, schema: Schema) -> None:
    time_ms = np.asarray(rows.column("time_ms").to_numpy())
    survey.first_ms = survey.first_ms if survey.rows_kept else int(time_ms[0])
    survey.last_ms = int(time_ms[-1])
    survey.rows_kept += rows.num_rows
    windows, counts = np.unique(window_labels(time_ms, schema).to_numpy(), return_counts=True)
    for window, count in zip(windows.tolist(), counts.tolist(), strict=True):
        survey.rows_by_window[window] = survey.rows_by_window.get(window, 0) + count
    for task, summary in survey.labels.items():
        label = _label(rows, task)
        summary.observed += int((~np.isnan(label)).sum())
        summary.total += float(np.nansum(label))
    for feature in schema.features:
        name = f"feature.{feature.name}"
        if feature.nullable and name in joined.column_names:
            nulls = joined.column(name).null_count
            survey.nulls[feature.name] = survey.nulls.get(feature.name, 0) + nulls


def _add_to_halves(
    rows: pa.Table,
    ids: dict[Owner, Vocabulary],
    halves: dict[Owner, OwnerHalves],
    schema: Schema,
) -> None:
    time_ms = np.asarray(rows.column("time_ms").to_numpy())
    label_by_task = {task.name: _label(rows, task.name) for task in schema.tasks}
    for owner, vocabulary in ids.items():
        index = vocabulary.encode_and_learn(rows.column(owner)) - 1
        halves[owner].add(index, time_ms, label_by_task)


def _sampled(rows: pa.Table, *, share: float) -> pa.Table:
    """The rows of a ``share`` of the users, chosen by the hash of their id."""
    if share >= 1:
        return rows
    user = rows.column("user").to_pandas().to_numpy()
    hashed = pd.util.hash_array(user.astype(object) if user.dtype.kind not in "iu" else user)
    return rows.filter(pa.array(hashed < np.uint64(share * 2.0**63) * np.uint64(2)))


def _look_for_leaks(joined: pa.Table, schema: Schema, survey: LogSurvey) -> None:
    survey.rows_sampled = joined.num_rows
    rows = _sampled_rows(joined, schema)
    survey.suspects += find_label_copies(rows)
    survey.suspects += find_future_times(rows)


def _sampled_rows(joined: pa.Table, schema: Schema) -> SampledRows:
    numeric: dict[str, FloatArray] = {}
    date_ms: dict[str, FloatArray] = {}
    categorical: dict[str, IntArray] = {}
    for feature in schema.features:
        name = f"feature.{feature.name}"
        if name not in joined.column_names:  # an hour, or in a table that is not given
            continue
        values = joined.column(name)
        if feature.transform == "age_days":
            date_ms[feature.name] = _floats(values)
        elif feature.kind == "numeric":
            numeric[feature.name] = _floats(values)
        else:
            categorical[feature.name] = _codes(values)
    labels = {task.name: _label(joined, task.name) for task in schema.tasks}
    regression = {t.name: labels[t.name] for t in schema.tasks if t.kind == "regression"}
    time_ms = np.asarray(joined.column("time_ms").to_numpy())
    watch_time = schema.log.watch_time
    if watch_time is not None and watch_time not in {task.label for task in schema.tasks}:
        watch_ms = np.asarray(joined.column("visible_ms").to_numpy()) - time_ms
        regression[WATCH_TIME] = watch_ms.astype(np.float64)  # a constant delay keeps the order
    return SampledRows(
        user=_codes(joined.column("user")),
        time_ms=time_ms,
        numeric=numeric,
        date_ms=date_ms,
        categorical=categorical,
        binary={t.name: labels[t.name] for t in schema.tasks if t.kind == "binary"},
        regression=regression,
    )


def _owner_numbers(
    table: OwnerTable, ids: Vocabulary, schema: Schema, owner: Owner
) -> dict[str, FloatArray]:
    """Numeric features of a table in the order of ``ids``; NaN = null or not in the table."""
    taken, _ = table.lookup(pa.chunked_array([pa.array(ids.ids)]))
    return {
        feature.name: _floats(taken.column(f"feature.{feature.name}"))
        for feature in table_features(schema, owner)
        if feature.kind == "numeric" and feature.transform != "age_days"
    }


def _label(rows: pa.Table, task: str) -> FloatArray:
    return _floats(rows.column(f"label.{task}"))


def _floats(values: pa.ChunkedArray) -> FloatArray:
    """Numbers; null becomes NaN."""
    return np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _codes(values: pa.ChunkedArray) -> IntArray:
    """Any numbering of the distinct values, sequences taken as a whole; -1 = null."""
    if pa.types.is_list(values.type):
        values = pc.binary_join(pc.cast(values, pa.list_(pa.string())), "\x1f")
    indices = values.combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
