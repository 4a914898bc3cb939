"""The rows that are evaluated: labels, users and lists of some windows of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore, Window
from ranker.evaluation.metrics import FloatArray, IntArray
from ranker.schema import MS_PER_UNIT


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
    columns = _keys(store, rows) | {task: pa.array(p) for task, p in predictions.items()}
    return pa.table(columns)


def match_predictions(
    store: EncodedStore, rows: EvaluationRows, table: pa.Table, source: str
) -> dict[str, FloatArray]:
    """Anybody's predictions, brought into the order of ``rows``.

    The table has the log's user, item and time columns and one column for each task it predicts.
    Further rows are ignored; a row logged twice takes its two predictions in the file's order.

    Raises:
        DataError: missing columns, or rows without a prediction.
    """
    log = store.schema.log
    needed = [log.user, log.item, log.time]
    missing = [name for name in needed if name not in table.column_names]
    tasks = [task.name for task in store.schema.tasks if task.name in table.column_names]
    if missing or not tasks:
        raise DataError(
            f"{source}: needs the columns {needed} and one for each predicted task "
            f"({[task.name for task in store.schema.tasks]}), got {table.column_names}"
        )
    keys = [log.user, log.item, "_time_ms"]
    left = pa.table(_keys(store, rows)).to_pandas()
    right = table.select([*needed, *tasks]).to_pandas()
    for frame in (left, right):
        frame["_time_ms"] = _to_ms(frame[log.time], log.time_unit)
        frame["_occurrence"] = frame.groupby(keys).cumcount()
    try:
        joined = left.merge(
            right.drop(columns=log.time), on=[*keys, "_occurrence"], how="left", indicator=True
        )
    except ValueError as error:
        raise DataError(f"{source}: ids have another type than the log's: {error}") from None
    lost = (joined["_merge"] == "left_only").to_numpy()
    if lost.any():
        first = joined.loc[lost, needed].iloc[0].to_dict()
        raise DataError(
            f"{source}: {int(lost.sum()):,} of {len(joined):,} rows have no prediction, the first "
            f"is {first}"
        )
    predictions = {task: joined[task].to_numpy(dtype=np.float64) for task in tasks}
    for task, values in predictions.items():
        bad = ~np.isfinite(values)
        if bad.any():
            raise DataError(f"{source}: column {task!r} has {int(bad.sum()):,} null or NaN values")
    return predictions


def _to_ms(time: pd.Series[Any], unit: str) -> pd.Series[Any]:
    if pd.api.types.is_datetime64_any_dtype(time):
        return time.dt.as_unit("ms").astype("int64")
    factor = MS_PER_UNIT[unit]
    return time // 1000 if factor < 1 else time * int(factor)


def _keys(store: EncodedStore, rows: EvaluationRows) -> dict[str, pa.Array]:
    log, vocabularies = store.schema.log, store.encoders.vocabularies
    span = slice(rows.start, rows.stop)
    time_ms = np.asarray(store.column("time_ms")[span], dtype=np.int64)
    factor = MS_PER_UNIT[log.time_unit]
    time = time_ms * 1000 if factor < 1 else time_ms // int(factor)
    return {
        log.user: vocabularies["user"].decode(np.asarray(store.column("user")[span], np.int64)),
        log.item: vocabularies["item"].decode(np.asarray(store.column("item")[span], np.int64)),
        log.time: pa.array(time),
    }
