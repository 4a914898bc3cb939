"""A world fitted to a log's summary, and how close it came.

Simulated moments: a small world is played, its log summarised as the real one was, and every
setting is moved by what its statistic is off. Rates move on the logit, times and spreads by a
factor, the examination curve position by position by the ratio of click-through rates. Shapes (how
items differ, the curve) change rates too, so that after each move of the shapes the rates get a few
rounds to settle. What the log can't tell stays as it was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from ranker.experiment.world.examination import GivenExamination, examination_curve
from ranker.experiment.world.log_rows import rows_of_world
from ranker.experiment.world.settings import (
    ActivitySettings,
    BehaviourSettings,
    WorldSettings,
)
from ranker.experiment.world.summary import WATCH_QUANTILES, LogSummary, summarise
from ranker.experiment.world.world import make_world

NUM_SHAPE_ROUNDS = 6
NUM_RATE_ROUNDS = 3  # after each of them
RATE_STEP = 0.8
LARGEST_CONFLICT = 0.85
LARGEST_SLOPE = 2.0  # of appeal: beyond it only the most appealing items are ever shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """One statistic of the log and of the fitted world.

    Attributes:
        fitted: a setting was moved to meet it; otherwise it came out as it did.
    """

    statistic: str
    log: float
    world: float
    fitted: bool

    @property
    def relative_error(self) -> float | None:
        """(world − log) / |log|; None where the log's is 0."""
        return (self.world - self.log) / abs(self.log) if self.log else None


def fit_to(
    summary: LogSummary, settings: WorldSettings, *, max_users: int = 4_000
) -> tuple[WorldSettings, tuple[Closeness, ...]]:
    """Fit a world to a log.

    Args:
        summary: of the log.
        settings: where to start; sizes (users, items, days, topics), seed, and everything the log
            can't tell stay as they are.
        max_users: of the worlds played on the way; more is slower and fit more sharply.

    Raises:
        ValueError: the log's slates need more items than ``settings`` has.
    """
    fitted = _start(summary, settings)
    fitted = _settled(fitted, target=summary, max_users=max_users)
    for number in range(1, NUM_SHAPE_ROUNDS + 1):
        got = _play(fitted, max_users=max_users, seed=settings.seed)
        # Smaller and smaller steps, so that chance averages out (Robbins & Monro 1951).
        fitted = _with_shapes_moved(fitted, target=summary, got=got, step=1 / number)
        fitted = _settled(fitted, target=summary, max_users=max_users)
    # Judged by another chance than it was fitted to.
    return fitted, compare(summary, _play(fitted, max_users=max_users, seed=settings.seed + 1))


def compare(log: LogSummary, world: LogSummary) -> tuple[Closeness, ...]:
    """The statistics that both have, side by side."""
    fitted_in_log, free_in_log = _fitted_statistics(log), _free_statistics(log)
    in_world = _fitted_statistics(world) | _free_statistics(world)
    return tuple(
        Closeness(statistic=name, log=value, world=in_world[name], fitted=name in fitted_in_log)
        for name, value in (fitted_in_log | free_in_log).items()
        if name in in_world
    )


def _play(settings: WorldSettings, *, max_users: int, seed: int) -> LogSummary:
    num_users = min(settings.num_users, max_users)
    world = make_world(settings.model_copy(update={"num_users": num_users}))
    return summarise(rows_of_world(world, range(settings.num_days), seed=seed))


def _start(summary: LogSummary, settings: WorldSettings) -> WorldSettings:
    """What needs no rounds: sizes of slates, how often users come, and a curve to move."""
    slate_size = max(round(summary.impressions_per_request), 1)
    visits, activity = summary.visits, settings.activity
    further = visits.requests_per_active_day - 1
    spread = activity.spread
    if visits.request_variance is not None and further > 0:
        # λ exp(s z − s²/2) has variance λ² (exp(s²) − 1).
        spread = math.sqrt(math.log1p(visits.request_variance / further**2))
    values = settings.model_dump()
    values["slate_size"] = slate_size
    values["candidates"]["count"] = max(settings.candidates.count, slate_size)
    values["behaviour"]["survey_rate"] = summary.observed.get("rating", 0.0)
    values["activity"] |= {
        "requests_per_day": visits.requests_per_active_day,
        "spread": spread,
        "share_active": visits.active_share,
    }
    if visits.comeback_rate is not None:
        values["activity"]["comeback_rate"] = visits.comeback_rate
    if summary.ctr_by_position is not None:
        curve = examination_curve(settings.examination, num_positions=slate_size)
        values["examination"] = {"kind": "given", "probabilities": tuple(curve.tolist())}
    return WorldSettings.model_validate(values)


def _settled(settings: WorldSettings, *, target: LogSummary, max_users: int) -> WorldSettings:
    """A few rounds for the rates alone."""
    for _ in range(NUM_RATE_ROUNDS):
        got = _play(settings, max_users=max_users, seed=settings.seed)
        changes = {
            "activity": _moved_activity(settings.activity, target=target, got=got),
            "behaviour": _moved_rates(settings.behaviour, target=target, got=got),
        }
        settings = settings.model_copy(update=changes)
    return settings


def _moved_activity(
    activity: ActivitySettings, *, target: LogSummary, got: LogSummary
) -> ActivitySettings:
    changes = {}
    for name in ("return_rate", "comeback_rate"):
        wanted, reached = getattr(target.visits, name), getattr(got.visits, name)
        if wanted is not None and reached is not None:
            changes[name] = _moved_rate(getattr(activity, name), target=wanted, got=reached)
    return activity.model_copy(update=changes)


def _moved_rates(
    behaviour: BehaviourSettings, *, target: LogSummary, got: LogSummary
) -> BehaviourSettings:
    changes = {}
    for task, name in (("click", "click_rate"), ("dismissed", "dismissal_rate")):
        if task in target.rates:
            rate: float = getattr(behaviour, name)
            changes[name] = _moved_rate(rate, target=target.rates[task], got=got.rates[task])
    # Likes and seconds per click: what a click is worth does not hang on how often it comes.
    if "like" in target.rates:
        changes["like_rate"] = _moved_rate(
            behaviour.like_rate, target=_per_click("like", target), got=_per_click("like", got)
        )
    if "watch_time_s" in target.rates:
        wanted, reached = _per_click("watch_time_s", target), _per_click("watch_time_s", got)
        factor = _factor(target=wanted, got=reached, step=RATE_STEP)
        changes["watch_median_s"] = behaviour.watch_median_s * factor
    if "rating" in target.rates and "rating" in got.rates:
        moved = behaviour.rating_mean + RATE_STEP * (target.rates["rating"] - got.rates["rating"])
        changes["rating_mean"] = float(np.clip(moved, 1, 5))
    return behaviour.model_copy(update=changes)


def _with_shapes_moved(
    settings: WorldSettings, *, target: LogSummary, got: LogSummary, step: float
) -> WorldSettings:
    behaviour, examination, conflict = settings.behaviour, settings.examination, settings.conflict
    changes = {}
    if target.items.click_spread is not None and got.items.click_spread is not None:
        factor = _factor(target=target.items.click_spread, got=got.items.click_spread, step=step)
        changes["appeal_slope"] = min(behaviour.appeal_slope * factor, LARGEST_SLOPE)
    if target.watch_quantiles_s is not None and got.watch_quantiles_s is not None:
        wanted, reached = _log_width(target.watch_quantiles_s), _log_width(got.watch_quantiles_s)
        factor = _factor(target=wanted, got=reached, step=step)
        changes["watch_spread"] = behaviour.watch_spread * factor
    if target.items.correlation is not None and got.items.correlation is not None:
        moved = conflict + step * (target.items.correlation - got.items.correlation)
        conflict = float(np.clip(moved, -LARGEST_CONFLICT, LARGEST_CONFLICT))
    if isinstance(examination, GivenExamination) and target.ctr_by_position is not None:
        examination = _moved_curve(examination, target=target, got=got, step=step)
    return settings.model_copy(
        update={
            "behaviour": behaviour.model_copy(update=changes),
            "conflict": conflict,
            "examination": examination,
        }
    )


def _moved_curve(
    examination: GivenExamination, *, target: LogSummary, got: LogSummary, step: float
) -> GivenExamination:
    assert target.ctr_by_position is not None
    if got.ctr_by_position is None:
        return examination
    curve = np.array(examination.probabilities)
    num_shared = min(len(curve), len(target.ctr_by_position), len(got.ctr_by_position))
    wanted = np.array(target.ctr_by_position[:num_shared])
    shown = np.array(got.ctr_by_position[:num_shared])
    if min(wanted[0], shown[0]) <= 0:
        return examination
    ratio = np.clip((wanted / wanted[0]) / np.maximum(shown / shown[0], 1e-9), 0.5, 2.0)
    curve[:num_shared] = np.clip(curve[:num_shared] * ratio**step, 1e-4, 1.0)
    curve[num_shared:] = curve[num_shared - 1]
    return GivenExamination(kind="given", probabilities=tuple(curve.tolist()))


def _moved_rate(rate: float, *, target: float, got: float) -> float:
    """Move a probability by the difference of logits; 0 and 1 are out of reach."""
    wanted, reached, now = np.clip([target, got, rate], 1e-6, 1 - 1e-6)
    moved = expit(logit(now) + RATE_STEP * (logit(wanted) - logit(reached)))
    return float(np.clip(moved, 1e-6, 1 - 1e-6))


def _per_click(task: str, summary: LogSummary) -> float:
    """The task's mean over that of clicks; over all rows where the log knows no clicks."""
    return summary.rates[task] / (summary.rates.get("click") or 1.0)


def _factor(*, target: float, got: float, step: float) -> float:
    """At most a factor of two a round, so that an odd statistic can't throw the fit off."""
    return float(np.clip(target / got, 0.5, 2.0)) ** step if min(target, got) > 0 else 1.0


def _log_width(quantiles: tuple[float, ...]) -> float:
    return math.log(quantiles[-1] / quantiles[0])


def _fitted_statistics(summary: LogSummary) -> dict[str, float]:
    visits, items = summary.visits, summary.items
    values: dict[str, float | None] = {
        "impressions per request": summary.impressions_per_request,
        "requests per active day": visits.requests_per_active_day,
        "variance of requests between users": visits.request_variance,
        "share of days active": visits.active_share,
        "return rate": visits.return_rate,
        "comeback rate": visits.comeback_rate,
        "spread of click rates between items": items.click_spread,
        "correlation of click and like rates between items": items.correlation,
    }
    values |= {f"mean {task}": rate for task, rate in summary.rates.items()}
    values |= {
        f"click rate at position {position}": rate
        for position, rate in enumerate(summary.ctr_by_position or ())
    }
    if summary.watch_quantiles_s is not None:
        values["log width of watch times"] = _log_width(summary.watch_quantiles_s)
    return {name: value for name, value in values.items() if value is not None}


def _free_statistics(summary: LogSummary) -> dict[str, float]:
    values = {f"correlation of {pair}": value for pair, value in summary.correlations.items()}
    quantiles = zip(WATCH_QUANTILES, summary.watch_quantiles_s or (), strict=False)
    return values | {f"watch time, quantile {share:g}": value for share, value in quantiles}
