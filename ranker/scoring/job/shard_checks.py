"""Candidate lists are checked where their rows are: in the shard that holds them whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranker.data.features import FeatureSource
from ranker.data.parquet import DataError
from ranker.schema import Schema
from ranker.scoring.job.request_runs import differs_from_previous, one_array, run_codes
from ranker.scoring.job.shard_reader import ShardRows
from ranker.scoring.predict import check_not_newer

IntArray = npt.NDArray[np.int64]


def check_shard(shard: ShardRows, source: FeatureSource) -> None:
    """Refuse lists that can't be ranked.

    Raises:
        DataError: an item twice in a request's list, a request with candidates of several users,
            or a request older than the state; with file, row group and row.
    """
    schema, rows = source.schema, shard.canonical
    requests = run_codes(rows, schema)
    _check_items(shard, requests, schema)
    _check_users(shard, requests, schema)
    try:
        check_not_newer(source, rows)
    except DataError as error:
        times = rows.column("time_ms").to_numpy()
        first = int((times < source.history.as_of_ms).argmax())
        raise DataError(f"{shard.place(first)}, column {schema.log.time!r}: {error}") from None


def _check_users(shard: ShardRows, requests: IntArray, schema: Schema) -> None:
    changes = differs_from_previous({"user": one_array(shard.canonical.column("user"))})
    within = np.flatnonzero(changes & (requests[1:] == requests[:-1])) + 1
    if len(within):
        first = int(within[0])
        both = shard.canonical.column("user").slice(first - 1, 2).to_pylist()
        num_requests = len(np.unique(requests[within]))
        raise DataError(
            f"{shard.place(first)}, column {schema.log.user!r}: {num_requests:,} of "
            f"{int(requests[-1]) + 1:,} requests have candidates of several users, the first of "
            f"{both}; request ids must not be used twice"
        )


def _check_items(shard: ShardRows, requests: IntArray, schema: Schema) -> None:
    item, names = pd.factorize(_values(shard.canonical.column("item")))
    pair = requests * max(len(names), 1) + item
    order = np.argsort(pair, kind="stable")
    again = order[1:][pair[order][1:] == pair[order][:-1]]
    if len(again):
        first = int(again.min())
        row = {name: shard.canonical.column(name)[first].as_py() for name in ("user", "item")}
        raise DataError(
            f"{shard.place(first)}, column {schema.log.item!r}: {len(again):,} of "
            f"{len(pair):,} rows repeat an item of their request's list, the first here (user "
            f"{row['user']!r}, item {row['item']!r}); drop duplicates"
        )


def _values(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    values = one_array(column)
    if not pa.types.is_integer(values.type):
        values = values.dictionary_encode().indices
    return np.asarray(values.to_numpy(zero_copy_only=False))
