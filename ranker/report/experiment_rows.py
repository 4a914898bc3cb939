"""Rows of an experiment's tables and forests, from its results."""

from __future__ import annotations

import math

from ranker.experiment.effect import Effect
from ranker.experiment.metric_result import MetricResult, SliceEffect
from ranker.report.content import Estimate, Verdict
from ranker.report.forest import ForestRow
from ranker.report.markup import (
    Html,
    count,
    escape,
    lift_html,
    mean_text,
    percent,
    signed,
    verdict_html,
)
from ranker.report.panel import task_html

_VERDICTS: dict[str, Verdict] = {
    "better": "better",
    "worse": "worse",
    "cannot tell": "cannot_tell",
}


def metric_row(result: MetricResult) -> list[Html]:
    """A metric's cells: name and method, both arms, lifts, p and verdict."""
    effect = result.headline
    plain = Html("–") if result.adjusted is None else lift_html(_estimate(result.plain))
    about = [result.metric.role, result.metric.family, effect.method]
    if result.bootstrap is not None:
        about.append(f"bootstrap {_interval(result.bootstrap)}")
    return [
        task_html(result.metric.name, " · ".join(part for part in about if part)),
        escape(_value(effect.control)),
        escape(_value(effect.treatment)),
        lift_html(_lift(result)),
        plain,
        escape(_p_value(result.p_adjusted)),
        verdict_html(_VERDICTS[result.verdict]),
    ]


def guardrail_row(result: MetricResult) -> list[Html]:
    """A guardrail's cells: its margin, its lift, and whether even the bad end is within."""
    interval, sign = result.lift_interval, result.metric.sign
    if interval is None:
        worst, held = "–", escape("cannot be checked")
    else:
        bad_end = min(sign * end for end in interval)
        worst = f"{signed(100 * bad_end * sign, decimals=2)} %"
        holds = bad_end > -result.metric.target_lift
        held = Html(
            '<span class="verdict better">▲ yes</span>'
            if holds
            else '<span class="verdict worse">▼ not shown</span>'
        )
    return [
        task_html(result.metric.name, result.treatment),
        escape(f"{signed(-100 * sign * result.metric.target_lift, decimals=2)} %"),
        lift_html(_lift(result)),
        escape(worst),
        held,
    ]


def power_row(result: MetricResult) -> list[Html]:
    """What could be seen of a metric."""
    power, needed = result.power, result.power.users_needed
    name = task_html(result.metric.name, result.treatment)
    if needed is None:
        reason = escape(f"none: {power.reason}")
        dash = Html("–")
        return [name, escape(percent(power.target_lift)), dash, dash, dash, reason]
    return [
        name,
        escape(percent(power.target_lift)),
        escape(_share(power.power_of_target, decimals=0)),
        escape(_share(power.detectable_lift, decimals=2)),
        escape(_share(power.detectable_lift_before, decimals=2)),
        escape(f"{count(needed.control)} + {count(needed.treatment)}"),
    ]


def forest_row(result: MetricResult, *, group: str) -> ForestRow:
    """A metric of a forest, a guardrail with its limit."""
    is_guardrail = result.metric.role == "guardrail"
    return ForestRow(
        group=group,
        name=result.metric.name,
        lift=_lift(result),
        verdict=_VERDICTS[result.verdict],
        limit=-result.metric.sign * result.metric.target_lift if is_guardrail else None,
    )


def slice_row(part: SliceEffect, result: MetricResult) -> ForestRow:
    """A slice of a forest."""
    verdict: Verdict = "cannot_tell"
    if part.p_adjusted < result.alpha:
        verdict = "better" if part.effect.difference * result.metric.sign > 0 else "worse"
    return ForestRow(
        group=part.slicing, name=part.value, lift=_estimate(part.effect), verdict=verdict
    )


def _lift(result: MetricResult) -> Estimate:
    """The headline lift with the interval that decides."""
    effect, interval = result.headline, result.lift_interval
    if effect.lift is None or interval is None:
        return Estimate(value=None, reason=effect.reason or "no day has an interval")
    return Estimate(value=effect.lift, ci_low=interval[0], ci_high=interval[1])


def _estimate(effect: Effect) -> Estimate:
    if effect.lift is None:
        return Estimate(value=None, reason=effect.reason)
    return Estimate(value=effect.lift, ci_low=effect.lift_ci_low, ci_high=effect.lift_ci_high)


def _interval(effect: Effect) -> str:
    if effect.lift_ci_low is None or effect.lift_ci_high is None:
        return "without a lift"
    return f"{100 * effect.lift_ci_low:+.2f} to {100 * effect.lift_ci_high:+.2f} %"


def _value(value: float) -> str:
    return mean_text(value) if math.isfinite(value) else "–"


def _p_value(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _share(value: float | None, *, decimals: int) -> str:
    return "–" if value is None else percent(value, decimals=decimals)
