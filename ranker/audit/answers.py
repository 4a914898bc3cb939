"""The questions that people bring to a log, and whether this one can answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ranker.audit.finding import Finding, percent
from ranker.audit.label_checks import LabelFigures
from ranker.audit.position_checks import (
    CLEAR_OVERLAP,
    CLEAR_SAMPLE_SHARE,
    PositionFigures,
    PropensityFigures,
)
from ranker.audit.sizes import SizeNeeded, days_text, soonest
from ranker.audit.time_checks import span_days
from ranker.audit.view import LogView

MIN_ROWS_OF_OUTCOME = 1_000
_FEW_ROWS_OF_OUTCOME = 200
_MIN_DAYS = 3.0
Verdict = Literal["yes", "partly", "no"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One question, a verdict, and why."""

    question: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the answers rest on."""

    labels: tuple[LabelFigures, ...]
    positions: PositionFigures | None
    propensities: PropensityFigures | None
    sizes: tuple[SizeNeeded, ...]


def answer_all(view: LogView, figures: Figures, findings: list[Finding]) -> tuple[Answer, ...]:
    """Every question in the order in which people ask them."""
    return (
        _learn(view, figures, "engagement", "Can it train a ranker for engagement (clicks)?"),
        _learn(view, figures, "satisfaction", "Can it train for satisfaction (likes, ratings)?"),
        _test(view),
        _lists(findings),
        _position_bias(figures),
        _off_policy(view, figures),
        _experiment(figures),
    )


def _learn(view: LogView, figures: Figures, family: str, question: str) -> Answer:
    missing = [role for role in ("user", "item", "time") if getattr(view.roles, role) is None]
    if missing:
        return Answer(question=question, verdict="no", why=f"It has no {' and no '.join(missing)}.")
    amounts = {
        label.task.name: min(label.positives, label.negatives)
        for label in figures.labels
        if label.task.family == family and label.task.kind == "binary"
    }
    if not amounts:
        numbers = [
            label
            for label in figures.labels
            if label.task.family == family and label.observed_rows >= MIN_ROWS_OF_OUTCOME
        ]
        if numbers:
            why = f"Only as a number: {', '.join(label.task.name for label in numbers)}."
            return Answer(question=question, verdict="partly", why=why)
        return Answer(question=question, verdict="no", why=f"It has no label of {family}.")
    good = [name for name, rows in amounts.items() if rows >= MIN_ROWS_OF_OUTCOME]
    if good:
        weak = [name for name in amounts if name not in good]
        rest = f"; too few of the rarer outcome for {', '.join(weak)}" if weak else ""
        return Answer(question=question, verdict="yes", why=f"With {', '.join(good)}{rest}.")
    name = max(amounts, key=lambda key: amounts[key])
    verdict: Verdict = "partly" if amounts[name] >= _FEW_ROWS_OF_OUTCOME else "no"
    why = f"The best label, {name}, has {amounts[name]:,} rows of its rarer outcome."
    return Answer(question=question, verdict=verdict, why=why)


def _test(view: LogView) -> Answer:
    question = "Can it test fairly, past against future?"
    if view.time_ms is None:
        return Answer(question=question, verdict="no", why="It has no time.")
    days = span_days(view.time_ms)
    if days < _MIN_DAYS:
        verdict: Verdict = "partly" if days >= 1 else "no"
        return Answer(question=question, verdict=verdict, why=f"It spans only {days:.1f} days.")
    return Answer(question=question, verdict="yes", why=f"It spans {days:,.0f} days.")


def _lists(findings: list[Finding]) -> Answer:
    question = "Can it measure ranked lists, request by request?"
    for finding in findings:
        if finding.topic == "requests":
            share = float(finding.numbers["share_of_several"] or 0.0)
            verdict: Verdict = "yes" if share > 0.5 else "partly" if share > 0.05 else "no"
            why = f"{percent(share)} of the requests have several rows."
            return Answer(question=question, verdict=verdict, why=why)
    return Answer(question=question, verdict="no", why="It has no requests, nor users and times.")


def _position_bias(figures: Figures) -> Answer:
    question = "Can it correct position bias?"
    found = figures.positions
    if found is None:
        return Answer(question=question, verdict="no", why="It has no positions.")
    verdict: Verdict = "yes"
    if found.num_positions < 2 or found.overlap < CLEAR_OVERLAP / 10:
        verdict = "no"
    elif found.overlap < CLEAR_OVERLAP:
        verdict = "partly"
    why = (
        f"{found.num_positions} positions; {percent(found.overlap)} of the rows have an item that "
        "was shown at several."
    )
    return _with_outcomes(Answer(question=question, verdict=verdict, why=why), figures)


def _off_policy(view: LogView, figures: Figures) -> Answer:
    question = "Can it judge another policy offline (off-policy evaluation)?"
    found = figures.propensities
    if found is None:
        return Answer(question=question, verdict="no", why="It has no usable propensities.")
    if found.usable < view.num_rows:
        why = f"Only {found.usable:,} of {view.num_rows:,} rows have a usable propensity."
        return Answer(question=question, verdict="partly", why=why)
    verdict: Verdict = "yes" if found.sample_share >= CLEAR_SAMPLE_SHARE else "partly"
    why = (
        f"Weighted for a uniform policy its rows are worth {percent(found.sample_share)} of their "
        "number."
    )
    return _with_outcomes(Answer(question=question, verdict=verdict, why=why), figures)


def _with_outcomes(answer: Answer, figures: Figures) -> Answer:
    """A "yes" becomes "partly" where too few outcomes stand behind it."""
    amounts = {
        label.task.name: min(label.positives, label.negatives)
        for label in figures.labels
        if label.task.kind == "binary"
    }
    name = max(amounts, key=lambda key: amounts[key]) if amounts else ""
    if answer.verdict != "yes" or (name and amounts[name] >= MIN_ROWS_OF_OUTCOME):
        return answer
    few = f"only {amounts[name]:,} rows of {name}'s rarer outcome" if name else "no binary label"
    why = f"{answer.why[:-1]}; but {few}."
    return Answer(question=answer.question, verdict="partly", why=why)


def _experiment(figures: Figures) -> Answer:
    question = "Would an A/B test at this traffic see a lift of 1 %?"
    best = soonest(figures.sizes)
    if best is None:
        why = "It has no users, or no label that varies between them."
        return Answer(question=question, verdict="no", why=why)
    why = f"Soonest on {best.task.name} {best.metric}: {best.users_per_arm:,} users an arm, "
    verdict: Verdict = "no"
    if best.days is not None:
        verdict = "partly" if best.extrapolated else "yes"
    return Answer(question=question, verdict=verdict, why=f"{why}{days_text(best)}.")
