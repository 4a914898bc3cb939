"""What a command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

PLAIN_LINE_EVERY_S = 10.0


class OutlivingStream:
    """A standard stream that may be lost: the work and its exit code matter more.

    Args:
        stream: the stream.
        lost: the errors after which it is written to no more.
    """

    def __init__(self, stream: TextIO, lost: type[OSError]) -> None:
        self._stream, self._lost = stream, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or once it is lost: write nowhere."""
        try:
            return self._stream.write(text)
        except self._lost:
            self._write_nowhere()
            return len(text)

    def flush(self) -> None:
        """See `write`."""
        try:
            self._stream.flush()
        except self._lost:
            self._write_nowhere()

    def _write_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def outliving_readers() -> Iterator[None]:
    """Make stdout and stderr `OutlivingStream`; one that was closed from the start, nowhere."""
    given = sys.stdout, sys.stderr
    with Path(os.devnull).open("w") as nowhere:
        # a result that finds no room is an error; a message that does not is only lost
        sys.stdout = cast("TextIO", OutlivingStream(given[0] or nowhere, BrokenPipeError))
        sys.stderr = cast("TextIO", OutlivingStream(given[1] or nowhere, OSError))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = given


@dataclass(slots=True)
class Console:
    """Results and messages of one command."""

    json_output: bool = False
    quiet: bool = False

    def say(self, text: str) -> None:
        """A message for people, on stderr; an empty one is none."""
        if text and not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """An error, on stderr, even when quiet."""
        print(f"ranker: {text}", file=sys.stderr, flush=True)

    def result(self, text: str, value: object) -> None:
        """The command's result: ``text`` for people, or with --json ``value`` as one object."""
        if self.json_output:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)
        else:
            print(text, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        """A plain table; columns after the first are right-aligned unless they hold words."""
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(header, widths, strict=True)).rstrip()]
        lines.append("  ".join("-" * width for width in widths))
        for row in rows:
            cells = [cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


@dataclass(slots=True)
class ProgressLine:
    """Rate and time left: one changing line on a terminal, a plain line every 10 s elsewhere."""

    console: Console
    what: str
    started: float = field(default_factory=time.perf_counter)
    _printed: float = field(default=0.0)

    def update(self, *, done: int, total: int, detail: str = "") -> None:
        """Report that ``done`` of ``total`` units are done."""
        now = time.perf_counter()
        terminal = sys.stderr.isatty()
        pause_s = 0.2 if terminal else PLAIN_LINE_EVERY_S
        finished = done >= total
        if self.console.quiet or (
            now - max(self._printed, self.started) < pause_s and not finished
        ):
            return
        if finished and not terminal and self._printed == 0.0:
            return
        self._printed = now
        seconds = max(now - self.started, 1e-9)
        rate = done / seconds
        left_s = (total - done) / rate if rate > 0 else float("inf")
        text = (
            f"{self.what}{f' {detail}' if detail else ''}: {done:,}/{total:,} "
            f"({rate:,.{0 if rate >= 10 else 1}f}/s, {_duration(left_s)} left)"
        )
        end = "\n" if finished or not terminal else "\r"
        print(text.ljust(79) if terminal else text, file=sys.stderr, end=end, flush=True)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
