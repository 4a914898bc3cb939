"""Parquet files as a stream of located record batches; damage is named, our own files are checked.

Texts come in Arrow's types with offsets, never as views, for which many of its functions are
missing. Memory stays bounded by `ParquetFile.iter_batches` without pre-buffering. Page checksums
are verified where a file has them; in files without them silent damage can't be excluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.atomic import replacing_file

BATCH_ROWS = 65_536


class DataError(ValueError):
    """Input data was rejected; the message says where, what was expected and what was got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedBatch:
    """Rows ``first_row ...`` of one row group of one file."""

    file: Path
    row_group: int
    first_row: int
    rows: pa.RecordBatch


def find_files(path: Path) -> list[Path]:
    """The Parquet files of ``path``: itself, or all below it, by name; each once.

    Links are followed, to folders too. What begins with ``.`` or ``_`` is left out.

    Raises:
        DataError: nothing there, a folder without Parquet files, or one of which a part can't be
            read: rows must not go missing silently.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    root = path.stat()
    files = sorted(_files_below(path, seen={(root.st_dev, root.st_ino)}))
    if not files:
        raise DataError(f"{path}: holds no *.parquet files")
    return files


def _files_below(folder: Path, *, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The Parquet files below ``folder`` that are not in ``seen`` (device and inode) yet."""
    try:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith((".", "_")):
                continue
            is_folder = entry.is_dir()  # a folder may be called day-1.parquet, too
            if not is_folder and entry.suffix.lower() != ".parquet":
                continue
            status = entry.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if is_folder:
                yield from _files_below(entry, seen=seen)
            elif entry.is_file():
                yield entry
            else:
                raise DataError(f"{entry}: is neither a file nor a folder")
    except OSError as error:
        what = "is a link that leads nowhere" if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{error.filename}: {what or error.strerror or error}") from None


def open_file(file: Path) -> pq.ParquetFile:
    """Open one file, verifying page checksums on read.

    Raises:
        DataError: empty, truncated, not Parquet or unreadable; the file is named.
    """
    try:
        size = file.stat().st_size
        if size == 0:
            raise DataError(f"{file}: is empty (0 bytes), expected a Parquet file")
        with file.open("rb") as stream:
            head = stream.read(4)
            stream.seek(max(0, size - 4))
            tail = stream.read(4)
        if head != b"PAR1":
            raise DataError(f"{file}: is not a Parquet file (it does not begin with PAR1)")
        if tail != b"PAR1":
            raise DataError(f"{file}: is truncated (it does not end with PAR1); copy it again")
        return pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    except UnicodeEncodeError:
        raise DataError(f"{str(file)!r}: the name is no UTF-8; give it another") from None
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # of a damaged column's name
        raise DataError(f"{file}: can't be opened as Parquet: {_first_line(error)}") from None


def stream(path: Path, columns: Sequence[str] | None = None) -> Iterator[LocatedBatch]:
    """Read all rows of a file or folder in bounded memory (all columns when ``None``).

    Raises:
        DataError: damage, naming file, row group and, where it can be told, the column.
    """
    for file in find_files(path):
        parquet = open_file(file)
        for row_group in range(parquet.num_row_groups):
            yield from stream_row_group(parquet, file, row_group, columns)


def stream_row_group(
    parquet: pq.ParquetFile, file: Path, row_group: int, columns: Sequence[str] | None
) -> Iterator[LocatedBatch]:
    """Read one row group of an open file (`stream`'s errors)."""
    first_row = 0
    batches = parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[row_group], columns=columns)
    while True:
        try:
            rows = next(batches, None)
        except MemoryError:  # pyarrow's is an ArrowException, too, but nothing is damaged
            raise
        except (pa.ArrowException, OSError) as error:
            column = _damaged_column(parquet, row_group)
            raise DataError(
                f"{file}: row group {row_group}{column}: damaged: {_first_line(error)}; "
                "copy the file again"
            ) from None
        if rows is None:
            return
        if rows.schema != (plain := without_views(rows.schema)):
            rows = rows.cast(plain)
        yield LocatedBatch(file=file, row_group=row_group, first_row=first_row, rows=rows)
        first_row += rows.num_rows


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a small table whole (`stream`'s errors)."""
    schema = without_views(open_file(find_files(path)[0]).schema_arrow)
    if columns is not None:
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise DataError(
                f"{path}: column {missing[0]!r} is missing; it has {sorted(schema.names)}"
            )
    batches = [located.rows for located in stream(path, columns)]
    if batches:
        try:
            return pa.Table.from_batches(batches)
        except pa.ArrowException as error:
            raise DataError(f"{path}: its files differ in columns: {_first_line(error)}") from None
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return schema.empty_table()


def write_table(path: Path, table: pa.Table) -> None:
    """Write atomically with page checksums; equal tables give equal bytes."""
    with replacing_file(path) as temporary:
        # One chunk: how a table was put together would show in its pages.
        whole = table.combine_chunks()
        pq.write_table(whole, temporary, compression="zstd", write_page_checksum=True)


def without_views(schema: pa.Schema) -> pa.Schema:
    """The same columns with texts and bytes laid out one after another."""
    return pa.schema([field.with_type(_without_view(field.type)) for field in schema])


def _without_view(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_view(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_view(kind.value_type)))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _without_view(kind.value_type), kind.ordered)
    return kind


def _damaged_column(parquet: pq.ParquetFile, row_group: int) -> str:
    for name in parquet.schema_arrow.names:
        try:
            parquet.read_row_group(row_group, columns=[name])
        except (pa.ArrowException, OSError):
            return f", column {name!r}"
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
