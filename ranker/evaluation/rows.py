"""The rows that are evaluated: labels, users and lists of some windows of a store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from ranker.data.given_columns import number_column, one_column
from ranker.data.parquet import DataError
from ranker.data.row_hash import hash_rows
from ranker.data.store import EncodedStore, Window
from ranker.evaluation.matching import Match, key_columns, match_rows, time_column_ms
from ranker.evaluation.metrics import FloatArray, IntArray
from ranker.schema import MS_PER_UNIT, TaskSpec

logger = logging.getLogger(__name__)
TIME_MS, REQUEST_HASH = "_time_ms", "_request_hash"
MAX_PREDICTION = 1e100  # sums of squares of more leave the range of float64


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRows:
    """Rows ``start:stop`` of a store: labels by task (NaN = not observed), users and lists."""

    start: int
    stop: int
    labels: Mapping[str, FloatArray]
    users: IntArray
    lists: IntArray


def read_rows(store: EncodedStore, windows: Sequence[Window]) -> EvaluationRows:
    """The rows of consecutive ``windows``; a list is a request, or a user's rows in a window."""
    start, stop = windows[0].start, windows[-1].stop
    users = np.asarray(store.column("user")[start:stop], dtype=np.int64)
    if store.schema.list_by == "request":
        request = np.asarray(store.column("request")[start:stop], dtype=np.int64)
        _, lists = np.unique(np.stack([users, request]), axis=1, return_inverse=True)
    else:
        sizes = [window.num_rows for window in windows]
        window_number = np.repeat(np.arange(len(windows)), sizes)
        lists = users * len(windows) + window_number
    return EvaluationRows(
        start=start,
        stop=stop,
        labels={
            task.name: np.asarray(store.column(f"label.{task.name}")[start:stop], dtype=np.float64)
            for task in store.schema.tasks
        },
        users=users,
        lists=np.asarray(lists, dtype=np.int64).reshape(-1),
    )


def prediction_table(
    store: EncodedStore, rows: EvaluationRows, predictions: Mapping[str, FloatArray]
) -> pa.Table:
    """Predictions with the log's own user, item and time columns: what `read_predictions` reads."""
    table = _keys(store, rows)
    for task, values in predictions.items():
        table = table.append_column(task, pa.array(values))
    return table


def match_predictions(
    store: EncodedStore, rows: EvaluationRows, table: pa.Table, source: str
) -> dict[str, FloatArray]:
    """Anybody's predictions, brought into the order of ``rows``.

    The table has the log's user, item and time columns (time in the log's unit, or time stamps)
    and one column for each task it predicts; also the log's request column tells rows apart that
    share the others. Rows of other impressions are ignored. Rows that nothing tells apart take
    their predictions in the file's order, and a warning says so.

    Raises:
        DataError: missing or repeated columns, ids or predictions of the wrong type, rows without
            a prediction or with several different ones, or values that are not finite, beyond
            `MAX_PREDICTION` or (binary) not in [0, 1].
    """
    log = store.schema.log
    tasks = [task for task in store.schema.tasks if task.name in table.column_names]
    if not tasks:
        raise DataError(
            f"{source}: needs the columns {[log.user, log.item, log.time]} and one for each "
            f"predicted task ({[task.name for task in store.schema.tasks]}), got "
            f"{table.column_names}"
        )
    wanted = _keys(store, rows)
    ids = {name: wanted.column(name).type for name in (log.user, log.item)}
    given = key_columns(table, ids, source).append_column(
        TIME_MS, time_column_ms(table, log.time, log.time_unit, source)
    )
    span = slice(rows.start, rows.stop)
    time_ms = pa.array(np.asarray(store.column("time_ms")[span], dtype=np.int64))
    keys = wanted.select([log.user, log.item]).append_column(TIME_MS, time_ms)
    if log.request is not None and log.request in table.column_names:
        asked = np.asarray(store.column("request")[span], dtype=np.int64)
        keys = keys.append_column(REQUEST_HASH, pa.array(asked))
        request = one_column(table, log.request, source).combine_chunks()
        given = given.append_column(REQUEST_HASH, pa.array(hash_rows({"request": request})))
    match = match_rows(keys, given)
    lost = np.flatnonzero(match.rows < 0)
    if len(lost):
        raise DataError(
            f"{source}: {len(lost):,} of {len(time_ms):,} rows have no prediction, the first is "
            f"{wanted.slice(int(lost[0]), 1).to_pylist()[0]}; predict every row, or choose other "
            "windows (--from, --before)"
        )
    found = {task.name: _task_predictions(table, task, match, source) for task in tasks}
    _warn_of_guesses(found, match, keys, source)
    return found


def _warn_of_guesses(
    predictions: Mapping[str, FloatArray], match: Match, keys: pa.Table, source: str
) -> None:
    """Say which rows could have got each other's predictions."""
    repeated = np.bincount(match.codes)[match.codes] > 1
    frame = pd.DataFrame({name: values[repeated] for name, values in predictions.items()})
    differing = frame.groupby(match.codes[repeated]).transform("nunique").gt(1).any(axis=1)
    if differing.any():
        logger.warning(
            "%s: %s rows share %s with others but not their predictions; they take them in the "
            "file's order, which is right for the files that `evaluate` writes. Give the log's "
            "request column where it tells them apart",
            source,
            f"{int(differing.sum()):,}",
            ", ".join(name for name in keys.column_names if not name.startswith("_")) + " and time",
        )


def _task_predictions(table: pa.Table, task: TaskSpec, match: Match, source: str) -> FloatArray:
    values = number_column(table, task.name, source)
    differs = values[match.surplus] != values[match.surplus_first]
    if differs.any():
        row = int(match.surplus[differs.argmax()])
        raise DataError(
            f"{source}: column {task.name!r} has {int(differs.sum()):,} further, different "
            f"predictions of rows that were logged once, the first in row {row}; give one each"
        )
    predictions: FloatArray = values[match.rows]
    bad = ~(np.abs(predictions) <= MAX_PREDICTION)
    expected = f"finite numbers, at most {MAX_PREDICTION:g} in size"
    if task.kind == "binary":
        bad |= (predictions < 0) | (predictions > 1)
        expected = "probabilities in [0, 1]"
    if bad.any():
        row = int(match.rows[bad.argmax()])
        raise DataError(
            f"{source}: column {task.name!r} must hold {expected}, got {values[row]} in row {row} "
            f"(such rows: {int(bad.sum()):,}; a null counts as NaN)"
        )
    return predictions


def _keys(store: EncodedStore, rows: EvaluationRows) -> pa.Table:
    """The log's own user, item and time columns."""
    log, vocabularies = store.schema.log, store.encoders.vocabularies
    span = slice(rows.start, rows.stop)
    time_ms = np.asarray(store.column("time_ms")[span], dtype=np.int64)
    factor = MS_PER_UNIT[log.time_unit]
    time = pa.array(time_ms * 1000 if factor < 1 else time_ms // int(factor))
    if factor > 1 and (time_ms % int(factor)).any():  # of a timestamp column finer than the unit
        time = pa.array(time_ms, pa.timestamp("ms", "UTC"))
    user = np.asarray(store.column("user")[span], dtype=np.int64)
    item = np.asarray(store.column("item")[span], dtype=np.int64)
    return pa.table(
        {
            log.user: vocabularies["user"].decode(user),
            log.item: vocabularies["item"].decode(item),
            log.time: time,
        }
    )
