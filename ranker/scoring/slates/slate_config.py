"""What a slate may look like, and how much of it is left to chance."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ranker.config import Config

Cap = Annotated[int, Field(ge=1)]
MAX_SIZE = 1_000_000


class Freshness(Config):
    """Items that are older at the time of the request are not shown.

    Attributes:
        column: a feature of the item with ``transform: age_days``, or a column of the candidates:
            a timestamp, a date, or an integer in the log's time unit.
        max_age_hours: an item exactly this old may still be shown; one that is published after
            the request counts as new.
        unknown: whether items whose age is not known (no row in the item table, or a null) may be
            shown. By default not: nobody could say that they are fresh.
    """

    column: str
    max_age_hours: float = Field(gt=0)
    unknown: Literal["hide", "show"] = "hide"


class NoExploration(Config):
    """The best first, always the same."""

    kind: Literal["none"] = "none"


class PlackettLuce(Config):
    """Each rank is drawn from what is left with probability ∝ exp(logit / temperature).

    A low temperature is close to the best first, a high one to any order alike. It is in the unit
    of the logits: the logarithm of the score for weighted products, the score itself for sums.
    """

    kind: Literal["plackett_luce"] = "plackett_luce"
    temperature: float = Field(gt=0)


class EpsilonMix(Config):
    """Each rank is with probability ``epsilon`` drawn evenly from what is left, else the best."""

    kind: Literal["epsilon"] = "epsilon"
    epsilon: float = Field(ge=0, le=1)


Exploration = Annotated[NoExploration | PlackettLuce | EpsilonMix, Field(discriminator="kind")]


class SlateConfig(Config):
    """How slates are made of scored candidates.

    Attributes:
        size: so many items a request, fewer where the constraints leave fewer.
        max_per: feature of the item or column of the candidates -> at most so many items of one
            value in a slate (``{author_id: 2}``). Items without a value are not capped.
        freshness: see `Freshness`; none where not given.
        exploration: see `PlackettLuce`, `EpsilonMix`; by default none.
        log_candidates: keep with each slate the ids and logits of all candidates that could have
            been shown, for judging other policies later (`ranker.scoring.slates.exposure`).
    """

    size: int = Field(default=10, ge=1, le=MAX_SIZE)
    max_per: dict[str, Cap] = Field(default_factory=dict)
    freshness: Freshness | None = None
    exploration: Exploration = NoExploration()
    log_candidates: bool = False
