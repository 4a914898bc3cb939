"""The rows of shards, as they came and as the model reads them, with their places in the files."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.config import ConfigError
from ranker.data.parquet import DataError, LocatedBatch, open_file, stream_row_group
from ranker.data.problems import ProblemLog
from ranker.data.tables import candidate_columns, convert_candidates
from ranker.schema import Schema
from ranker.scoring.job.shard_plan import InputFile, Shard, ShardPlan
from ranker.scoring.stage_clock import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows ``first_row ...`` of one row group of one file."""

    file: Path
    row_group: int
    first_row: int
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardRows:
    """All rows of a shard.

    Attributes:
        index: the shard's, in the plan.
        raw: the columns as they came, without dictionaries.
        canonical: the same rows as `ranker.data.tables` reads them.
        pieces: where the rows came from, in order.
    """

    index: int
    raw: pa.Table
    canonical: pa.Table
    pieces: tuple[Piece, ...]

    def place(self, row: int) -> str:
        """File, row group and row within it."""
        for piece in self.pieces:
            if row < piece.num_rows:
                return f"{piece.file}: row group {piece.row_group}, row {piece.first_row + row}"
            row -= piece.num_rows
        raise IndexError(row)


def travelling_columns(
    root: Path,
    files: Sequence[InputFile],
    schema: Schema,
    keep: Sequence[str] | None,
    *,
    looked_at: Sequence[str] = (),
) -> tuple[str, ...]:
    """The candidates' columns that slates get: all of them, or ``keep`` and what names the row.

    Args:
        root, files: the candidates.
        schema: theirs.
        keep: columns asked for; None for all.
        looked_at: columns that are read in any case, and so must be alike in all files too.

    Raises:
        ConfigError: ``keep`` names a column that the first file lacks.
        DataError: a file has one of the columns twice, in another type, or not at all.
    """
    first, *others = (file.path(root) for file in files)
    arrow = open_file(first).schema_arrow
    log = schema.log
    needed = {log.request, log.user, log.time, log.item}
    for name in keep or ():
        if name not in arrow.names:
            close = difflib.get_close_matches(name, arrow.names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"--keep-columns: {first} has no column {name!r}{hint} (it has {arrow.names})"
            )
    names = [n for n in arrow.names if keep is None or n in keep or n in needed]
    read = [*names, *(n for n in looked_at if n in arrow.names and n not in names)]
    for file in (first, *others):
        theirs = open_file(file).schema_arrow
        for name in read:
            if theirs.names.count(name) > 1:
                raise DataError(
                    f"{file}: column {name!r} is there {theirs.names.count(name)} times; give "
                    "every column its own name"
                )
            got = theirs.field(name).type if name in theirs.names else "missing"
            if got != arrow.field(name).type:
                raise DataError(
                    f"{file}: column {name!r} is {got}, but {arrow.field(name).type} in {first}; "
                    "files differ in columns: write them alike, or leave the column out with "
                    "--keep-columns"
                )
    return tuple(names)


def read_shards(
    root: Path, plan: ShardPlan, schema: Schema, *, travelling: Sequence[str], wanted: Sequence[int]
) -> Iterator[ShardRows]:
    """Read shards in ascending order; a row group that several of them share is decoded once.

    Args:
        root: what the plan was made of.
        plan: the shards.
        schema: of the candidates.
        travelling: what ``raw`` must have besides what the schema needs.
        wanted: indices of shards, ascending.

    Raises:
        DataError: damage, bad rows, or files that have changed since the plan.
    """
    names = [*travelling, *(n for n in candidate_columns(schema) if n not in travelling)]
    shards = deque(wanted)
    pieces: list[LocatedBatch] = []
    ranges = [plan.shards[index] for index in wanted]
    for first, located in _overlapping(root, plan, ranges, names):
        stop = first + located.rows.num_rows
        while shards and plan.shards[shards[0]].start < stop:
            shard = plan.shards[shards[0]]
            low, high = max(shard.start, first), min(shard.stop, stop)
            pieces.append(_slice(located, low - first, high - low))
            if shard.stop > stop:
                break
            with stage("read"):
                read = _assemble(root, shards.popleft(), pieces, schema, names)
            pieces = []
            yield read
    if shards:
        raise DataError(f"{root}: has fewer rows than planned; it has changed while it was read")


def _overlapping(
    root: Path, plan: ShardPlan, ranges: Sequence[Shard], columns: Sequence[str]
) -> Iterator[tuple[int, LocatedBatch]]:
    """The batches of all row groups that share a row with a range, with their first row."""
    start, left = 0, deque(ranges)
    for planned in plan.files:
        parquet = None
        for row_group, num_rows in enumerate(planned.rows_by_row_group):
            stop = start + num_rows
            while left and left[0].stop <= start:
                left.popleft()
            if left and left[0].start < stop:
                parquet = parquet or _open_unchanged(planned, root)
                first = start
                batches = stream_row_group(parquet, planned.path(root), row_group, columns)
                while True:
                    with stage("read"):
                        located = next(batches, None)
                    if located is None:
                        break
                    yield first, located
                    first += located.rows.num_rows
            start = stop


def _open_unchanged(planned: InputFile, root: Path) -> pq.ParquetFile:
    path = planned.path(root)
    parquet = open_file(path)
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (planned.size, planned.mtime_ns):
        raise DataError(f"{path}: has changed since the job began; begin again without --resume")
    return parquet


def _slice(located: LocatedBatch, offset: int, num_rows: int) -> LocatedBatch:
    return LocatedBatch(
        file=located.file,
        row_group=located.row_group,
        first_row=located.first_row + offset,
        rows=located.rows.slice(offset, num_rows),
    )


def _assemble(
    root: Path, index: int, batches: Sequence[LocatedBatch], schema: Schema, names: Sequence[str]
) -> ShardRows:
    problems = ProblemLog()
    canonical = [convert_candidates(located, schema, problems) for located in batches]
    if problems.bad_rows:
        raise DataError(f"{root} is rejected:\n" + "\n".join(problems.sentences()))
    return ShardRows(
        index=index,
        raw=pa.concat_tables([_plain(located.rows, names) for located in batches]),
        canonical=pa.concat_tables(canonical).combine_chunks(),
        pieces=tuple(
            Piece(
                file=located.file,
                row_group=located.row_group,
                first_row=located.first_row,
                num_rows=located.rows.num_rows,
            )
            for located in batches
        ),
    )


def _plain(rows: pa.RecordBatch, names: Sequence[str]) -> pa.Table:
    """The named columns; dictionaries differ from batch to batch, so they would show in a part."""
    columns = {}
    for name in names:
        values = rows.column(name)
        is_dictionary = pa.types.is_dictionary(values.type)
        columns[name] = values.dictionary_decode() if is_dictionary else values
    return pa.table(columns)
