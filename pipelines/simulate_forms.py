"""The ways to call ``ranker simulate``: which arguments each needs, and which it can use."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ranker.config import ConfigError

ARM_DETAILS = tuple(
    f"{arm}_{what}" for arm in ("control", "treatment") for what in ("weights", "name")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A way to call the command: which of its arguments it needs, and which it can use."""

    trigger: str
    needed: tuple[str, ...]
    allowed: tuple[str, ...]

    def check(self, arguments: argparse.Namespace) -> None:
        """Raise `ConfigError` if one is missing, or one was given that means nothing here."""
        given = {name for name, value in vars(arguments).items() if value is not None}
        missing = [name for name in self.needed if name not in given]
        if missing and not arguments.print_config:
            raise ConfigError(f"{_option(missing[0])} is required with {self.trigger}")
        known = {
            "config",
            "overrides",
            "print_config",
            "json",
            "quiet",
            *self.needed,
            *self.allowed,
        }
        surplus = sorted(given - known)
        if surplus:
            raise ConfigError(f"{_option(surplus[0])} means nothing with {self.trigger}")


FILES = Form(
    trigger="--candidates",
    needed=("data", "state", "candidates", "before", "control", "treatment"),
    allowed=("output", "seed", *ARM_DETAILS),
)
WORLD = Form(
    trigger="--world",
    needed=("control", "treatment"),
    allowed=("world", "data", "state", "output", "seed", "jobs", *ARM_DETAILS),
)
WORLD_LOG = Form(trigger="--write-log", needed=("write_log",), allowed=("world", "seed", "jobs"))
LIKE = Form(trigger="--like", needed=("like", "schema"), allowed=("world", "output", "seed"))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
