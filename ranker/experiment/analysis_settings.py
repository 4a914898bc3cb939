"""How an experiment's outcomes are read and judged, declared once."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Literal, Self

from pydantic import Field, StrictInt, model_validator

from ranker.config import Config
from ranker.experiment.metric import MetricSpec

MAX_SHARE_RATIO = 10_000


class OutcomeColumns(Config):
    """Names of the columns that say who, under which arm, and when.

    Attributes:
        day: a date (also as text, 2026-03-09) or a whole number; None where the table has one row a
            user, or no time: then there is no pre-period and no course by day.
    """

    user: str = "user"
    arm: str = "arm"
    day: str | None = "day"


class AnalysisSettings(Config):
    """An experiment.

    Attributes:
        share_by_arm: how users were to be split; only proportions matter.
        start: first day of the experiment; rows before it are the pre-period. None: every row is
            of the experiment.
        slices: columns by which the primary metrics are broken down; a user's value is that of his
            earliest row.
        users_in_two_arms: what to do when there are any.
        confidence: of every interval; 1 − it is the chance of a false alarm.
        peeking: the experiment may be stopped at any look, so confidence sequences decide. False:
            it is looked at once, when all its users are in.
        power: what minimal detectable lifts are stated at.
        bootstrap_replicates: check every interval by a bootstrap over users; 0 = don't.
        seed: of the bootstrap.
    """

    columns: OutcomeColumns = OutcomeColumns()
    share_by_arm: dict[str, float] = Field(
        default={"control": 0.5, "treatment": 0.5}, min_length=2, max_length=20
    )
    control: str = "control"
    start: datetime.date | StrictInt | None = None
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    slices: tuple[str, ...] = ()
    users_in_two_arms: Literal["reject", "drop"] = "reject"
    confidence: float = Field(default=0.95, gt=0.5, le=0.999)
    peeking: bool = False
    power: float = Field(default=0.8, ge=0.5, le=0.999)
    bootstrap_replicates: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.control not in self.share_by_arm:
            raise ValueError(
                f"control {self.control!r} is not among the arms {list(self.share_by_arm)}"
            )
        if not all(share > 0 for share in self.share_by_arm.values()):
            raise ValueError(f"share_by_arm: expected shares above 0, got {self.share_by_arm}")
        if max(self.share_by_arm.values()) > MAX_SHARE_RATIO * min(self.share_by_arm.values()):
            raise ValueError(
                f"share_by_arm: expected no share above {MAX_SHARE_RATIO:,} times another, got "
                f"{self.share_by_arm}"
            )
        if not any(metric.role == "primary" for metric in self.metrics):
            raise ValueError("metrics: at least one needs role: primary; it is what decides")
        for what, names in (
            ("metrics", [metric.name for metric in self.metrics]),
            ("slices", list(self.slices)),
        ):
            twice = [name for name, times in Counter(names).items() if times > 1]
            if twice:
                raise ValueError(f"{what}: {twice[0]!r} is given twice")
        if self.start is not None and self.columns.day is None:
            raise ValueError("start needs columns.day: without days there is no pre-period")
        if self.peeking and self.columns.day is None:
            raise ValueError("peeking needs columns.day: a confidence sequence goes day by day")
        if 0 < self.bootstrap_replicates < 20:
            raise ValueError(
                f"bootstrap_replicates must be 0 or at least 20, got {self.bootstrap_replicates}"
            )
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, control first."""
        return (self.control, *self.treatments)

    @property
    def treatments(self) -> tuple[str, ...]:
        """The arms that are compared with control."""
        return tuple(arm for arm in self.share_by_arm if arm != self.control)
