"""How large an A/B test would have to be: users by arm and days for a 1 % lift of each label.

Shapes: N rows, U users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.audit.column import FloatArray, IntArray
from ranker.audit.finding import Finding
from ranker.audit.label_checks import sums_by_user
from ranker.audit.view import LogView
from ranker.experiment.moments import moments
from ranker.experiment.power import Baseline, users_for_lift
from ranker.experiment.ratios import Quantity
from ranker.schema import TaskSpec

LIFT, POWER, CONFIDENCE = 0.01, 0.8, 0.95
DAY_MS = 86_400_000
_HORIZONS = (1, 2, 3, 5, 7, 10, 14, 21, 28, 42, 56, 84)
_LONGEST_DAYS = 730.0
_BY_METRIC = {
    "per user": Quantity(numerator="label"),
    "per impression": Quantity(numerator="label", denominator="observed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeNeeded:
    """What it takes to see a 1 % lift with 80 % power at 95 % confidence, two equal arms.

    Attributes:
        metric: "per user" (sum of the label), or "per impression" (ratio of sums by user).
        users_per_arm: at the variance of the whole log; None where ``reason`` says why.
        users_in_log: with an observed label, scaled up from the sample.
        days: the shortest stretch of the log's end with enough users, or further days needed at
            the rate at which new users came (``extrapolated``); None where more than two years.
    """

    task: TaskSpec
    metric: str
    users_per_arm: int | None
    users_in_log: int
    days: float | None
    extrapolated: bool
    reason: str = ""


def sizes_needed(view: LogView) -> tuple[SizeNeeded, ...]:
    """For every label, by user and by impression; none without users."""
    if view.user is None:
        return ()
    return tuple(
        _size(view, view.user, task, view.labels[task.name], metric)
        for task in view.schema.tasks
        if task.name in view.labels
        for metric in _BY_METRIC
    )


def check_sizes(sizes: tuple[SizeNeeded, ...]) -> list[Finding]:
    """How soon a lift is seen on the label that shows it soonest."""
    if not sizes:
        return [
            Finding(
                level="problem",
                topic="experiments",
                sentence="Without users the size of an experiment cannot be told.",
                remedy="Log a user id: arms are assigned by user.",
            )
        ]
    best = soonest(sizes)
    if best is None:
        return []
    within = best.days is not None and not best.extrapolated
    return [
        Finding(
            level="fine" if within else "look",
            topic="experiments",
            sentence=f"A 1 % lift is seen soonest on {best.task.name!r} {best.metric}: "
            f"{best.users_per_arm:,} users an arm, {days_text(best)}.",
            remedy=""
            if within
            else "More traffic, a more frequent metric, or covariates from before (CUPED).",
            numbers={"users_per_arm": best.users_per_arm, "days": best.days},
        )
    ]


def soonest(sizes: tuple[SizeNeeded, ...]) -> SizeNeeded | None:
    """The metric that shows the lift in the fewest days, or with the fewest users if none can."""
    told = [size for size in sizes if size.users_per_arm is not None]
    return min(
        told,
        key=lambda size: (size.days is None, size.days or 0.0, size.users_per_arm or 0),
        default=None,
    )


def days_text(size: SizeNeeded) -> str:
    """How long that is, in words."""
    if size.days is None:
        return "not within two years at the rate of new users" if size.users_per_arm else "–"
    if size.extrapolated:
        return f"about {size.days:,.0f} days at the rate of new users (extrapolated)"
    return f"{size.days:,.0f} days of this traffic"


def _size(
    view: LogView, user: IntArray, task: TaskSpec, label: FloatArray, metric: str
) -> SizeNeeded:
    used = (user >= 0) & ~np.isnan(label)
    if view.time_ms is not None:
        used &= ~np.isnan(view.time_ms)
    user, label = user[used], label[used]
    users_in_log = round(len(np.unique(user)) / view.share)
    try:
        needed = _users_needed(user, label, metric)
    except ValueError:
        return SizeNeeded(
            task=task,
            metric=metric,
            users_per_arm=None,
            users_in_log=users_in_log,
            days=None,
            extrapolated=False,
            reason="the label's mean or variance is 0, or there are too few users",
        )
    days, extrapolated = None, False
    if view.time_ms is not None:
        ends = _ends_of_log(user, label, view.time_ms[used], share=view.share)
        days, extrapolated = _days(ends, 2 * needed, metric)
    return SizeNeeded(
        task=task,
        metric=metric,
        users_per_arm=needed,
        users_in_log=users_in_log,
        days=days,
        extrapolated=extrapolated,
    )


def _users_needed(user: IntArray, label: FloatArray, metric: str) -> int:
    baseline = Baseline.of_moments(moments(sums_by_user(label, user)), quantity=_BY_METRIC[metric])
    return users_for_lift(baseline, lift=LIFT, power=POWER, confidence=CONFIDENCE).control


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """The log's last days: their rows, and how many users they have in the whole log."""

    days: float
    user: IntArray
    label: FloatArray
    num_users: float


def _ends_of_log(
    user: IntArray, label: FloatArray, time_ms: FloatArray, *, share: float
) -> list[_End]:
    last, span = float(time_ms.max()), float(np.ptp(time_ms)) / DAY_MS
    ends = []
    for days in [*(float(h) for h in _HORIZONS if h < span), max(1.0, span)]:
        rows = time_ms > last - days * DAY_MS - 1
        seen = np.bincount(user[rows]) > 0
        ends.append(
            _End(days=days, user=user[rows], label=label[rows], num_users=seen.sum() / share)
        )
    return ends


def _days(ends: list[_End], needed: int, metric: str) -> tuple[float | None, bool]:
    """The shortest end of the log with enough users; beyond it by the rate of new users.

    Args:
        ends: the shortest first, the whole log last.
        needed: users in both arms at the variance of the whole log.
        metric: whose variance is taken anew for each end.
    """
    whole = ends[-1]
    if whole.num_users >= needed:
        for end in ends[:-1]:
            try:
                if end.num_users >= 2 * _users_needed(end.user, end.label, metric):
                    return float(np.ceil(end.days)), False
            except ValueError:
                continue
        return float(np.ceil(whole.days)), False
    if len(ends) < 2:
        return None, False
    new_users_a_day = (whole.num_users - ends[-2].num_users) / (whole.days - ends[-2].days)
    if new_users_a_day <= 0:
        return None, False
    total = whole.days + (needed - whole.num_users) / new_users_a_day
    return (total, True) if total <= _LONGEST_DAYS else (None, False)
