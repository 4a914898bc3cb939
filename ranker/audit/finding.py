"""What a check found: how serious, in a sentence, in numbers, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["fine", "look", "problem"]
Topic = Literal[
    "columns",
    "time",
    "rows",
    "labels",
    "leaks",
    "positions",
    "propensities",
    "requests",
    "users and items",
    "experiments",
]
Number = int | float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding.

    Attributes:
        level: "fine" needs nothing, "look" a person's eye, "problem" a remedy.
        sentence: what was found.
        remedy: what to do; empty for "fine".
        numbers: the figures behind the sentence; None where one can't be told.
    """

    level: Level
    topic: Topic
    sentence: str
    remedy: str = ""
    numbers: Mapping[str, Number] = field(default_factory=dict)


def percent(share: float) -> str:
    """A share for a sentence: never a rounded 0 % or 100 % where it is neither."""
    if 0 < share < 0.001:
        return f"{100 * share:.2g} %"
    if 0.999 < share < 1:
        return f"{100 * share:.2f} %" if share < 0.9999 else "nearly 100 %"
    return f"{100 * share:.1f} %"
