"""The files of `ranker join`: where they may go, and impressions in one type of columns."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import require_apart, require_not_in_held
from ranker.atomic import OutputError, check_replaceable, replacing_file, require_free_or_file

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "impressions"


@contextlib.contextmanager
def also_writing(path: Path | None, table: pa.Table) -> Iterator[None]:
    """Write ``table`` beside ``path``, and put it in its place once all else is in its own."""
    if path is None:
        yield
        return
    import pyarrow.parquet as pq

    with replacing_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        yield


def write_parts(
    impressions: Iterator[tuple[Path, pa.Table]], file_of: Callable[[int], Path]
) -> None:
    """Write batch after batch, to a new file for each file of slates where there may be several."""
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    source, target = None, None
    number = -1
    try:
        for file, table in impressions:
            number += file != source
            source = file
            if writer is None or file_of(number) != target:
                if writer is not None:
                    writer.close()
                target = file_of(number)
                writer = pq.ParquetWriter(
                    target, table.schema, compression="zstd", write_page_checksum=True
                )
            writer.write_table(_like(table, writer.schema, file))
    finally:
        if writer is not None:
            writer.close()


def _like(table: pa.Table, schema: pa.Schema, file: Path) -> pa.Table:
    """Files of slates may differ in types, impressions may not."""
    import pyarrow as pa

    from ranker.data.parquet import DataError

    try:
        table = table.select(schema.names)
        for ours, theirs in zip(table.schema, schema, strict=True):
            if _sort_of(ours.type) != _sort_of(theirs.type):
                raise pa.ArrowTypeError(f"{ours.name!r} is {ours.type} here, {theirs.type} there")
        return table.cast(schema)
    except (pa.ArrowException, KeyError) as error:
        raise DataError(
            f"{file}: its columns differ from those of the slates before it: {error}; join them "
            "into a folder (--output without .parquet), or one by one"
        ) from None


def _sort_of(kind: pa.DataType) -> str:
    """What may be written as one another without saying something else; a null fits anything."""
    import pyarrow as pa

    from ranker.data.column_types import is_text

    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if is_text(kind):
        return "text"
    return "time" if pa.types.is_temporal(kind) else str(kind)


def manifest_beside(output: Path) -> Path:
    """The manifest of a file of impressions."""
    return output.with_name(output.name + ".manifest.json")


def _require_ours(manifest: Path) -> None:
    """Raise `OutputError` if something else than an earlier join's manifest is there."""
    require_free_or_file(manifest)
    if not manifest.exists():
        return
    try:
        ours = json.loads(manifest.read_text(encoding="utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise OutputError(f"{manifest}: is no join's manifest, which would go there; move it away")


def is_file(output: Path) -> bool:
    """Whether impressions go into one file, or else a folder."""
    return output.suffix == ".parquet"


def check_outputs(output: Path, arguments: argparse.Namespace) -> None:
    """Refuse what would overwrite an input or somebody's folder, before the work begins."""
    inputs = (arguments.slates, arguments.outcomes, arguments.schema)
    require_apart(output, *inputs)
    unmatched: Path | None = arguments.unmatched
    if unmatched is not None:
        require_free_or_file(unmatched)
        require_not_in_held(unmatched)
        require_apart(unmatched, *inputs)
        if unmatched.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{unmatched}: lies in --output; choose another")
        if unmatched.resolve() == manifest_beside(output).resolve():
            raise OutputError(f"{unmatched}: is where --output gets its manifest; choose another")
    if is_file(output):
        require_free_or_file(output)
        _require_ours(manifest_beside(output))
    else:
        check_replaceable(output, kind=KIND)
