"""How slates and their outcomes become impressions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ranker.config import Config


class JoinConfig(Config):
    """What counts as shown, what a missing value means, and how long feedback is waited for.

    Attributes:
        confirmed_by: what says that a row of a slate was shown: an outcome of the ``row`` itself;
            any outcome of its ``slate``; or ``all`` if whatever was sent was shown.
        unconfirmed: rows that nothing says were shown: ``leave_out``, or ``keep`` with null labels.
        zero_without_event: label columns of which only events are logged: where the row was shown
            and no value came, the label is 0. All others stay null: not observed.
        outcome_time: the outcomes' column that says when the feedback came, a timestamp or an
            integer in the log's time unit.
        patience_hours: feedback later than this after the request counts as never come, and rows
            that are younger than this stay out until it can have come.
        incomplete: rows that are still waited for: ``leave_out`` for a later join, or ``refuse`` to
            write anything, where a join is to be the only one of its day.
        conflicts: two values of one label for one impression: ``refuse``, or ``latest`` counts.
        keep_columns: of the slates, besides the log's own and those of the exposure log.
    """

    confirmed_by: Literal["row", "slate", "all"] = "row"
    unconfirmed: Literal["leave_out", "keep"] = "leave_out"
    zero_without_event: tuple[str, ...] = ()
    outcome_time: str | None = None
    patience_hours: float | None = Field(default=None, gt=0)
    incomplete: Literal["leave_out", "refuse"] = "leave_out"
    conflicts: Literal["refuse", "latest"] = "refuse"
    keep_columns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.outcome_time is None and self.patience_hours is not None:
            raise ValueError("patience_hours needs outcome_time: when did the feedback come?")
        if self.patience_hours is None and self.incomplete == "refuse":
            raise ValueError("incomplete 'refuse' needs patience_hours: complete after how long?")
        if self.outcome_time is None and self.conflicts == "latest":
            raise ValueError("conflicts 'latest' needs outcome_time: which one is later?")
        return self
