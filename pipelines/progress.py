"""How far a job is: a bar on a terminal, a plain line every 10 s elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pipelines.console import Console, ProgressLine

if TYPE_CHECKING:
    from rich.progress import Progress, Task


class ProgressBar:
    """Rate and time left of one piece of work, whose clock starts with the first update."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._bar: Progress | None = None
        self._line: ProgressLine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units are done."""
        if self._console.quiet:
            return
        if not sys.stderr.isatty():
            if self._line is None:
                started = time.perf_counter()
                self._line = ProgressLine(self._console, self._what, started=started)
            self._line.update(done=done, total=total)
            return
        if self._bar is None:
            self._bar = _make_bar()
            self._bar.add_task(self._what, total=total)
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=done, total=total)
        if done >= total:
            self._bar.stop()  # a terminal has room for one bar at a time


def _make_bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("?/s" if speed is None else f"{speed:,.0f}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=RichConsole(stderr=True),
    )
