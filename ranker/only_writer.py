"""One process at a time writes to an output folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from ranker.atomic import OutputError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def only_writer(folder: Path, *, command: str) -> Iterator[None]:
    """Keep other processes out of ``folder``, which exists; the lock ends with its process.

    The file stays: who deletes it could delete one that the next process already waits at.

    Raises:
        OutputError: another process is inside.
    """
    with (folder / LOCK_FILE).open("a") as file:
        try:
            # lockf, not flock: a forked worker that outlives a killed process must not keep it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            raise OutputError(
                f"{folder}: another `ranker {command}` is writing there; let it end, or choose "
                "another --output"
            ) from None
        yield
