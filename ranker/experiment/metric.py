"""What an experiment measures: columns of the outcomes table, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, model_validator

from ranker.config import Config

Role = Literal["primary", "guardrail", "secondary"]


class MeanMeasure(Config):
    """The mean over users of a column's sum in the experiment.

    Attributes:
        winsorise_quantile: users' sums beyond this quantile (of all arms pooled) count as the
            quantile, as `ranker.experiment.winsorising.winsor_limits` says; None = as they are.
    """

    kind: Literal["mean"] = "mean"
    column: str
    winsorise_quantile: float | None = Field(default=None, ge=0.5, lt=1)


class RatioMeasure(Config):
    """Sum of one column over sum of another; a row with either part missing counts in neither."""

    kind: Literal["ratio"] = "ratio"
    numerator: str
    denominator: str


class QuantileMeasure(Config):
    """A quantile over the rows of the table, whose intervals know that rows belong to users."""

    kind: Literal["quantile"] = "quantile"
    column: str
    quantile: float = Field(gt=0, lt=1)


Measure = Annotated[MeanMeasure | RatioMeasure | QuantileMeasure, Field(discriminator="kind")]


class MetricSpec(Config):
    """One metric of an experiment.

    Attributes:
        direction: ``negative`` where less is better (dismissals).
        role: a primary metric decides, a guardrail must not worsen beyond ``margin``, a secondary
            one explains.
        margin: of a guardrail, relative: 0.01 tolerates up to 1 % worse.
        worthwhile_lift: of other metrics, relative: a smaller gain isn't worth shipping for. Says
            when an experiment without a clear winner has seen enough.
        can_be_negative: otherwise a negative value is an error of the table.
    """

    name: str = Field(min_length=1)
    measure: Measure
    direction: Literal["positive", "negative"] = "positive"
    role: Role = "secondary"
    margin: float | None = Field(default=None, gt=0, lt=1)
    worthwhile_lift: float = Field(default=0.01, gt=0)
    family: Literal["engagement", "satisfaction"] | None = None
    can_be_negative: bool = False

    @model_validator(mode="after")
    def _check_margin(self) -> Self:
        if (self.role == "guardrail") != (self.margin is not None):
            raise ValueError(
                f"metric {self.name!r}: a guardrail needs a margin, such as 0.01 for 1 %, and no "
                f"other metric has one; got role {self.role!r} with margin {self.margin}"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of: one, or numerator and denominator."""
        match self.measure:
            case MeanMeasure() | QuantileMeasure():
                return (self.measure.column,)
            case RatioMeasure():
                return (self.measure.numerator, self.measure.denominator)
            case _:
                assert_never(self.measure)

    @property
    def target_lift(self) -> float:
        """The size of change that the experiment has to be able to see."""
        return self.worthwhile_lift if self.margin is None else self.margin

    @property
    def sign(self) -> int:
        """1 where more is better, −1 where less is."""
        return 1 if self.direction == "positive" else -1


def columns_of(metrics: tuple[MetricSpec, ...]) -> tuple[str, ...]:
    """The distinct columns of ``metrics``, in their order."""
    return tuple(dict.fromkeys(_all_columns(metrics)))


def never_negative(metrics: tuple[MetricSpec, ...]) -> frozenset[str]:
    """Columns of which some metric says that they can't be negative."""
    return frozenset(_all_columns(tuple(m for m in metrics if not m.can_be_negative)))


def _all_columns(metrics: tuple[MetricSpec, ...]) -> Iterator[str]:
    for metric in metrics:
        yield from metric.columns
