"""Ranges and ticks of the axes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ranker.report.content import CalibrationBin

Axis = dict[str, object]

_RARE = 0.1  # log axes where no bin predicts more than this
_MAX_LOG_TICKS = 4
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One range for both axes of a calibration curve, so that the diagonal is the diagonal."""

    low: float
    high: float
    is_log: bool

    def clip(self, value: float) -> float:
        """Move a value that a log axis can't show to its lower edge."""
        return max(value, self.low) if self.is_log else value

    def axis(self, unit: str) -> Axis:
        """Plotly's axis attributes; without a unit the ticks are percentages."""
        if not self.is_log:
            ticks: Axis = {"tickformat": "~g"} if unit else {"tickformat": ".0%"}
            margin = 0.04 * (self.high - self.low)  # keeps the two zeros of the corner apart
            span = [self.low - margin, self.high]
            return {"range": span, "nticks": 6, "zeroline": False, **ticks}
        values = log_ticks(self.low, self.high)
        texts = [f"{v:.4g} {unit}" if unit else f"{100 * v:.3g}%" for v in values]
        return {
            "type": "log",
            "range": [math.log10(self.low), math.log10(self.high)],
            "tickvals": values,
            "ticktext": texts,
        }


def calibration_scale(bins: Sequence[CalibrationBin]) -> Scale:
    """Cover predictions and labels; logarithmic where all predictions are rare but above 0."""
    predictions = [b.mean_prediction for b in bins]
    values = [*predictions, *(b.mean_label for b in bins), *(b.ci_high for b in bins)]
    if predictions and min(predictions) > 0 and max(predictions) < _RARE:
        positive = [v for v in values if v > 0]
        return Scale(low=min(positive) / 1.5, high=max(positive) * 1.5, is_log=True)
    low, high = min([0.0, *values]), max(values, default=0.0)
    return Scale(low=low, high=1.05 * high if high > low else low + 1.0, is_log=False)


def log_ticks(low: float, high: float) -> list[float]:
    """At most four round numbers from just above ``low``, which is the corner, to ``high``.

    Whole decades where there are many, 1-2-5 within few.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{d}e{k}") for k in decades for d in digits]
        ticks = [tick for tick in ticks if 1.15 * low <= tick <= high]
        if len(ticks) <= _MAX_LOG_TICKS:
            break
    return ticks[:: math.ceil(len(ticks) / _MAX_LOG_TICKS)] if ticks else []


def window_ticks(labels: Sequence[str], *, at_most: int) -> Axis:
    """Label the first window, the last, and a few evenly between; labels are already escaped."""
    last = len(labels) - 1
    steps = min(at_most - 1, last)
    chosen = sorted({round(last * i / steps) for i in range(steps + 1)}) if steps > 0 else [0]
    shown = without_year(labels)
    return {
        "tickvals": chosen if labels else [],
        "ticktext": [shown[i] for i in chosen] if labels else [],
        "range": [-0.6, max(last, 0) + 0.6],
        "tickangle": 0,
        "zeroline": False,
    }


def without_year(labels: Sequence[str]) -> list[str]:
    """Shorten dates of one and the same year (2022-05-08 to 05-08); leave other labels alone."""
    if len({label[:4] for label in labels}) == 1 and all(map(_ISO_DATE.fullmatch, labels)):
        return [label[5:] for label in labels]
    return list(labels)
