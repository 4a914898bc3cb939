"""The folder in which a job's output grows, and how it becomes the output.

``.NAME.partial/`` lies beside ``NAME``. It holds the finished parts, and hidden files that readers
of Parquet folders skip: ``.job.json`` (what is scored, with which plan), ``.part-00000.json``
(which part of which job it is, its sha256, rows and counts) and ``.lock``. At the end
``_manifest.json`` is written, and a rename makes the folder ``NAME``.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.atomic import (
    SLATES_MANIFEST,
    OutputError,
    clear_up_after_killed,
    put_folder_in_place,
    replacing_file,
    require_free_or_folder,
    require_nothing_else,
    sha256_of,
    write_json,
)
from ranker.manifest import OWN_DIGEST, digest_of
from ranker.only_writer import LOCK_FILE, only_writer
from ranker.scoring.job.shard_counts import ShardCounts

KIND = "slates"
JOB_FILE = ".job.json"
_NAMES = r"part-\d{5,}\.parquet|\.part-\d{5,}\.json|\.job\.json|_manifest\.json"
# or what a killed process was writing of them
_OURS = re.compile(rf"{re.escape(LOCK_FILE)}|{_NAMES}|\.({_NAMES})\.\d+\.tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPart:
    """A part that is there whole."""

    index: int
    name: str
    rows: int
    sha256: str
    counts: ShardCounts


@dataclass(frozen=True, slots=True)
class PartialFolder:
    """``.NAME.partial`` beside the output ``NAME``."""

    output: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.output.with_name(f".{self.output.name}.partial")

    def read_job(self) -> dict[str, Any] | None:
        """The job that was begun here; None if there is none."""
        try:
            found = json.loads((self.path / JOB_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs out, also after a crash; makes the folder.

        Raises:
            OutputError: another job writes to the same output, or the folder holds what no job has
                written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with only_writer(self.path, command="score"):
            self._require_only_ours()
            yield

    def begin(self, job: Mapping[str, Any]) -> int:
        """Write down a job in place of an earlier one; returns how many parts that had."""
        num_parts = len(list(self.path.glob("part-*.parquet")))
        for file in self.path.iterdir():
            if file.name != LOCK_FILE:
                file.unlink()
        write_json(self.path / JOB_FILE, job)
        return num_parts

    def _require_only_ours(self) -> None:
        foreign = [
            file.name
            for file in self.path.iterdir()
            if not file.is_file() or not _OURS.fullmatch(file.name)
        ]
        if foreign:
            raise OutputError(
                f"{self.path}: holds {sorted(foreign)[0]!r}, which no scoring job has written, and "
                "it is where this one works; move it away, or choose another --output"
            )

    def discard(self) -> None:
        """Delete it all, but nothing that no job has written."""
        for file in self.path.iterdir():
            if file.is_file() and _OURS.fullmatch(file.name):
                file.unlink()
        with contextlib.suppress(OSError):  # not empty
            self.path.rmdir()

    def finished(self, num_shards: int) -> dict[int, FinishedPart]:
        """The parts that are there with the bytes that were written; others are as good as none."""
        parts, job = {}, sha256_of(self.path / JOB_FILE)
        for index in range(num_shards):
            part = self._read_part(index, job)
            if part is not None:
                parts[index] = part
        return parts

    def _read_part(self, index: int, job: str) -> FinishedPart | None:
        name = part_name(index)
        try:
            values = json.loads(_note_of(self.path / name).read_text(encoding="utf-8"))
            # one that was renamed, or is another job's, is no part of this
            if values[OWN_DIGEST] != digest_of(values):
                return None
            if (values["job"], values["part"]) != (job, name):
                return None
            part = FinishedPart(
                index=index,
                name=name,
                rows=pq.read_metadata(self.path / name).num_rows,
                sha256=values["part_sha256"],
                counts=ShardCounts.from_json(values["counts"]),
            )
            intact = sha256_of(self.path / name) == part.sha256
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            return None
        return part if intact else None

    def publish(self, manifest: Mapping[str, Any], parts: list[FinishedPart]) -> None:
        """Write the manifest and make this folder the output.

        Raises:
            OutputError: somebody has put something there meanwhile; the job can be resumed.
        """
        self._require_only_ours()
        names = {part.name for part in parts}
        for file in self.path.iterdir():
            if not file.name.startswith(".") and file.name not in names:
                file.unlink()
        write_json(self.path / SLATES_MANIFEST, manifest)
        clear_up_after_killed(self.output)
        check_slates_replaceable(self.output)
        put_folder_in_place(self.path, self.output)
        # Only now: killed before, the job can still be resumed.
        for file in self.output.iterdir():
            if file.name.startswith("."):
                file.unlink()


def part_name(index: int) -> str:
    """The file of a shard."""
    return f"part-{index:05d}.parquet"


def write_part(folder: Path, index: int, table: pa.Table, counts: ShardCounts) -> FinishedPart:
    """Write a shard's slates, then the note that says so; equal tables give equal bytes.

    Raises:
        OSError: the disk is full, or ``folder`` has become the output already.
    """
    if not (folder / JOB_FILE).is_file():
        raise FileNotFoundError(f"{folder}: no job is going on there")
    path = folder / part_name(index)
    whole = table.combine_chunks()
    # Scores and predictions hardly repeat: a dictionary of them costs time and saves nothing.
    repeating = [f.name for f in whole.schema if not pa.types.is_floating(f.type)]
    with replacing_file(path) as temporary:
        pq.write_table(
            whole,
            temporary,
            compression="zstd",
            use_dictionary=repeating,
            write_page_checksum=True,
        )
    part = FinishedPart(
        index=index, name=path.name, rows=whole.num_rows, sha256=sha256_of(path), counts=counts
    )
    note = {
        "job": sha256_of(folder / JOB_FILE),
        "part": part.name,
        "rows": part.rows,
        "part_sha256": part.sha256,
        "counts": counts.to_json(),
    }
    write_json(_note_of(path), {**note, OWN_DIGEST: digest_of(note)})
    return part


def check_slates_replaceable(output: Path) -> None:
    """Raise `OutputError` unless ``output`` is free, empty, or an earlier job's output."""
    if output.is_file():
        raise OutputError(
            f"{output}: is a file; slates are a folder of parts now. If an earlier version wrote "
            "it, delete it and its .manifest.json, else choose another --output"
        )
    require_free_or_folder(output)
    if not output.is_dir() or not any(output.iterdir()):
        return
    try:
        manifest = json.loads((output / SLATES_MANIFEST).read_text(encoding="utf-8"))
        is_ours = manifest["kind"] == KIND
        own = {SLATES_MANIFEST, *(part["name"] for part in manifest["parts"])}
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise OutputError(
            f"{output}: is a folder that holds no slates of an earlier job (no {SLATES_MANIFEST}); "
            "choose another --output"
        )
    # a job that was killed just after it had published leaves its notes
    require_nothing_else(output, {*own, *(f.name for f in output.iterdir() if _is_note(f))})


def _is_note(file: Path) -> bool:
    return file.name.startswith(".") and file.is_file() and bool(_OURS.fullmatch(file.name))


def _note_of(part: Path) -> Path:
    return part.with_name(f".{part.stem}.json")
