"""A log of any origin in bounded memory: all of it, or the rows of some users chosen by hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ranker.data.parquet import DataError, find_files, open_file, stream, without_views
from ranker.data.row_hash import hash_rows

MAX_CELLS = 40_000_000  # rows × columns held at once: a wide log is sampled more thinly
HEAD_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSample:
    """Rows of a log, in the files' order.

    Attributes:
        num_rows_total: of the whole log.
        share: of the users (of the rows where ``by_user`` is not) that were taken; 1 is all.
        absent: columns that some files lack -> how many files; null there.
    """

    rows: pa.Table
    num_rows_total: int
    num_files: int
    share: float
    by_user: bool
    absent: dict[str, int]


def read_head(path: Path) -> pa.Table:
    """The first rows of a log, enough to tell its columns apart.

    Raises:
        DataError: no log, or a damaged one.
    """
    schema, _ = _merged_schema(path)
    batches: list[pa.Table] = []
    for located in stream(path):
        batches.append(_as(schema, located.rows))
        if sum(batch.num_rows for batch in batches) >= HEAD_ROWS:
            break
    return pa.concat_tables([schema.empty_table(), *batches]).slice(0, HEAD_ROWS)


def read_sample(path: Path, *, max_rows: int, user_column: str | None) -> LogSample:
    """Read a log; of one with more than ``max_rows`` rows, those of a share of the users.

    Whole users are taken, so that duplicates, repeated pairs and sums by user stay what they are.
    Without ``user_column`` rows are taken, equal ones together.

    Raises:
        DataError: no log, a damaged one, a column that occurs twice, or files whose types differ.
    """
    schema, absent = _merged_schema(path)
    files = find_files(path)
    total = sum(open_file(file).metadata.num_rows for file in files)
    limit = min(max_rows, max(1_000, MAX_CELLS // max(1, len(schema))))
    share = min(1.0, limit / max(1, total))
    pieces = list(_chosen(path, schema, user_column, share))
    return LogSample(
        rows=pa.concat_tables([schema.empty_table(), *pieces]).combine_chunks(),
        num_rows_total=total,
        num_files=len(files),
        share=share,
        by_user=user_column is not None,
        absent=absent,
    )


def _chosen(
    path: Path, schema: pa.Schema, user_column: str | None, share: float
) -> Iterator[pa.Table]:
    for located in stream(path):
        rows = _as(schema, located.rows)
        if share < 1 and rows.num_rows:
            names = [user_column] if user_column is not None else schema.names
            columns = {name: rows.column(name).combine_chunks() for name in names}
            hashed = hash_rows(columns).view(np.uint64)
            rows = rows.filter(pa.array(hashed < np.uint64(share * 2.0**63) * np.uint64(2)))
        yield rows


def _as(schema: pa.Schema, rows: pa.RecordBatch) -> pa.Table:
    """``rows`` with the columns and types of ``schema``; what it lacks is null."""
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.schema.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _merged_schema(path: Path) -> tuple[pa.Schema, dict[str, int]]:
    _reject_other_formats(path)
    files = find_files(path)
    schemas = [open_file(file).schema_arrow.remove_metadata() for file in files]
    for file, schema in zip(files, schemas, strict=True):
        if not schema.names:
            raise DataError(f"{file}: has no columns")
        twice = [name for name, times in Counter(schema.names).items() if times > 1]
        if twice:
            raise DataError(
                f"{file}: column {twice[0]!r} occurs more than once; give every column its own name"
            )
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path}: its files differ in a column's type: {str(error).splitlines()[0]}; "
            "write them with one type"
        ) from None
    lacking = {name: sum(name not in s.names for s in schemas) for name in merged.names}
    return without_views(merged), {name: number for name, number in lacking.items() if number}


def _reject_other_formats(path: Path) -> None:
    other = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".gz", ".zip", ".feather", ".avro"}
    if path.is_file() and path.suffix.lower() in other:
        raise DataError(
            f"{path}: expected Parquet, got {path.suffix}; convert it first, e.g. with pandas: "
            "pd.read_csv(...).to_parquet(...)"
        )
