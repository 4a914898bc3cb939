"""Make `data/sample/` from 14 days of KuaiRand-Pure: the users with `user_id % 4 == 3`, complete.

    python data/make_sample.py DIR [--output data/sample]

DIR holds `log_standard_0425_0508.parquet`, `user_features.parquet`, `video_features_basic.parquet`
and `exposures_before_0425_derived.parquet` (see `data/README.md`). The same pyarrow version writes
the same bytes. README and licence beside the sample are not touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.schema import Owner, Schema, load_schema

SCHEMA_PATH = Path(__file__).parents[1] / "configs" / "schema" / "kuairand.yaml"
DIVISOR, REMAINDER = 4, 3
# Without these two, rows that differ in the original would become exact duplicates: `hourmin`
# tells 103 rows of the sample (414 of the log) apart, `comment_stay_time` three more of the log.
DISTINGUISHING_COLUMNS = ("hourmin", "comment_stay_time")
HISTORY_COLUMNS = ("user_id", "position", "video_id", "is_like", "long_view")
MAX_BYTES = 3_000_000


def keep_users(table: pa.Table) -> pa.Table:
    """The rows of the sample's users, in their original order."""
    users = table["user_id"].to_numpy()
    return table.filter(pa.array(users % DIVISOR == REMAINDER))


def select_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The columns ``names``, without pandas metadata; ids and numbers with gaps become int64.

    Raises:
        pyarrow.ArrowInvalid: a floating-point column holds fractions.
    """
    columns = {}
    for name in names:
        column = table[name]
        if pa.types.is_floating(column.type) or name in ("user_id", "video_id"):
            column = column.cast(pa.int64())  # safe: the floats are integers with nulls
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        columns[name] = column.combine_chunks()
    return pa.table(columns)


def log_columns(schema: Schema) -> list[str]:
    """What ``schema`` reads from the log, and `duration_ms`, which explains the play times."""
    structural = (schema.log.user, schema.log.item, schema.log.time, schema.log.watch_time)
    contexts = [feature.column for feature in schema.features if feature.owner == "context"]
    labels = [task.label for task in schema.tasks]
    names = [name for name in structural if name is not None]
    return list(dict.fromkeys([*names, "duration_ms", *contexts, *labels, *DISTINGUISHING_COLUMNS]))


def owner_columns(schema: Schema, *, owner: Owner, key: str) -> list[str]:
    """The columns that the features of ``owner`` (user or item) read, ``key`` first."""
    columns = [feature.column for feature in schema.features if feature.owner == owner]
    return list(dict.fromkeys([key, *columns]))


def count_duplicates(table: pa.Table) -> int:
    """Rows that equal an earlier row in every column."""
    return int(table.num_rows - table.group_by(table.column_names).aggregate([]).num_rows)


def make_sample(directory: Path, schema: Schema) -> dict[str, pa.Table]:
    """Read the 14 days in ``directory``; give the sample's tables by file name.

    Raises:
        ValueError: dropping columns made rows equal that differ in the original.
    """
    full_log = keep_users(pq.read_table(directory / "log_standard_0425_0508.parquet"))
    log = select_columns(full_log, log_columns(schema))
    before, after = count_duplicates(full_log), count_duplicates(log)
    if before != after:
        raise ValueError(
            f"{directory}: expected {before} exact duplicates in the sample's log, got {after} "
            "after dropping columns; add a column to DISTINGUISHING_COLUMNS"
        )
    users = keep_users(pq.read_table(directory / "user_features.parquet"))
    items = pq.read_table(directory / "video_features_basic.parquet")
    earlier = keep_users(pq.read_table(directory / "exposures_before_0425_derived.parquet"))
    seen = pa.concat_arrays(
        [pc.unique(table["video_id"]).cast(pa.int64()) for table in (log, earlier)]
    )
    items = items.filter(pc.is_in(items["video_id"], value_set=seen))
    return {
        "log.parquet": log,
        "users.parquet": select_columns(users, owner_columns(schema, owner="user", key="user_id")),
        "items.parquet": select_columns(items, owner_columns(schema, owner="item", key="video_id")),
        "earlier_history.parquet": select_columns(earlier, HISTORY_COLUMNS),
    }


def write_sample(tables: dict[str, pa.Table], folder: Path) -> int:
    """Write each table to ``folder`` and return the bytes written.

    Raises:
        ValueError: together the files are larger than `MAX_BYTES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(
            table,
            folder / name,
            compression="zstd",
            compression_level=19,
            write_page_checksum=True,
        )
    num_bytes = sum((folder / name).stat().st_size for name in tables)
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{folder}: expected at most {MAX_BYTES} bytes, got {num_bytes}")
    return num_bytes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("directory", metavar="DIR", type=Path, help="14 days of KuaiRand-Pure")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "sample")
    arguments = parser.parse_args()
    tables = make_sample(arguments.directory, load_schema(SCHEMA_PATH))
    num_bytes = write_sample(tables, arguments.output)
    for name, table in tables.items():
        size = (arguments.output / name).stat().st_size
        print(f"{name}: {table.num_rows:,} rows, {table.num_columns} columns, {size:,} bytes")
    print(f"{num_bytes:,} bytes; {count_duplicates(tables['log.parquet']):,} exact duplicates kept")


if __name__ == "__main__":
    main()
