"""``like >= -0.01``: how far a quantity may fall, relative to its value under today's weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ranker.config import ConfigError

_FORM = re.compile(r"\s*(?P<name>.+?)\s*>=\s*(?P<bound>[^<>=]+)")
_WORDS = "expected e.g. 'like >= 0' or 'like >= -1%', a change relative to today's weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """The relative change of ``quantity``, better being positive, must be at least ``bound``."""

    quantity: str
    bound: float

    def __str__(self) -> str:
        return f"{self.quantity} >= {self.bound:g}"


def parse_constraint(text: str, *, quantities: Sequence[str]) -> Constraint:
    """Read one constraint.

    Raises:
        ConfigError: another form, an unknown quantity, or a bound that is no number.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"subject_to {text!r}: {_WORDS}")
    name, number = match["name"], match["bound"].strip()
    try:
        bound = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ConfigError(f"subject_to {text!r}: {number!r} is not a number; {_WORDS}")
    if name not in quantities:
        raise ConfigError(f"subject_to {text!r}: {name!r} is not one of {[*quantities]}")
    return Constraint(quantity=name, bound=bound)
