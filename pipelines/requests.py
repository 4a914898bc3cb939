"""Requests and candidates as tables in the log's own columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ranker.data.moment_text import moment_text
from ranker.data.parquet import DataError, find_files, open_file
from ranker.data.problems import ProblemLog
from ranker.data.tables import log_features, stream_log
from ranker.data.windows import local_midnight_ms, window_labels
from ranker.schema import MS_PER_UNIT, Schema


def check_candidates_possible(schema: Schema) -> None:
    """Raise `DataError` if the log holds item or pair features: not known of new candidates."""
    for feature in log_features(schema):
        is_id = feature.column in (schema.log.user, schema.log.item)
        if feature.owner in ("item", "pair") and not is_id:
            raise DataError(
                f"schema {schema.name!r}: feature {feature.name!r} of the {feature.owner} is read "
                "from the log, so it is not known of candidates; put it into the item table"
            )


def check_distinct_requests(requests: pa.Table, schema: Schema, source: str) -> None:
    """Raise `DataError` if a request is given twice: it would get its candidates twice."""
    codes = request_codes(requests, schema)
    num_repeated = len(codes) - len(np.unique(codes))
    if num_repeated:
        raise DataError(
            f"{source}: {num_repeated:,} of {len(codes):,} rows repeat a request; give one row each"
        )


def check_candidate_lists(candidates: pa.Table, schema: Schema, source: str) -> None:
    """Raise `DataError` if an item is twice in a request's list, or a request has two users."""
    frame = candidates.select(["user", "item"]).to_pandas()
    frame = frame.assign(request=request_codes(candidates, schema))
    repeated = frame.duplicated(["request", "item"]).to_numpy()
    if repeated.any():
        first = frame.loc[repeated].iloc[0]
        raise DataError(
            f"{source}: {int(repeated.sum()):,} of {len(frame):,} rows repeat an item of their "
            f"request's list, the first in row {int(repeated.argmax())} (user {first['user']!r}, "
            f"item {first['item']!r}); drop duplicates"
        )
    users = frame[["request", "user"]].drop_duplicates()
    shared = users.duplicated("request").to_numpy()
    if shared.any():
        codes = users.loc[shared, "request"].unique()
        both = users.loc[users["request"] == codes[0], "user"].tolist()
        raise DataError(
            f"{source}: {len(codes):,} of {frame['request'].nunique():,} requests have candidates "
            f"of several users, the first of {both[:2]}; request ids must not be used twice"
        )


def requests_of_log(
    log: Path, schema: Schema, *, first: str | None, before: str | None, with_first_item: bool
) -> pa.Table:
    """Each user's first impression in each window, as canonical requests in time order.

    ``with_first_item`` keeps the column ``item``: the item that was in fact shown.
    """
    first_ms = local_midnight_ms(first, schema) if first else -(2**62)
    before_ms = local_midnight_ms(before, schema) if before else 2**62
    problems, tables = ProblemLog(), []
    for table in stream_log(log, schema, problems=problems, quarantine=lambda _: None):
        times = np.asarray(table.column("time_ms").to_numpy())
        tables.append(table.filter(pa.array((times >= first_ms) & (times < before_ms))))
    if not any(table.num_rows for table in tables):
        bad = f" ({problems.bad_rows:,} bad rows were left out)" if problems.bad_rows else ""
        raise DataError(
            f"{log}: no rows from {first or 'the beginning'} to {before or 'the end'}{bad}"
        )
    rows = pa.concat_tables(tables).sort_by(
        [("time_ms", "ascending"), ("user", "ascending"), ("item", "ascending")]
    )
    labels = window_labels(np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64), schema)
    frame = rows.select(["user"]).to_pandas().assign(window=labels.to_numpy())
    keep = ~frame.duplicated(["user", "window"]).to_numpy()
    names = [n for n in rows.column_names if n not in ("visible_ms", "position", "row_hash")]
    names = [n for n in names if not n.startswith("label.") and (with_first_item or n != "item")]
    return rows.filter(pa.array(keep)).select(names)


def time_type_of(path: Path, schema: Schema) -> pa.DataType:
    """How the first file below ``path`` writes times down."""
    kind: pa.DataType = open_file(find_files(path)[0]).schema_arrow.field(schema.log.time).type
    return kind


def raw_columns(
    canonical: pa.Table, schema: Schema, *, time_type: pa.DataType
) -> dict[str, pa.ChunkedArray]:
    """Canonical request columns under the log's own names; integer times are in its unit."""
    log = schema.log
    times = canonical.column("time_ms")
    if pa.types.is_timestamp(time_type):
        times = times.cast(pa.timestamp("ms", time_type.tz)).cast(time_type)
    else:
        time_ms = np.asarray(times.to_numpy(), dtype=np.int64)
        factor = MS_PER_UNIT[log.time_unit]
        times = pa.chunked_array(
            [pa.array(time_ms * 1000 if factor < 1 else time_ms // int(factor))]
        )
    columns: dict[str, pa.ChunkedArray] = {}
    if log.request is not None:
        columns[log.request] = canonical.column("request")
    columns[log.user] = canonical.column("user")
    columns[log.time] = times
    if log.device is not None:
        columns[log.device] = canonical.column("device")
    for feature in log_features(schema):
        name = f"feature.{feature.name}"
        if feature.column not in (log.user, log.item) and name in canonical.column_names:
            columns.setdefault(feature.column, canonical.column(name))
    return columns


def request_codes(rows: pa.Table, schema: Schema) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Codes 0, 1, ... of each row's request: the request column, else user and time."""
    names = ["request"] if schema.log.request is not None else ["user", "time_ms"]
    frame = rows.select(names).to_pandas()
    codes: np.ndarray[tuple[int], np.dtype[np.int64]] = (
        frame.groupby(names, sort=False).ngroup().to_numpy(dtype=np.int64)
    )
    return codes


def request_key(schema: Schema, row: Mapping[str, object]) -> str:
    """How a request is called in messages and reports."""
    if schema.log.request is not None:
        return str(row[schema.log.request])
    return f"{row[schema.log.user]} at {_moment(row[schema.log.time], schema)}"


def _moment(time: object, schema: Schema) -> str:
    """A raw time of the log, in UTC; as it is where it is no number."""
    if not isinstance(time, int):
        return str(time)
    return moment_text(round(time * MS_PER_UNIT[schema.log.time_unit]))
