"""Time is cut into windows of local time; a sorted log is cut at their borders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranker.data.encode import local_ms
from ranker.data.parquet import DataError
from ranker.schema import Schema

MS_PER_HOUR = 3_600_000
IntArray = npt.NDArray[np.int64]


def window_labels(time_ms: IntArray, schema: Schema) -> pd.Index:
    """The label of each row's window: the local date of its beginning (with hour if not daily)."""
    codes, begins = pd.factorize(_window_begins(time_ms, schema))
    stamps = pd.DatetimeIndex(begins.astype("datetime64[ms]"))
    labels = stamps.strftime(_label_format(schema))
    return labels.astype(object).take(codes)


def next_label(label: str, schema: Schema) -> str:
    """The label of the window after the one that ``label`` names."""
    begin = pd.Timestamp(label) + pd.Timedelta(hours=schema.window_hours)
    return str(begin.strftime(_label_format(schema)))


def _label_format(schema: Schema) -> str:
    return "%Y-%m-%d" if schema.window_hours % 24 == 0 else "%Y-%m-%dT%H"


def _window_begins(time_ms: IntArray, schema: Schema) -> IntArray:
    length_ms = schema.window_hours * MS_PER_HOUR
    return local_ms(time_ms, schema.time_zone) // length_ms * length_ms


def local_midnight_ms(date: str, schema: Schema) -> int:
    """UTC milliseconds of a local date's (or date and hour's) beginning.

    Raises:
        DataError: ``date`` is not a date.
    """
    try:
        stamp = pd.Timestamp(date)
    except ValueError:
        raise DataError(f"{date!r} is not a date like 2022-05-05") from None
    if pd.isna(stamp) or stamp.tzinfo is not None:
        raise DataError(f"{date!r} is not a local date like 2022-05-05")
    local = stamp.tz_localize(schema.time_zone, nonexistent="shift_forward", ambiguous=True)
    return round(local.timestamp() * 1000)


def cut_into_chunks(
    tables: Iterator[pa.Table], schema: Schema, chunk_rows: int, cuts_ms: list[int]
) -> Iterator[tuple[str, pa.Table]]:
    """Cut the sorted stream at window borders, at ``cuts_ms``, and after ``chunk_rows``.

    Yields each chunk with its window's label. Rows with equal time stamps stay together.
    """
    begin, span, held = 0, -1, None
    for table in tables:
        times_ms = np.asarray(table.column("time_ms").to_numpy())
        begins = _window_begins(times_ms, schema)
        spans = np.searchsorted(np.array(cuts_ms, dtype=np.int64), times_ms, side="right")
        borders = np.flatnonzero((begins[1:] != begins[:-1]) | (spans[1:] != spans[:-1])) + 1
        bounds = [0, *borders.tolist(), table.num_rows]
        for start, stop in itertools.pairwise(bounds):
            piece = table.slice(start, stop - start)
            if held is not None and begins[start] == begin and spans[start] == span:
                piece = pa.concat_tables([held, piece])
            elif held is not None:
                yield _labelled(held, schema)
            begin, span, held = int(begins[start]), int(spans[start]), piece
            while held.num_rows > chunk_rows:
                cut = _cut_between_times(held.column("time_ms").to_numpy(), chunk_rows)
                if cut >= held.num_rows:
                    break
                yield _labelled(held.slice(0, cut), schema)
                held = held.slice(cut)
    if held is not None:
        yield _labelled(held, schema)


def _cut_between_times(time_ms: IntArray, num_rows: int) -> int:
    """Where to cut near ``num_rows`` so that equal times stay together; never at 0."""
    before = int(np.searchsorted(time_ms, time_ms[num_rows], side="left"))
    return before or int(np.searchsorted(time_ms, time_ms[num_rows], side="right"))


def _labelled(chunk: pa.Table, schema: Schema) -> tuple[str, pa.Table]:
    first_ms = np.asarray(chunk.column("time_ms")[:1].to_numpy())
    return str(window_labels(first_ms, schema)[0]), chunk.combine_chunks()
