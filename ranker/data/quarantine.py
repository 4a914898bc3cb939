"""``quarantine.parquet``: the bad rows of a log as they came, with their origin and reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.parquet import find_files, open_file


class Quarantine:
    """Writes bad rows as they come; no file when there are none."""

    def __init__(self, path: Path, log: Path) -> None:
        self._path, self._log = path, log
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        """Append the bad rows of a batch (`BatchChecker.quarantined`)."""
        if self._writer is None:
            origin = [rows.schema.field(name) for name in rows.column_names if name[:1] == "_"]
            fields = {f.name: f for f in (*_merged_fields(self._log), *origin)}
            self._writer = pq.ParquetWriter(
                self._path, pa.schema(list(fields.values())), write_page_checksum=True
            )
        self._writer.write_table(
            pa.table(
                [_column_as(rows, field) for field in self._writer.schema],
                schema=self._writer.schema,
            )
        )

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _merged_fields(log: Path) -> list[pa.Field]:
    """The columns of all files of a log in types that hold every file's values."""
    merged: dict[str, pa.Field] = {}
    for file in find_files(log):
        for original in open_file(file).schema_arrow:
            field = pa.field(original.name, original.type)
            known = merged.setdefault(field.name, field)
            try:
                (merged[field.name],) = pa.unify_schemas(
                    [pa.schema([known]), pa.schema([field])], promote_options="permissive"
                )
            except pa.ArrowException:
                merged[field.name] = pa.field(field.name, pa.string())
    return list(merged.values())


def _column_as(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in rows.column_names:
        return pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
    try:
        return rows.column(field.name).cast(field.type)
    except pa.ArrowException:
        texts = [None if v is None else str(v) for v in rows.column(field.name).to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
