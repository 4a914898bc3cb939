"""Features that know too much: copies of labels, times to come, statistics over the future.

Shapes: N rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.audit.column import FloatArray, IntArray
from ranker.audit.finding import Finding
from ranker.audit.view import FeatureColumn, LogView
from ranker.data.leakage import SampledRows, Suspect, find_future_times, find_label_copies
from ranker.data.period_statistics import OwnerHalves, find_period_statistics, middle_ms

SUSPECT_AUC = 0.95
EARLY_SHARE = 0.7
_MAX_CELLS = 4_000_000
_NUM_BINS = 64
_MIN_OF_CLASS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStrength:
    """How well one feature alone predicts a binary label on later rows.

    Attributes:
        auc: 0.5 is chance; the feature's bins are ordered by their earlier rate, so less than 0.5
            means that an earlier relation turned round.
    """

    feature: str
    task: str
    auc: float
    rows: int


def column_strengths(view: LogView) -> tuple[ColumnStrength, ...]:
    """AUC of every feature alone on every binary label, strongest first.

    Fitted on the earlier 70 % of the rows, tested on the rest. Numbers are cut into 64 bins of
    equal size; a category's earlier rate is drawn towards the mean by one row's weight.
    """
    if view.time_ms is None or not view.features:
        return ()
    rows = _leak_rows(view)
    time_ms = view.time_ms[rows]
    early = time_ms <= np.quantile(time_ms[~np.isnan(time_ms)], EARLY_SHARE) if len(rows) else None
    if early is None:
        return ()
    binary = [task.name for task in view.schema.tasks if task.kind == "binary"]
    found = []
    for feature in view.features:
        bins = _bins(feature, rows)
        for task in binary:
            if task not in view.labels:
                continue
            auc = later_auc(bins, view.labels[task][rows], early)
            if auc is not None:
                found.append(
                    ColumnStrength(feature=feature.name, task=task, auc=auc, rows=len(rows))
                )
    return tuple(sorted(found, key=lambda strength: (-strength.auc, strength.feature)))


def later_auc(bins: IntArray, label: FloatArray, early: np.ndarray) -> float | None:
    """AUC on the rows not ``early`` of bins scored by their mean early label; ties count half.

    None with fewer than 50 late rows of a class, or no early row.
    """
    observed = ~np.isnan(label)
    fit, test = observed & early, observed & ~early
    num_positive = int(label[test].sum())
    num_negative = int(test.sum()) - num_positive
    if min(num_positive, num_negative) < _MIN_OF_CLASS or not fit.any():
        return None
    size = int(bins.max(initial=-1)) + 2
    rows = np.bincount(bins[fit] + 1, minlength=size)
    totals = np.bincount(bins[fit] + 1, weights=label[fit], minlength=size)
    score = (totals + label[fit].mean()) / (rows + 1)
    _, ranks = np.unique(score, return_inverse=True)
    positives = np.bincount(ranks, np.bincount(bins[test] + 1, label[test], minlength=size))
    everyone = np.bincount(ranks, np.bincount(bins[test] + 1, minlength=size))
    negatives = everyone - positives
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below) / num_positive / num_negative


def check_leaks(view: LogView, strengths: tuple[ColumnStrength, ...]) -> list[Finding]:
    """Suspects of `ranker validate`'s checks, and columns with a later AUC above 0.95."""
    suspects = _suspects(view)
    findings = [
        Finding(
            level="problem",
            topic="leaks",
            sentence=_capital(suspect.sentence()) + ".",
            remedy="Take it out of the features unless it is truly known when serving.",
            numbers={suspect.measure: suspect.strength, "compared": suspect.compared},
        )
        for suspect in suspects
    ]
    named = {suspect.feature for suspect in suspects}
    for strength in strengths:
        if strength.auc > SUSPECT_AUC and strength.feature not in named:
            named.add(strength.feature)
            findings.append(
                Finding(
                    level="problem",
                    topic="leaks",
                    sentence=f"Feature {strength.feature!r} alone reaches AUC {strength.auc:.3f} "
                    f"on {strength.task!r} in later rows: probably logged with the outcome.",
                    remedy="Take it out of the features unless it is truly known when serving.",
                    numbers={"auc": strength.auc},
                )
            )
    if not findings and view.features and view.labels:
        findings.append(
            Finding(
                level="fine",
                topic="leaks",
                sentence=f"None of {len(view.features)} features determines a label, lies in the "
                "future or sums it up.",
            )
        )
    return findings


def _suspects(view: LogView) -> list[Suspect]:
    if view.time_ms is None or not view.features or view.num_rows == 0:
        return []
    rows = _leak_rows(view)
    user = np.arange(len(rows)) if view.user is None else view.user[rows]
    kinds = {task.name: task.kind for task in view.schema.tasks}
    labels = {name: label[rows] for name, label in view.labels.items()}
    numeric = {f.name: f.numbers[rows] for f in view.features if f.numbers is not None}
    dates = {f.name: f.date_ms[rows] for f in view.features if f.date_ms is not None}
    categorical = {
        f.name: f.codes[rows] for f in view.features if f.numbers is None and f.date_ms is None
    }
    sampled = SampledRows(
        user=user,
        time_ms=np.nan_to_num(view.time_ms[rows]).astype(np.int64),
        numeric={name: np.where(np.isfinite(v), v, np.nan) for name, v in numeric.items()},
        date_ms=dates,
        categorical=categorical,
        binary={name: label for name, label in labels.items() if kinds[name] == "binary"},
        regression={name: label for name, label in labels.items() if kinds[name] != "binary"},
    )
    return [*find_label_copies(sampled), *find_future_times(sampled), *_period_statistics(view)]


def _period_statistics(view: LogView) -> list[Suspect]:
    assert view.time_ms is not None
    given = ~np.isnan(view.time_ms)
    suspects = []
    for owner, codes in (("user", view.user), ("item", view.item)):
        numbers = {
            f.name: f.numbers for f in view.features if f.owner == owner and f.numbers is not None
        }
        if codes is None or not numbers or not given.any():
            continue
        used = given & (codes >= 0)
        time_ms = view.time_ms[used].astype(np.int64)
        hours, counts = np.unique(time_ms // 3_600_000, return_counts=True)
        split_ms = middle_ms(dict(zip(hours.tolist(), counts.tolist(), strict=True)))
        halves = OwnerHalves(list(view.labels), split_ms=split_ms)
        labels = {name: label[used] for name, label in view.labels.items()}
        halves.add(codes[used], time_ms, labels)
        by_owner = {
            name: _of_owner(codes[used], np.where(np.isfinite(v), v, np.nan)[used])
            for name, v in numbers.items()
        }
        suspects += find_period_statistics(halves, by_owner)
    return suspects


def _of_owner(codes: IntArray, values: FloatArray) -> FloatArray:
    found = np.full(int(codes.max(initial=-1)) + 1, np.nan)
    found[codes] = values
    return found


def _leak_rows(view: LogView) -> IntArray:
    """So many rows, evenly spread, that all features together stay small."""
    most = max(1_000, _MAX_CELLS // max(1, len(view.features)))
    step = max(1, -(-view.num_rows // most))
    return np.arange(0, view.num_rows, step)


def _bins(feature: FeatureColumn, rows: IntArray) -> IntArray:
    if feature.numbers is None and feature.date_ms is None:
        return feature.codes[rows]
    values = feature.numbers if feature.numbers is not None else feature.date_ms
    assert values is not None
    values = values[rows]
    given = np.isfinite(values)
    if not given.any():
        return np.full(len(rows), -1, dtype=np.int64)
    edges = np.unique(np.quantile(values[given], np.linspace(0, 1, _NUM_BINS + 1)[1:-1]))
    return np.where(given, np.searchsorted(edges, values, side="left"), -1).astype(np.int64)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
