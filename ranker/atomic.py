"""Output that is there whole or not at all: sibling temporary files, fsync, rename, sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

MANIFEST = "manifest.json"
SLATES_MANIFEST = "_manifest.json"  # hidden from readers of Parquet folders


class OutputError(ValueError):
    """The output can't go where the user asked."""


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a sibling temporary path; on success it is synced and renamed over ``path``.

    A move across file systems could destroy the previous file on a full disk; a sibling can't.

    Raises:
        OutputError: see `require_free_or_file`.
    """
    require_free_or_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_up_after_killed(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write ``value`` atomically as indented JSON; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing_folder(path: Path, *, kind: str) -> Iterator[Path]:
    """Yield an empty sibling folder; on success it takes the place of ``path``.

    An existing folder is replaced only if its manifest says that it is an earlier output of the
    same ``kind``, so that a mistyped path never deletes anybody's data.

    Raises:
        OutputError: see `check_replaceable`.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a symbolic link
    check_replaceable(path, kind=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_up_after_killed(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        put_folder_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_folder_in_place(folder: Path, path: Path) -> None:
    """Rename a complete ``folder`` to its sibling ``path``, which is deleted afterwards.

    A symbolic link gives way to the folder; what it led to stays as it is.

    If the process is killed between the two renames, the next call that writes to ``path`` puts
    the previous folder back (`clear_up_after_killed`).
    """
    previous = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(previous)
    try:
        folder.rename(path)
    except OSError:
        if previous.exists():
            previous.rename(path)
        raise
    _sync(path.parent)
    _delete(previous)


def require_free_or_file(path: Path) -> None:
    """Raise `OutputError` if something is there that is no file: a folder, a device, a pipe."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if os.path.lexists(path) and not path.is_file() and not path.is_symlink():
        raise OutputError(f"{path}: is no file but a device, pipe or socket; name a file")


def require_free_or_folder(path: Path) -> None:
    """Raise `OutputError` if something is there that is no folder: a file, a pipe, a dead link."""
    if os.path.lexists(path) and not path.is_dir():
        what = "a file" if path.is_file() else "no folder, and nothing that becomes one"
        raise OutputError(f"{path}: is {what}; --output names a folder")


def check_replaceable(path: Path, *, kind: str) -> None:
    """Raise `OutputError` unless ``path`` is free, empty, or an earlier output of ``kind`` alone.

    Its manifest says what is its own: ``files`` by relative path, and further ``entries``.
    """
    require_free_or_folder(path)
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / MANIFEST).is_file():
        raise OutputError(
            f"{path}: is not empty and holds no {MANIFEST} of an earlier output; "
            "choose another folder"
        )
    found, own = "something unknown", None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["kind"]
        files = {Path(name).parts[0] for name in manifest["files"]}
        own = {MANIFEST, *manifest.get("entries", ()), *files}
    if found != kind:
        raise OutputError(
            f"{path}: holds {found}, and only {kind} may be replaced here; choose another folder"
        )
    if own is not None:
        require_nothing_else(path, own)


def require_nothing_else(path: Path, own: Collection[str]) -> None:
    """Raise `OutputError` if the folder ``path`` holds more than what is called as in ``own``."""
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in own)
    if foreign:
        raise OutputError(
            f"{path}: holds {foreign[0]!r}, which is no part of this output and would be deleted "
            "with it; move it away, or choose another --output"
        )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_up_after_killed(path: Path) -> None:
    """Delete what killed processes left beside ``path``; put back a folder they had moved away."""
    for sibling in path.parent.iterdir():
        name, _, kind = sibling.name.rpartition(".")
        name, _, process = name.rpartition(".")
        if name != f".{path.name}" or kind not in ("tmp", "old") or not process.isdecimal():
            continue
        # Our own number is that of a killed process, too: in a container all have the same.
        if int(process) != os.getpid() and _is_running(int(process)):
            continue
        if kind == "old" and not path.exists():
            sibling.rename(path)
        else:
            _delete(sibling)


def _delete(path: Path) -> None:
    """A folder with all it holds, a file, or a symbolic link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
