"""Features that know what they are to predict: copies of a label, and times after the impression.

Pure functions over the columns of a sample of rows. What is found is a *suspect*: a feature that
determines an outcome this well is hardly ever known when serving, but only its owner can tell.

Shapes: N rows, K distinct values of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ranker.data.columns import EARLIEST_MS, LATEST_MS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_Measure = Callable[[IntArray, FloatArray], float | None]

MIN_ROWS = 200
MIN_ROWS_OF_CLASS = 50
LARGEST_AUC_DISTANCE = 0.49  # of an AUC from 0.5
LARGEST_RANK_CORRELATION = 0.99
LARGEST_FUTURE_SHARE = 0.01
MAX_CATEGORIES_OF_NUMBER = 256
DAY_MS = 86_400_000
SECOND_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A feature that may leak.

    Attributes:
        against: what it was compared with: a task, ``watch time``, ``time``, ``impressions``.
        compared: how many rows (owners for a period statistic) the finding rests on.
        measure: what ``strength`` is, e.g. ``AUC``.
        finding: what was found and what to do, as a sentence without a subject.
    """

    feature: str
    reason: Literal["label copy", "period statistic", "from the future"]
    against: str
    compared: int
    measure: str
    strength: float
    finding: str

    def sentence(self) -> str:
        """Where, what was got, what to do."""
        return f"feature {self.feature!r}: {self.reason}: {self.finding}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRows:
    """Rows of a log with the features joined to them; every array has N elements.

    Attributes:
        user: any numbering of the users.
        numeric: numbers as logged; NaN = null.
        date_ms: features that are dates, in UTC milliseconds; NaN = null.
        categorical: any numbering of the categories; -1 = null.
        binary: binary labels, 0 or 1; NaN = not observed.
        regression: other outcomes, such as the watch time; NaN = not observed.
    """

    user: IntArray
    time_ms: IntArray
    numeric: Mapping[str, FloatArray]
    date_ms: Mapping[str, FloatArray]
    categorical: Mapping[str, IntArray]
    binary: Mapping[str, FloatArray]
    regression: Mapping[str, FloatArray]


def find_label_copies(rows: SampledRows) -> list[Suspect]:
    """Features that determine a label almost perfectly, each with the label it fits best.

    A number is taken as an order (so any monotone copy and its negation is found), a category as
    the mean label of its rows: fitted on one half of the users, tested on the other, so that an id
    that merely names its rows explains nothing. A number of few values, or the fact that it is
    null, is tested as a category too. Suspect is an AUC further than .49 from .5 on a binary label
    (50 rows of each class) or a Spearman correlation beyond .99 with another (200 rows).
    """
    half = rows.user % 2 == 0
    suspects = []
    for feature, views in _views(rows):
        found = [
            suspect
            for codes, is_ordered in views
            for suspect in _copies_by_label(feature, codes, rows, None if is_ordered else half)
        ]
        if found:
            suspects.append(max(found, key=lambda suspect: abs(suspect.strength)))
    return suspects


def find_future_times(rows: SampledRows) -> list[Suspect]:
    """Dates, and numbers that can only be time stamps, after the impression in over 1 % of rows.

    A date without a time of day may be up to a day ahead (time zones), a time stamp a second
    (rounding). Numbers count as time stamps if 99 % lie between 1990 and 2100 in s, ms or us.
    """
    stamps_ms = dict(rows.date_ms)
    for feature, values in rows.numeric.items():
        factor = _time_factor(values[~np.isnan(values)])
        if factor is not None:
            stamps_ms[feature] = values * factor
    suspects = []
    for feature, stamp_ms in stamps_ms.items():
        given = ~np.isnan(stamp_ms)
        whole_days = bool(np.all(stamp_ms[given] % DAY_MS == 0))
        tolerance_ms = DAY_MS if whole_days else SECOND_MS
        later = stamp_ms[given] - rows.time_ms[given] > tolerance_ms
        share = float(later.mean()) if len(later) else 0.0
        if share > LARGEST_FUTURE_SHARE:
            suspects.append(
                Suspect(
                    feature=feature,
                    reason="from the future",
                    against="time",
                    compared=len(later),
                    measure="share of rows",
                    strength=share,
                    finding=(
                        f"its time lies after the impression in {int(later.sum()):,} of "
                        f"{len(later):,} rows ({share:.1%}), expected at most "
                        f"{LARGEST_FUTURE_SHARE:.0%}; log what was known when serving, or "
                        "leave it out"
                    ),
                )
            )
    return suspects


def _views(rows: SampledRows) -> Iterator[tuple[str, list[tuple[IntArray, bool]]]]:
    """Feature -> its values as codes (null = -1), and whether their order means anything."""
    numbers = dict(rows.numeric)
    # The model sees a date's age, which also shows a date that is set when the label happens.
    numbers |= {name: rows.time_ms - date_ms for name, date_ms in rows.date_ms.items()}
    for feature, values in numbers.items():
        given = ~np.isnan(values)
        codes = np.full(len(values), -1, dtype=np.int64)
        distinct, codes[given] = np.unique(values[given], return_inverse=True)
        few = len(distinct) <= MAX_CATEGORIES_OF_NUMBER
        yield feature, [(codes, True), (codes if few else given.astype(np.int64), False)]
    for feature, codes in rows.categorical.items():
        yield feature, [(codes, False)]


def _copies_by_label(
    feature: str, codes: IntArray, rows: SampledRows, half: BoolArray | None
) -> Iterator[Suspect]:
    for task, label in rows.binary.items():
        auc = _weaker_half(codes, label, half, measure=_auc)
        if auc is not None and abs(auc - 0.5) > LARGEST_AUC_DISTANCE:
            yield _label_copy(feature, task, "AUC", auc, int((~np.isnan(label)).sum()))
    for task, label in rows.regression.items():
        correlation = _weaker_half(codes, label, half, measure=_rank_correlation)
        if correlation is not None and abs(correlation) > LARGEST_RANK_CORRELATION:
            yield _label_copy(
                feature, task, "Spearman correlation", correlation, int((~np.isnan(label)).sum())
            )


def _label_copy(feature: str, task: str, measure: str, strength: float, num_rows: int) -> Suspect:
    return Suspect(
        feature=feature,
        reason="label copy",
        against=task,
        compared=num_rows,
        measure=measure,
        strength=strength,
        finding=(
            f"it alone determines {task!r} ({measure} {strength:.4f} over {num_rows:,} rows), "
            "expected a weaker relation; it is probably logged with the outcome: leave it out, or "
            "log what was known when serving"
        ),
    )


def _weaker_half(
    codes: IntArray, label: FloatArray, half: BoolArray | None, *, measure: _Measure
) -> float | None:
    """``measure`` of an ordered feature; of categories (``half`` given) the lesser of both halves.

    None where there are too few rows to tell.
    """
    observed = ~np.isnan(label)
    if half is None:
        used = observed & (codes >= 0)
        return measure(codes[used], label[used])
    found = []
    for fitted in (half, ~half):
        fit, test = observed & fitted, observed & ~fitted
        ordered = _order_by_mean(codes[fit], label[fit], codes[test])
        found.append(measure(ordered, label[test]))
    return None if None in found else min((f for f in found if f is not None), key=abs)


def _order_by_mean(codes: IntArray, label: FloatArray, tested: IntArray) -> IntArray:
    """Replace each of ``tested`` by the rank of its category's mean label among ``codes``."""
    size = int(max(codes.max(initial=-1), tested.max(initial=-1))) + 2  # null is category 0
    num_rows = np.bincount(codes + 1, minlength=size)  # [K]
    total = np.bincount(codes + 1, weights=label, minlength=size)
    overall = float(label.mean()) if len(label) else 0.0
    # One row's weight of the overall mean: a category seen once is no certainty.
    mean = (total + overall) / (num_rows + 1)
    _, ranks = np.unique(mean, return_inverse=True)
    return np.asarray(ranks[tested + 1], dtype=np.int64)


def _auc(codes: IntArray, label: FloatArray) -> float | None:
    """Area under the ROC curve of ``codes`` as scores; ties count half."""
    positive = label == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if min(num_positive, num_negative) < MIN_ROWS_OF_CLASS or len(label) < MIN_ROWS:
        return None
    size = int(codes.max()) + 1
    positives = np.bincount(codes[positive], minlength=size)  # [K]
    negatives = np.bincount(codes[~positive], minlength=size)
    below = np.cumsum(negatives) - negatives / 2
    return float(positives @ below) / num_positive / num_negative


def _rank_correlation(codes: IntArray, label: FloatArray) -> float | None:
    """Spearman's correlation, with mean ranks for ties."""
    if len(label) < MIN_ROWS:
        return None
    _, label_codes = np.unique(label, return_inverse=True)
    ranks = [_mean_ranks(codes), _mean_ranks(label_codes)]
    if any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(codes: IntArray) -> FloatArray:
    counts = np.bincount(codes)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[codes], dtype=np.float64)


def _time_factor(values: FloatArray) -> float | None:
    """What turns ``values`` into milliseconds, if they can only be time stamps."""
    if len(values) == 0:
        return None
    for factor in (1e3, 1.0, 1e-3):
        stamps_ms = values * factor
        if np.mean((stamps_ms >= EARLIEST_MS) & (stamps_ms < LATEST_MS)) >= 0.99:
            return factor
    return None
