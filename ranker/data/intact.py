"""Prepared data is used as it was written, or not at all.

Its manifest has the sha256 of the files that describe it; ``store.json`` among them has every
column's, and the manifests of the states have those of their files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranker.atomic import MANIFEST, sha256_of
from ranker.data.encode import ENCODERS_FILE
from ranker.data.parallel import map_columns
from ranker.data.parquet import DataError
from ranker.data.store import STORE_FILE, EncodedStore, block_file, elements_file, ends_file
from ranker.manifest import find_changed, find_damage, is_intact

KIND = "prepared data"
PIECE_ROWS = 100_000
_OF_THE_STORE = ("schema.yaml", f"store/{STORE_FILE}", f"store/{ENCODERS_FILE}")


def describing_files(prepared: Path) -> dict[str, str]:
    """Relative path -> sha256 of the schema, the store's description and all states' manifests."""
    names = list(_OF_THE_STORE)
    states = [prepared / "state", *sorted((prepared / "snapshots").glob("*"))]
    names += [(state / MANIFEST).relative_to(prepared).as_posix() for state in states]
    return {name: sha256_of(prepared / name) for name in names}


def open_intact_store(prepared: Path) -> EncodedStore:
    """Open a store whose every byte is what `prepare` wrote; reads it once.

    Raises:
        DataError: none there, changed or damaged; the column or file is named.
    """
    files = {name: sha256 for name, sha256 in _files(prepared).items() if name in _OF_THE_STORE}
    _refuse(prepared, find_changed(prepared, files))
    store = EncodedStore(prepared)
    damaged = _damaged_columns(store)
    _refuse(prepared, [f"column {n!r}: its sha256 differs: changed or damaged" for n in damaged])
    return store


def is_whole(prepared: Path) -> bool:
    """True if store, state and snapshots are all there and as they were written."""
    try:
        open_intact_store(prepared)
        files = _files(prepared)
        if find_changed(prepared, files):
            return False
        states = [(prepared / name).parent for name in files if name.endswith(f"/{MANIFEST}")]
        return not any(find_damage(state, _read(state)["files"]) for state in states)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _damaged_columns(store: EncodedStore) -> list[str]:
    """The columns whose content is not that of their sha256."""
    root = store.folder / "store"
    digests = {name: hashlib.sha256() for name in store.sha256_by_column}
    files = [(root / block_file(b), b.dtype, b.columns) for b in store.blocks.values()]
    files += [(root / elements_file(one), "<i4", one.columns) for one in store.ragged.values()]
    map_columns(lambda file: _digest_columns(*file, digests), files)
    for ragged in store.ragged.values():
        ends = bytes.fromhex(sha256_of(root / ends_file(ragged)))
        for name in ragged.columns:
            digests[name].update(ends)
    return [n for n, found in digests.items() if found.hexdigest() != store.sha256_by_column[n]]


def _digest_columns(
    path: Path, dtype: str, columns: tuple[str, ...], digests: Mapping[str, hashlib._Hash]
) -> None:
    """Feed each column of a row-major file to its digest, a piece of all columns at a time."""
    width = len(columns)
    with path.open("rb") as file:  # read, not mapped: what is mapped counts as the job's memory
        while piece := file.read(PIECE_ROWS * width * np.dtype(dtype).itemsize):
            matrix = np.frombuffer(piece, dtype=dtype).reshape(-1, width)
            for place, name in enumerate(columns):
                digests[name].update(np.ascontiguousarray(matrix[:, place]).data)


def _files(prepared: Path) -> dict[str, str]:
    try:
        manifest = _read(prepared)
        if manifest["kind"] != KIND:
            raise FileNotFoundError
        files = dict(manifest["files"])
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{prepared}: holds no prepared data; run `ranker prepare`") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{prepared / MANIFEST}: damaged, or of another version of ranker; run "
            "`ranker prepare` again"
        ) from None
    if not is_intact(manifest):
        raise DataError(f"{prepared / MANIFEST}: changed or damaged; run `ranker prepare` again")
    return files


def _refuse(prepared: Path, problems: list[str]) -> None:
    if problems:
        raise DataError(f"{prepared}: {'; '.join(problems)}; run `ranker prepare` again")


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return found
