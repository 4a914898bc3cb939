"""Which candidates make a shard: decided in one pass over the columns that tell requests apart.

A plan is a function of the files, their order by name and ``shard_rows``, not of who scores the
shards. It needs about 10 bytes a request to see that none comes twice.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.parquet import DataError, LocatedBatch, find_files, open_file, stream
from ranker.data.problems import ProblemLog
from ranker.data.row_hash import hash_rows
from ranker.data.tables import convert_request_keys, request_columns
from ranker.schema import Schema
from ranker.scoring.job.request_runs import differs_from_previous

IntArray = npt.NDArray[np.int64]
Report = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One Parquet file of candidates, and what tells whether it is still the same.

    Attributes:
        name: relative to the folder that was given, or the file's own.
        footer_sha256: of its metadata, which holds the place and the statistics of all pages.
    """

    name: str
    size: int
    mtime_ns: int
    footer_sha256: str
    rows_by_row_group: tuple[int, ...]

    def path(self, root: Path) -> Path:
        """Where it is, if ``root`` was given as the input."""
        return root if root.is_file() else root / self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Rows ``start:stop`` of all files one after the other, and how many requests they hold."""

    start: int
    stop: int
    requests: int

    @property
    def num_rows(self) -> int:
        """Candidates of the shard."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The files in order, and the shards that cover their rows."""

    files: tuple[InputFile, ...]
    shards: tuple[Shard, ...]

    @property
    def num_rows(self) -> int:
        """Candidates in all."""
        return self.shards[-1].stop

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "files": [asdict(file) for file in self.files],
            "shards": [[shard.start, shard.stop, shard.requests] for shard in self.shards],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShardPlan:
        """What `to_json` gave."""
        files = [
            InputFile(**{**file, "rows_by_row_group": tuple(file["rows_by_row_group"])})
            for file in values["files"]
        ]
        shards = [Shard(start=a, stop=b, requests=n) for a, b, n in values["shards"]]
        return cls(files=tuple(files), shards=tuple(shards))


def input_files(root: Path) -> tuple[InputFile, ...]:
    """The Parquet files of ``root`` as they are now.

    Raises:
        DataError: none there, or one that can't be opened.
    """
    files = []
    for path in find_files(root):
        metadata = open_file(path).metadata
        stat = path.stat()
        groups = range(metadata.num_row_groups)
        files.append(
            InputFile(
                name=path.name if path == root else path.relative_to(root).as_posix(),
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                footer_sha256=_footer_sha256(path),
                rows_by_row_group=tuple(metadata.row_group(g).num_rows for g in groups),
            )
        )
    return tuple(files)


def make_plan(
    root: Path, schema: Schema, *, shard_rows: int, report: Report | None = None
) -> ShardPlan:
    """Cut candidates at the first end of a request after every ``shard_rows`` rows.

    Args:
        root: a Parquet file or folder.
        schema: of the candidates.
        shard_rows: a shard has fewer only at the end, and at most one list more.
        report: is told how many of all rows have been read.

    Raises:
        DataError: no rows, damage, keys that are null or impossible, or a request whose rows do
            not lie together.
    """
    files = input_files(root)
    num_rows = sum(sum(file.rows_by_row_group) for file in files)
    if num_rows == 0:
        raise DataError(f"{root}: holds no rows")
    problems = ProblemLog()
    cutter, hashes = _Cutter(shard_rows=shard_rows), array("q")
    for begins in _beginnings(root, schema, problems):
        cutter.take(begins.first_row + begins.rows)
        hashes.frombytes(begins.hashes.tobytes())
        if report is not None:
            report(begins.stop, num_rows)
    if problems.bad_rows:
        raise DataError(f"{root} is rejected:\n" + "\n".join(problems.sentences()))
    repeated = _repeated(hashes)
    if len(repeated):
        _refuse_parted_requests(root, schema, repeated)
    return ShardPlan(files=files, shards=cutter.shards(num_rows))


def describe_changes(before: Sequence[InputFile], now: Sequence[InputFile]) -> list[str]:
    """One phrase for each file that is new, gone or changed."""
    old, new = ({file.name: file for file in files} for files in (before, now))
    phrases = [f"{name} is gone" for name in old if name not in new]
    phrases += [f"{name} is new" for name in new if name not in old]
    for name in old.keys() & new.keys():
        if old[name].size != new[name].size:
            phrases.append(f"{name} had {old[name].size:,} bytes and has {new[name].size:,}")
        elif old[name] != new[name]:
            phrases.append(f"{name} was written anew")
    return sorted(phrases)


@dataclass(slots=True)
class _Cutter:
    """Decides where shards end, from the rows at which requests begin, in ascending order."""

    shard_rows: int
    _starts: list[int] = field(default_factory=lambda: [0])
    _requests_before: list[int] = field(default_factory=lambda: [0])
    _requests: int = 0

    def take(self, begins: IntArray) -> None:
        """Look at the beginnings of the next requests."""
        while True:
            place = int(np.searchsorted(begins, self._starts[-1] + self.shard_rows))
            if place == len(begins):
                break
            self._starts.append(int(begins[place]))
            self._requests_before.append(self._requests + place)
        self._requests += len(begins)

    def shards(self, num_rows: int) -> tuple[Shard, ...]:
        """The shards of all rows."""
        stops = [*self._starts[1:], num_rows]
        requests = np.diff([*self._requests_before, self._requests]).tolist()
        return tuple(
            Shard(start=start, stop=stop, requests=count)
            for start, stop, count in zip(self._starts, stops, requests, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Beginnings:
    """The rows of a batch at which another request begins than that of the row before.

    ``first_row`` and ``stop`` count all rows; ``rows`` those of the batch.
    """

    located: LocatedBatch
    first_row: int
    stop: int
    keys: Mapping[str, pa.Array]
    rows: IntArray
    hashes: npt.NDArray[np.int64]


def _beginnings(root: Path, schema: Schema, problems: ProblemLog) -> Iterator[_Beginnings]:
    first_row = 0
    last: dict[str, pa.Array] | None = None
    for located in stream(root, request_columns(schema)):
        num_rows = located.rows.num_rows
        if num_rows == 0:
            continue
        keys = convert_request_keys(located, schema, problems)
        begins = differs_from_previous(keys)
        heads = {name: values.slice(0, 1) for name, values in keys.items()}
        is_new = last is None or any(heads[name][0] != last[name][0] for name in heads)
        rows = np.flatnonzero(np.append(is_new, begins))
        taken = {name: values.take(pa.array(rows)) for name, values in keys.items()}
        yield _Beginnings(
            located=located,
            first_row=first_row,
            stop=first_row + num_rows,
            keys=taken,
            rows=rows,
            hashes=hash_rows(taken) if len(rows) else np.zeros(0, dtype=np.int64),
        )
        last = {name: values.slice(num_rows - 1, 1) for name, values in keys.items()}
        first_row += num_rows


def _repeated(hashes: array[int]) -> npt.NDArray[np.int64]:
    """Hashes that occur more than once; sorts them in place, as a copy would double the memory."""
    every = np.frombuffer(hashes, dtype=np.int64)
    every.sort()
    return np.unique(every[1:][every[1:] == every[:-1]])


def _refuse_parted_requests(root: Path, schema: Schema, suspected: npt.NDArray[np.int64]) -> None:
    """Raise `DataError` for the first request that comes again; equal hashes alone are chance."""
    place_by_key: dict[tuple[object, ...], str] = {}
    for begins in _beginnings(root, schema, ProblemLog()):
        for place in np.flatnonzero(np.isin(begins.hashes, suspected)):
            key = tuple(values[int(place)].as_py() for values in begins.keys.values())
            located = begins.located
            row = located.first_row + int(begins.rows[place])
            where = f"{located.file}: row group {located.row_group}, row {row}"
            if key in place_by_key:
                named = ", ".join(
                    f"{name} {value!r}"
                    for name, value in zip(request_columns(schema), key, strict=True)
                )
                raise DataError(
                    f"{where}: the request ({named}) comes again after other requests; it began "
                    f"at {place_by_key[key]}. All candidates of a request must lie together: sort "
                    f"the candidates by {' and '.join(request_columns(schema))}"
                )
            place_by_key[key] = where


def _footer_sha256(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return hashlib.sha256(file.read(length)).hexdigest()
