"""Ship, don't ship, or not enough data: a rule set in advance, and its reasons in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from ranker.experiment.assignment import ArmCounts
from ranker.experiment.lift import MetricVerdict
from ranker.experiment.metric_result import Json, MetricResult

# A split, or a difference before the start, this unlikely: no metric can then be trusted.
SAMPLE_RATIO_ALARM = 0.001


class Verdict(StrEnum):
    """What to do."""

    SHIP = "ship"
    DONT_SHIP = "don't ship"
    NOT_ENOUGH_DATA = "not enough data"
    REFUSED = "no verdict"


_ADVICE = {
    Verdict.SHIP: "Ship {}.",
    Verdict.DONT_SHIP: "Don't ship {}.",
    Verdict.NOT_ENOUGH_DATA: "Not enough data to decide on {}.",
    Verdict.REFUSED: "No verdict on {}.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """About one treatment; ``reasons`` are whole sentences, the deciding ones first."""

    treatment: str
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The verdict and what decided it, in a sentence or two."""
        return f"{_ADVICE[self.verdict].format(self.treatment)} {self.reasons[0]}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The verdict, then every reason."""
        advice = _ADVICE[self.verdict].format(self.treatment)
        return (advice, *(f"  {reason}" for reason in self.reasons))

    def to_json(self) -> Json:
        """Ready for ``json.dumps``."""
        return {
            "treatment": self.treatment,
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
        }


class Leaning(StrEnum):
    """What one metric says."""

    GOOD = "better, or within its margin"
    BAD = "worse"
    NO_GAIN = "no gain that would be worthwhile"
    OPEN = "cannot tell yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one metric says of the decision, and why."""

    leaning: Leaning
    reason: str


def decide(
    results: Sequence[MetricResult], *, treatment: str, sample_ratio: ArmCounts, num_days: int
) -> Decision:
    """Judge one treatment by its primary metrics and guardrails; the first rule that fits holds.

    1. p of the sample ratio, or of a primary metric's difference before the experiment, below
       `SAMPLE_RATIO_ALARM`: no verdict.
    2. A primary metric worse; or a guardrail worse and not shown to be within its margin: don't
       ship.
    3. Every primary metric shown to gain less than is worthwhile: don't ship.
    4. A guardrail not shown to be within its margin: not enough data.
    5. A primary metric better: ship.
    6. Not enough data.

    Better and worse of primary metrics are after Holm's adjustment over them and the treatments
    (with confidence sequences: at a confidence divided among them). A guardrail is within its
    margin when the bad end of its lift's interval is, which has half of 1 − confidence beyond it.

    Args:
        results: of ``treatment``, all metrics.
        treatment: arm.
        sample_ratio: of all arms.
        num_days: from the first day of the experiment to the last; 0 where the table has no days.
    """
    if sample_ratio.p_value < SAMPLE_RATIO_ALARM:
        reasons: tuple[str, ...] = (_mismatch(sample_ratio),)
        return Decision(treatment=treatment, verdict=Verdict.REFUSED, reasons=reasons)
    apart = [one for one in results if one.metric.role == "primary" and _differed_before(one)]
    if apart:
        reasons = tuple(_difference_before(one) for one in apart)
        return Decision(treatment=treatment, verdict=Verdict.REFUSED, reasons=reasons)
    primaries = [_primary(one, num_days) for one in results if one.metric.role == "primary"]
    guardrails = [_guardrail(one, num_days) for one in results if one.metric.role == "guardrail"]
    findings = primaries + guardrails
    leanings = {finding.leaning for finding in findings}
    if Leaning.BAD in leanings:
        verdict, deciding = Verdict.DONT_SHIP, Leaning.BAD
    elif all(one.leaning is Leaning.NO_GAIN for one in primaries):
        verdict, deciding = Verdict.DONT_SHIP, Leaning.NO_GAIN
    elif any(one.leaning is Leaning.OPEN for one in guardrails):
        verdict, deciding = Verdict.NOT_ENOUGH_DATA, Leaning.OPEN
    elif any(one.leaning is Leaning.GOOD for one in primaries):
        verdict, deciding = Verdict.SHIP, Leaning.GOOD
    else:
        verdict, deciding = Verdict.NOT_ENOUGH_DATA, Leaning.OPEN
    ordered = sorted(findings, key=lambda one: one.leaning is not deciding)
    reasons = tuple(finding.reason for finding in ordered)
    return Decision(treatment=treatment, verdict=verdict, reasons=reasons)


def _differed_before(result: MetricResult) -> bool:
    return result.before is not None and result.before.p_value < SAMPLE_RATIO_ALARM


def _difference_before(result: MetricResult) -> str:
    assert result.before is not None
    return (
        f"{result.metric.name} already differed by {result.before.difference:+.4g} before the "
        f"experiment ({result.before.control:.4g} in control; p = {result.before.p_value:.2g}): "
        "the arms are not alike, or their past is not complete. Find out why first."
    )


def _primary(result: MetricResult, num_days: int) -> Finding:
    worthwhile = result.metric.worthwhile_lift
    interval = result.lift_interval
    match result.verdict:
        case MetricVerdict.BETTER:
            leaning, end = Leaning.GOOD, ": better."
        case MetricVerdict.WORSE:
            leaning, end = Leaning.BAD, ": worse."
        case MetricVerdict.CANNOT_TELL:
            if interval is not None and _best(result, interval) < worthwhile:
                leaning, best = Leaning.NO_GAIN, _best(result, interval)
                end = (
                    f": a gain of at most {max(best, 0):.2%}, less than the {worthwhile:.2%} that "
                    "would be worthwhile."
                )
            else:
                leaning = Leaning.OPEN
                end = f": cannot be told from no change. {_needs(result, num_days)}"
        case _:
            assert_never(result.verdict)
    return Finding(leaning=leaning, reason=f"{_change(result)}{end}")


def _guardrail(result: MetricResult, num_days: int) -> Finding:
    margin, interval = result.metric.target_lift, result.lift_interval
    if interval is None:
        leaning, end = Leaning.OPEN, f"; its margin of {margin:.2%} cannot be checked."
    elif _worst(result, interval) > -margin:
        leaning, end = Leaning.GOOD, f": within its margin of {margin:.2%}."
    elif _best(result, interval) < 0:
        leaning, end = Leaning.BAD, f": worse, and not within its margin of {margin:.2%}."
    else:
        leaning = Leaning.OPEN
        end = f": may be beyond its margin of {margin:.2%}. {_needs(result, num_days)}"
    return Finding(leaning=leaning, reason=f"{_change(result)}{end}")


def _best(result: MetricResult, interval: tuple[float, float]) -> float:
    """The good end, more being better."""
    return max(result.metric.sign * end for end in interval)


def _worst(result: MetricResult, interval: tuple[float, float]) -> float:
    return min(result.metric.sign * end for end in interval)


def _change(result: MetricResult) -> str:
    effect, interval = result.headline, result.lift_interval
    name = result.metric.name
    if effect.lift is None or interval is None:
        if not math.isfinite(effect.difference):
            return f"{name} has no value to compare ({effect.reason})"
        return f"{name} changed by {effect.difference:+.4g} ({effect.reason or 'no interval'})"
    moved = "rose" if effect.lift > 0 else "fell"
    return f"{name} {moved} by {abs(effect.lift):.2%} ({interval[0]:+.2%} to {interval[1]:+.2%})"


def _needs(result: MetricResult, num_days: int) -> str:
    """How many users it takes, or days."""
    power, effect = result.power, result.headline
    if power.users_needed is None:
        return f"How many users it takes can't be said: {power.reason or effect.reason}."
    target = f"{power.target_lift:.2%}"
    have = min(effect.num_users_control, effect.num_users_treatment)
    need = min(power.users_needed.control, power.users_needed.treatment)
    if need <= have:
        return (
            f"There are users enough to see {target}, but chance has its part: go on, or call it "
            "no gain."
        )
    days = (
        f", {math.ceil(num_days * need / have):,} days if users kept arriving as so far"
        if num_days
        else ""
    )
    return (
        f"To see {target} takes about {power.users_needed.control:,} users in control and "
        f"{power.users_needed.treatment:,} in {result.treatment}, {need / have:.1f} times as many "
        f"as there are{days}."
    )


def _mismatch(sample_ratio: ArmCounts) -> str:
    total = sum(sample_ratio.num_users_by_arm.values())
    shown = ", ".join(
        f"{arm} {count:,} instead of about {total * sample_ratio.share_by_arm[arm]:,.0f}"
        for arm, count in sample_ratio.num_users_by_arm.items()
    )
    return (
        f"The users are not split as planned ({shown}; p = {sample_ratio.p_value:.2g}): some were "
        "lost or added by arm, so no metric can be trusted. Find out why first."
    )
