"""Is prepared data still that of its inputs? Told by their content, not by clocks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ranker.atomic import MANIFEST, sha256_of, write_json
from ranker.config import digest
from ranker.data import state, store
from ranker.data.intact import is_whole
from ranker.data.parallel import map_columns
from ranker.data.parquet import find_files
from ranker.data.prepare import Inputs, PrepareSettings, check_inputs
from ranker.schema import Schema

ORIGIN = "origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What prepared data follows from: equal origins give equal bytes.

    Attributes:
        formats: of the store and the state that this version writes.
        schema: the schema's digest.
        settings: the digest of the settings, without those that only bound memory.
        files: role and name of each input file -> its sha256.
    """

    formats: tuple[int, int]
    schema: str
    settings: str
    files: dict[str, str]

    def digest(self) -> str:
        """Hex sha256 of all of it."""
        parts = [self.formats, self.schema, self.settings, sorted(self.files.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_origin(inputs: Inputs, schema: Schema, settings: PrepareSettings) -> Origin:
    """Read all input files once, for their sha256.

    Raises:
        DataError: an input is missing, or one is given that the schema does not ask for.
    """
    check_inputs(inputs, schema)
    roles = {
        "log": inputs.log,
        "users": inputs.users,
        "items": inputs.items,
        "earlier_history": inputs.earlier_history,
    }
    files: dict[str, Path] = {}
    for role, path in roles.items():
        if path is not None:
            files |= {f"{role}/{_name(file, path)}": file for file in find_files(path)}
    sha256s = dict(zip(files, map_columns(sha256_of, files.values()), strict=True))
    if inputs.state is not None:
        sha256s["state"] = sha256_of(inputs.state / MANIFEST)  # which holds all others
    unbounded = settings.model_copy(update={"sort_rows": 1, "chunk_rows": 1})
    return Origin(
        formats=(store.FORMAT, state.FORMAT),
        schema=digest(schema),
        settings=digest(unbounded),
        files=sha256s,
    )


def write_origin(prepared: Path, origin: Origin) -> None:
    """Note beside prepared data what it was made of."""
    write_json(prepared / ORIGIN, {"digest": origin.digest(), "files": origin.files})


def is_made_of(prepared: Path, origin: Origin) -> bool:
    """True if ``prepared`` is an intact earlier output of the same origin."""
    try:
        noted = json.loads((prepared / ORIGIN).read_text(encoding="utf-8"))["digest"]
        if noted != origin.digest():
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_whole(prepared)


def _name(file: Path, path: Path) -> str:
    return file.name if file == path else file.relative_to(path).as_posix()
