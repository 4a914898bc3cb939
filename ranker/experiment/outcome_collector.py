"""Batches of an outcomes table are put together into `Outcomes`.

Shapes: ``U`` users of the table, ``n`` rows of a batch, ``N`` rows of the experiment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.data.parquet import DataError
from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.effect import FloatArray
from ranker.experiment.metric import QuantileMeasure, columns_of, never_negative
from ranker.experiment.outcome_columns import (
    IntArray,
    OutcomeBatch,
    arm_codes,
    day_label,
    day_numbers,
    first_day,
    holds_dates,
    metric_values,
    slice_codes,
)
from ranker.experiment.outcomes_table import OutcomeRows, Outcomes, Slicing
from ranker.experiment.user_sums import UserSums

UserArray = NDArray[np.int32]
_NO_DAY_YET = np.iinfo(np.int64).max
_EXAMPLES = 3
# Where more rows than this share their user and day, the table is finer than a row a day
_FEW_REPEATS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserCodes:
    """Users as small numbers.

    Attributes:
        ids: of code 0, 1, ...; [U].
        codes: of every row of the table.
    """

    ids: pa.Array
    codes: UserArray


@dataclass(slots=True, kw_only=True, eq=False)
class _SliceOfUser:
    """A slicing as it is found: by the earliest row of each user."""

    codes: IntArray
    days: IntArray
    number_of_value: dict[str, int] = field(default_factory=dict)

    def add(self, users: UserArray, *, codes: IntArray, days: IntArray) -> None:
        earlier = np.flatnonzero(days < self.days[users])[::-1]
        # of several assignments to one user the last holds: the earliest day, its first row
        order = earlier[np.argsort(-days[earlier], kind="stable")]
        self.codes[users[order]] = codes[order]
        self.days[users[order]] = days[order]


@dataclass(slots=True, kw_only=True, eq=False)
class OutcomeCollector:
    """What was read so far.

    Attributes:
        arms: each user's arm, −1 before his first row of the experiment, [U].
        in_two_arms: [U].
        rows: by batch: users, days and metric columns of the experiment's rows.
    """

    settings: AnalysisSettings
    ids: pa.Array
    arms: IntArray
    in_two_arms: NDArray[np.bool_]
    past_by_metric: dict[str, UserSums]
    slice_by_name: dict[str, _SliceOfUser]
    users: list[UserArray] = field(default_factory=list)
    days: list[IntArray] = field(default_factory=list)
    column_by_name: dict[str, list[FloatArray]] = field(default_factory=dict)
    num_past_rows: int = 0
    are_dates: bool = False

    @classmethod
    def of(cls, users: UserCodes, *, settings: AnalysisSettings) -> Self:
        """Nothing read yet."""
        num_users = len(users.ids)
        return cls(
            settings=settings,
            ids=users.ids,
            arms=np.full(num_users, -1),
            in_two_arms=np.zeros(num_users, dtype=np.bool_),
            past_by_metric={
                metric.name: UserSums.empty(num_columns=len(metric.columns), num_users=num_users)
                for metric in settings.metrics
                if settings.start is not None and not isinstance(metric.measure, QuantileMeasure)
            },
            slice_by_name={
                name: _SliceOfUser(
                    codes=np.full(num_users, -1), days=np.full(num_users, _NO_DAY_YET)
                )
                for name in settings.slices
            },
            column_by_name={name: [] for name in columns_of(settings.metrics)},
        )

    def add(self, batch: OutcomeBatch, *, users: UserArray) -> None:
        """Take in one batch, whose rows are of ``users`` [n].

        Raises:
            DataError: a column is missing, or holds what it can't.
        """
        settings = self.settings
        days = np.zeros(len(users), dtype=np.int64)
        current = np.ones(len(users), dtype=np.bool_)
        if settings.columns.day is not None:
            days = day_numbers(batch, settings.columns.day)
            self.are_dates = holds_dates(batch.column(settings.columns.day).type)
        if settings.start is not None and settings.columns.day is not None:
            current = days >= first_day(batch, settings.columns.day, start=settings.start)
        arms = arm_codes(batch, settings.columns.arm, arms=settings.arms, needed=current)
        self._add_arms(users[current], arms[current])
        positive = never_negative(settings.metrics)
        columns = {
            name: metric_values(batch, name, can_be_negative=name not in positive)
            for name in self.column_by_name
        }
        self.users.append(users[current])
        self.days.append(days[current])
        for name, values in columns.items():
            self.column_by_name[name].append(values[current])
        self._add_past(users, ~current, columns)
        for name, found in self.slice_by_name.items():
            codes = slice_codes(batch, name, codes=found.number_of_value)
            found.add(users, codes=codes, days=days)

    def finish(self, source: str) -> Outcomes:
        """Put it together: users sorted by arm, rows by day.

        Raises:
            DataError: no row of the experiment, users in two arms, or an arm without users.
        """
        notes = (*self._notes(source), *self._repeat_notes())
        taken = (self.arms >= 0) & ~self.in_two_arms
        order = np.flatnonzero(taken)
        order = order[np.argsort(self.arms[order], kind="stable")]
        counts = np.bincount(self.arms[order], minlength=len(self.settings.arms))
        for arm, num_users in zip(self.settings.arms, counts.tolist(), strict=True):
            if num_users == 0:
                raise DataError(
                    f"{source}: arm {arm!r} has no users in the experiment; share_by_arm names "
                    f"{list(self.settings.arms)}"
                )
        number = np.full(len(taken), -1, dtype=np.int32)
        number[order] = np.arange(len(order), dtype=np.int32)
        return Outcomes(
            arms=self.settings.arms,
            arm_starts=np.concatenate([[0], np.cumsum(counts)]),
            rows=self._rows(number),
            past_by_metric=(
                {name: past.of_users(order) for name, past in self.past_by_metric.items()}
                if self.num_past_rows
                else {}
            ),
            slicing_by_name={
                name: Slicing(values=tuple(found.number_of_value), codes=found.codes[order])
                for name, found in self.slice_by_name.items()
            },
            notes=notes,
        )

    def _add_arms(self, users: UserArray, arms: IntArray) -> None:
        fresh = self.arms[users] < 0
        self.arms[users[fresh]] = arms[fresh]
        self.in_two_arms[users[self.arms[users] != arms]] = True

    def _add_past(
        self, users: UserArray, is_past: NDArray[np.bool_], columns: dict[str, FloatArray]
    ) -> None:
        self.num_past_rows += int(np.count_nonzero(is_past))
        if not is_past.any():
            return
        for metric in self.settings.metrics:
            if metric.name in self.past_by_metric:
                values = [columns[name][is_past] for name in metric.columns]
                self.past_by_metric[metric.name].add(users[is_past], values)

    def _rows(self, number: UserArray) -> OutcomeRows:
        """The rows of users with a ``number`` >= 0 [U], sorted by day."""
        users, days = number[np.concatenate(self.users)], np.concatenate(self.days)
        kept = np.flatnonzero(users >= 0)
        span = int(days.max() - days.min())
        # small numbers sort by radix
        since = (days - days.min()).astype(np.int16 if span < 2**15 else np.int64)
        order = kept[np.argsort(since[kept], kind="stable")]
        numbers, starts = np.unique(days[order], return_index=True)
        columns = {}
        for name in list(self.column_by_name):
            columns[name] = np.concatenate(self.column_by_name.pop(name))[order]
        has_days = self.settings.columns.day is not None
        labels = [day_label(day, is_date=self.are_dates) for day in numbers.tolist()]
        return OutcomeRows(
            users=users[order],
            days=numbers,
            day_labels=tuple(labels) if has_days else (),
            day_starts=np.append(starts, len(order)),
            column_by_name=columns,
        )

    def _notes(self, source: str) -> tuple[str, ...]:
        if not sum(map(len, self.users)):
            raise DataError(
                f"{source}: no row of the experiment: all are before its start, "
                f"{self.settings.start}"
            )
        notes = []
        num_two = int(np.count_nonzero(self.in_two_arms))
        if num_two:
            examples = self.ids.take(pa.array(np.flatnonzero(self.in_two_arms)[:_EXAMPLES]))
            said = (
                f"{num_two:,} user(s) are in two arms, e.g. "
                f"{', '.join(repr(one) for one in examples.to_pylist())}"
            )
            if self.settings.users_in_two_arms == "reject":
                raise DataError(
                    f"{source}: {said}; mend the assignment, or set users_in_two_arms to drop"
                )
            notes.append(f"{said}: left out.")
        num_gone = int(np.count_nonzero(self.arms < 0))
        if num_gone:
            notes.append(f"{num_gone:,} user(s) have rows before the experiment only: left out.")
        return (*notes, *self._day_notes())

    def _repeat_notes(self) -> list[str]:
        """A warning where a few rows repeat a user's day: rows written twice count twice."""
        if self.settings.columns.day is None:
            return []
        users, days = np.concatenate(self.users).astype(np.int64), np.concatenate(self.days)
        span = int(days.max() - days.min()) + 1
        if span > np.iinfo(np.int64).max // (len(self.ids) + 1):
            return []  # days far apart don't fit one number; such a table has other troubles
        num_repeats = len(users) - len(np.unique(users * span + (days - days.min())))
        if not 0 < num_repeats <= _FEW_REPEATS * len(users):
            return []
        return [
            f"{num_repeats:,} row(s) repeat a user's day, while the others are alone on theirs: "
            "if rows were written twice they count twice; drop duplicates."
        ]

    def _day_notes(self) -> list[str]:
        settings = self.settings
        if settings.columns.day is None:
            return ["No days in the table: no course by day, no pre-period."]
        notes = []
        found = np.unique(np.concatenate([np.unique(days) for days in self.days]))
        empty = sorted(set(range(int(found[0]), int(found[-1]) + 1)) - set(found.tolist()))
        if empty:
            shown = ", ".join(day_label(day, is_date=self.are_dates) for day in empty[:_EXAMPLES])
            more = ", ..." if len(empty) > _EXAMPLES else ""
            notes.append(f"{len(empty)} day(s) without rows ({shown}{more}): skipped.")
        if not self.num_past_rows:
            why = "no start is set" if settings.start is None else "no rows before the start"
            notes.append(f"No pre-period ({why}): intervals are not narrowed by CUPED.")
        return notes
