"""What happened: label rates with intervals, by window, and whether late feedback is missing.

Intervals are clustered by user where the log has users.

Shapes: N rows, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ranker.audit.column import FloatArray, IntArray
from ranker.audit.finding import Finding, Level, percent
from ranker.audit.view import LogView
from ranker.data.windows import window_labels
from ranker.experiment.moments import moments
from ranker.experiment.ratios import Quantity, estimate
from ranker.schema import TaskSpec

CONFIDENCE = 0.95
_MAX_WINDOWS = 62
_FEW = 200
_CLEAR_Z = 4.0
_RATE = Quantity(numerator="label", denominator="observed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A label's mean over observed rows; the interval is None where it can't be told."""

    value: float
    ci_low: float | None
    ci_high: float | None
    se: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRate:
    """A label's rate in one window; None without observed rows."""

    window: str
    rows: int
    rate: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """One task's label.

    Attributes:
        positives: rows above 0; of a binary label its ones.
        rate: None without observed rows.
        windows: W of them in time order.
    """

    task: TaskSpec
    num_rows: int
    observed_rows: int
    positives: int
    rate: Rate | None
    windows: tuple[WindowRate, ...]

    @property
    def negatives(self) -> int:
        """Observed rows at 0 or below."""
        return self.observed_rows - self.positives


def label_figures(view: LogView) -> tuple[LabelFigures, ...]:
    """Figures of every task whose label the log has."""
    windows = None
    if view.time_ms is not None and not np.isnan(view.time_ms).any() and view.num_rows:
        windows = window_labels(view.time_ms.astype(np.int64), view.schema).to_numpy(dtype=str)
    return tuple(
        LabelFigures(
            task=task,
            num_rows=len(label),
            observed_rows=int((~np.isnan(label)).sum()),
            positives=int((label > 0).sum()),
            rate=rate_of(label, view.user),
            windows=() if windows is None else _by_window(label, view.user, windows),
        )
        for task in view.schema.tasks
        if (label := view.labels.get(task.name)) is not None
    )


def rate_of(label: FloatArray, user: IntArray | None) -> Rate | None:
    """Mean of the observed labels with an interval; without users every row counts as one.

    A ratio of sums by user, delta method (`ranker.experiment.ratios`).
    """
    observed = ~np.isnan(label)
    if not observed.any():
        return None
    sums = sums_by_user(label[observed], None if user is None else user[observed])
    found = estimate(moments(sums), _RATE)
    if len(sums["label"]) < 10 or not np.isfinite(found.squared_se):
        return Rate(value=found.value, ci_low=None, ci_high=None, se=None)
    se = float(np.sqrt(found.squared_se))
    margin = float(norm.ppf((1 + CONFIDENCE) / 2)) * se
    return Rate(value=found.value, ci_low=found.value - margin, ci_high=found.value + margin, se=se)


def sums_by_user(label: FloatArray, user: IntArray | None) -> Mapping[str, FloatArray]:
    """Sum of the observed labels [N] and how many there are, by user; by row without users."""
    if user is None:
        return {"label": label, "observed": np.ones(len(label))}
    rows = np.bincount(user + 1).astype(np.float64)  # rows without user are one user
    total = np.asarray(np.bincount(user + 1, weights=label), dtype=np.float64)
    return {"label": total[rows > 0], "observed": rows[rows > 0]}


def check_labels(view: LogView, figures: tuple[LabelFigures, ...]) -> list[Finding]:
    """Labels without both outcomes, rare ones, missing ones, and feedback that comes late."""
    findings = []
    for label in figures:
        findings.append(_amount(label))
        findings += _end_of_log(label)
    findings += _delays(view)
    names = [label.task.name for label in figures if label.task.kind == "binary"]
    if figures and not names:
        findings.append(
            Finding(
                level="look",
                topic="labels",
                sentence="No label is binary.",
                remedy="Rankers learn best from clicks or ratings above a threshold: derive one.",
            )
        )
    return findings


def _amount(label: LabelFigures) -> Finding:
    name, task = repr(label.task.name), label.task
    level: Level
    numbers = {
        "observed_rows": label.observed_rows,
        "positives": label.positives,
        "mean": None if label.rate is None else label.rate.value,
    }
    if label.observed_rows == 0:
        sentence, level = f"Label {name} is null in every row.", "problem"
        remedy = "Leave it out, or log it."
    elif task.kind == "binary" and 0 in (label.positives, label.negatives):
        only = 1 if label.positives else 0
        sentence, level = f"Label {name} is {only} in every row: nothing to learn.", "problem"
        remedy = "Log the impressions with the other outcome too."
    elif task.kind == "binary" and min(label.positives, label.negatives) < _FEW:
        few = min(label.positives, label.negatives)
        sentence, level = f"Label {name} has only {few:,} rows of its rarer outcome.", "look"
        remedy = "Its metrics will have wide intervals; bring more days."
    else:
        rate = label.rate
        assert rate is not None
        value = percent(rate.value) if task.kind == "binary" else f"{rate.value:,.3g} on average"
        share = percent(label.observed_rows / label.num_rows)
        sentence, level, remedy = (
            f"Label {name}: {value}, observed in {share} of the rows.",
            "fine",
            "",
        )
    return Finding(level=level, topic="labels", sentence=sentence, remedy=remedy, numbers=numbers)


def _end_of_log(label: LabelFigures) -> list[Finding]:
    """Compare the last window with those before: outcomes not yet arrived look like zeros."""
    told = [w for w in label.windows if w.rate is not None and w.rate.se is not None]
    if len(told) < 4:
        return []
    *earlier, last = told
    rates = np.array([w.rate.value for w in earlier if w.rate is not None])
    assert last.rate is not None and last.rate.se is not None
    mean, spread = float(rates.mean()), float(rates.std(ddof=1))
    z = (last.rate.value - mean) / max(np.hypot(last.rate.se, spread), 1e-300)
    if z > -_CLEAR_Z or last.rate.value > 0.8 * mean:
        return []
    drop = 1 - last.rate.value / mean
    return [
        Finding(
            level="look",
            topic="labels",
            sentence=f"Label {label.task.name!r} is {percent(drop)} lower in the last window "
            f"({last.window}) than before.",
            remedy="Feedback may arrive after the log was cut: leave the last window out, or wait.",
            numbers={"last": last.rate.value, "before": mean, "z": float(z)},
        )
    ]


def _delays(view: LogView) -> list[Finding]:
    name = view.roles.feedback_time
    if name is None or view.time_ms is None:
        return []
    delay_s = (view.columns[name].time_ms - view.time_ms) / 1_000
    delay_s = delay_s[~np.isnan(delay_s)]
    if len(delay_s) == 0:
        return []
    middle, late = (float(q) for q in np.quantile(delay_s, [0.5, 0.95]))
    return [
        Finding(
            level="fine" if late < 3_600 else "look",
            topic="labels",
            sentence=f"Feedback ({name!r}) comes {middle:,.0f} s after the impression in the "
            f"median, 5 % of it later than {late:,.0f} s.",
            remedy=""
            if late < 3_600
            else "Set reporting_delay_s, and train only on rows old enough.",
            numbers={"median_s": middle, "q95_s": late},
        )
    ]


def _by_window(
    label: FloatArray, user: IntArray | None, windows: np.ndarray
) -> tuple[WindowRate, ...]:
    names, place = np.unique(windows, return_inverse=True)
    if len(names) > _MAX_WINDOWS:
        return ()
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(len(names) + 1))
    found = []
    for w, name in enumerate(names.tolist()):
        rows = order[bounds[w] : bounds[w + 1]]
        rate = rate_of(label[rows], None if user is None else user[rows])
        found.append(WindowRate(window=name, rows=len(rows), rate=rate))
    return tuple(found)
