"""Reading an outcomes table: Parquet, or Arrow in memory, one row per user and day or finer.

It is read twice: first its users, then the rest batch by batch. What is kept are 4 bytes a row for
the user, 8 for the day, 8 for each metric column, and the pre-period as sums by user.

Shapes: ``U`` users, ``N`` rows, ``n`` rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.data.parquet import BATCH_ROWS, DataError, find_files, open_file, stream
from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.metric import columns_of
from ranker.experiment.outcome_collector import OutcomeCollector, UserCodes
from ranker.experiment.outcome_columns import OutcomeBatch, user_ids
from ranker.experiment.outcomes_table import Outcomes

Batches = Callable[[Sequence[str]], Iterator[OutcomeBatch]]


def read_outcomes(path: Path, settings: AnalysisSettings) -> Outcomes:
    """Read the Parquet file or folder at ``path``.

    Raises:
        DataError: damage, missing or wrong columns, values that no metric can have, an unknown arm,
            a user in two arms (unless ``settings`` drop those), an arm without users.
    """
    for file in find_files(path):
        _require_columns(str(file), open_file(file).schema_arrow, settings)

    def batches(columns: Sequence[str]) -> Iterator[OutcomeBatch]:
        previous, first_row = None, 0
        for located in stream(path, columns):
            first_row = first_row if located.file == previous else 0
            previous = located.file
            yield OutcomeBatch(source=str(located.file), first_row=first_row, rows=located.rows)
            first_row += located.rows.num_rows

    return _collect(str(path), batches, settings)


def outcomes_of(table: pa.Table, settings: AnalysisSettings) -> Outcomes:
    """As `read_outcomes`, of a table in memory."""
    source = "outcomes table"
    _require_columns(source, table.schema, settings)

    def batches(columns: Sequence[str]) -> Iterator[OutcomeBatch]:
        first_row = 0
        for rows in table.select(columns).to_batches(max_chunksize=BATCH_ROWS):
            yield OutcomeBatch(source=source, first_row=first_row, rows=rows)
            first_row += rows.num_rows

    return _collect(source, batches, settings)


def _collect(source: str, batches: Batches, settings: AnalysisSettings) -> Outcomes:
    users = _encode_users(source, batches, settings.columns.user)
    collector = OutcomeCollector.of(users, settings=settings)
    start = 0
    for batch in batches(_other_columns(settings)):
        stop = start + batch.rows.num_rows
        collector.add(batch, users=users.codes[start:stop])
        start = stop
    return collector.finish(source)


def _encode_users(source: str, batches: Batches, column: str) -> UserCodes:
    ids = [user_ids(batch, column) for batch in batches([column])]
    kinds = {one.type for one in ids}
    if len(kinds) > 1:
        raise DataError(
            f"{source}: column {column!r}: integers in some files and strings in others; make them "
            "one type"
        )
    if sum(map(len, ids)) == 0:
        raise DataError(f"{source}: has no rows")
    # in one piece: of pieces every one would carry its own copy of the dictionary
    encoded = pa.concat_arrays(ids).dictionary_encode()
    codes: NDArray[np.int32] = encoded.indices.to_numpy()
    return UserCodes(ids=encoded.dictionary, codes=codes)


def _other_columns(settings: AnalysisSettings) -> list[str]:
    """All columns but the user's, without repeats."""
    days = [settings.columns.day] if settings.columns.day is not None else []
    names = [settings.columns.arm, *days, *columns_of(settings.metrics), *settings.slices]
    return list(dict.fromkeys(names))


def _require_columns(source: str, schema: pa.Schema, settings: AnalysisSettings) -> None:
    for name in (settings.columns.user, *_other_columns(settings)):
        if schema.names.count(name) > 1:
            raise DataError(f"{source}: column {name!r} is there {schema.names.count(name)} times")
        if name not in schema.names:
            raise DataError(
                f"{source}: column {name!r} is missing; the table has {sorted(schema.names)}. The "
                "config's columns, metrics and slices name them"
            )
