"""Where the time of scoring goes, by stage, without a parameter in every signature between.

`StageClock.running` makes a clock the current one of its thread; `stage` charges what happens
inside to that clock, and to nobody where none runs. A stage within a stage is charged once, to
the inner one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

_current: ContextVar[StageClock | None] = ContextVar("stage_clock", default=None)


@dataclass(slots=True)
class StageClock:
    """Seconds by stage, in the order in which stages first began."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[StageClock]:
        """Let `stage` charge to this clock."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def add(self, seconds: dict[str, float]) -> None:
        """Take over what another clock has measured."""
        for name, spent in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def _switch(self) -> None:
        """Charge the time since the last switch to the innermost open stage."""
        now = time.perf_counter()
        if self._open:
            self.add({self._open[-1]: now - self._since})
        self._since = now


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Charge the time spent inside to stage ``name`` of the current clock, if one runs."""
    clock = _current.get()
    if clock is None:
        yield
        return
    clock._switch()
    clock._open.append(name)
    clock.seconds.setdefault(name, 0.0)
    try:
        yield
    finally:
        clock._switch()
        clock._open.pop()
