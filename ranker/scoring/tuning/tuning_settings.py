"""What `ranker tune-weights` can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ranker.config import Config
from ranker.schema import Weight

Method = Literal["random", "optuna"]
HoldsBy = Literal["lower_bound", "point"]


class TuneConfig(Config):
    """How score weights are searched and judged.

    Attributes:
        method: ``random`` draws weights around today's; ``optuna`` evolves them (NSGA-II).
        num_candidates: vectors of weights that are tried.
        spread: a weight is at most so many times today's, or so many times smaller.
        at: ranks beyond it count for nothing.
        maximize: a task, ``engagement`` or ``satisfaction``.
        subject_to: constraints such as ``like >= -0.01``, on changes relative to today's weights.
        constraints_hold_by: on the users who choose: by the interval's lower end, or by the value.
        importance: a task's share in its family's value; tasks left out keep today's score weight.
        choice_share: share of the users who choose; the rest report.
        num_replicates: bootstrap replicates of what is reported.
        page_rows: impressions that the page holds, at most, in whole users.
        page_lists: lists that the page can show.
    """

    seed: int = Field(default=0, ge=0)
    method: Method = "random"
    num_candidates: int = Field(default=2000, ge=1)
    spread: float = Field(default=10.0, gt=1, le=1e6)
    at: int = Field(default=10, ge=1)
    maximize: str = "engagement"
    subject_to: tuple[str, ...] = ("satisfaction >= 0",)
    constraints_hold_by: HoldsBy = "lower_bound"
    importance: dict[str, Weight] = Field(default={})
    choice_share: float = Field(default=0.5, gt=0, lt=1)
    num_replicates: int = Field(default=1000, ge=2)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    page_rows: int = Field(default=20_000, ge=1)
    page_lists: int = Field(default=12, ge=1)
