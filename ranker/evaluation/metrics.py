"""The table of metrics: what each is called, its unit, and which way is better.

A metric is computed for many bootstrap replicates at once, by a `Measure`: it maps user weights
[R, U] to one array [R] a metric. With every weight 1 it gives the metric itself.

Shape legend for the package: N rows, U users, L lists, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Kind = Literal["binary", "regression"]
Direction = Literal["higher", "lower", "one"]
Measure = Callable[[FloatArray], Mapping[str, FloatArray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a metric is read.

    Attributes:
        label: its name in reports.
        unit: ``""`` for a pure number, ``"nat"``, ``"label"`` for the label's own unit.
        direction: which values are better; ``one`` where 1 is right, and models are compared by
            how far they are from it, |log value|.
        kinds: the kinds of task that have it.
        undefined: why it may have no value though there are labels enough.
    """

    label: str
    unit: str
    direction: Direction
    kinds: tuple[Kind, ...]
    undefined: str = "undefined on these rows"


LIST_METRICS = ("gauc", "ndcg")  # of the order within lists
# Metrics cut at a rank carry it in their name, as in "ndcg@5": look them up with `metric_of`.
METRICS: Mapping[str, Metric] = {
    "auc": Metric(label="AUC", unit="", direction="higher", kinds=("binary",)),
    "gauc": Metric(
        label="GAUC",
        unit="",
        direction="higher",
        kinds=("binary",),
        undefined="no list holds both a positive and a negative",
    ),
    "log_loss": Metric(label="log loss", unit="nat", direction="lower", kinds=("binary",)),
    "normalised_entropy": Metric(
        label="normalised entropy", unit="", direction="lower", kinds=("binary",)
    ),
    "ndcg": Metric(label="NDCG", unit="", direction="higher", kinds=("binary",)),
    "mae": Metric(label="MAE", unit="label", direction="lower", kinds=("regression",)),
    "rmse": Metric(label="RMSE", unit="label", direction="lower", kinds=("regression",)),
    "mae_log1p": Metric(
        label="MAE of log1p",
        unit="",
        direction="lower",
        kinds=("regression",),
        undefined="log1p needs labels >= 0",
    ),
    "rmse_log1p": Metric(
        label="RMSE of log1p",
        unit="",
        direction="lower",
        kinds=("regression",),
        undefined="log1p needs labels >= 0",
    ),
    "xauc": Metric(
        label="XAUC",
        unit="",
        direction="higher",
        kinds=("regression",),
        undefined="all labels are equal",
    ),
    "calibration_ratio": Metric(
        label="calibration ratio",
        unit="",
        direction="one",
        kinds=("binary", "regression"),
        undefined="the mean label is not above 0",
    ),
    "ece": Metric(label="ECE", unit="", direction="lower", kinds=("binary",)),
}


def metric_of(name: str) -> Metric:
    """The entry of ``METRICS`` for ``name``, which may carry a rank (``ndcg@5``).

    Raises:
        ValueError: there is no such metric.
    """
    base = name.partition("@")[0]
    if base not in METRICS:
        raise ValueError(f"metric {name!r} is unknown; expected one of {sorted(METRICS)}")
    return METRICS[base]


def comparable(name: str, values: FloatArray) -> FloatArray:
    """Put ``values`` of a metric on the scale on which models are compared.

    That is |log value| for metrics whose right value is 1 (NaN where the value is not above 0),
    and the value itself for all others.
    """
    if metric_of(name).direction != "one":
        return values
    logs = np.full_like(values, np.nan)
    np.log(values, out=logs, where=values > 0)
    return np.abs(logs)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide elementwise; NaN where ``denominator`` is not above 0."""
    quotients = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotients, where=denominator > 0)
    return quotients


def sum_by(codes: IntArray, values: FloatArray, num_codes: int) -> FloatArray:
    """Add up ``values`` [N] of rows with the same code in [0, num_codes)."""
    return np.asarray(np.bincount(codes, weights=values, minlength=num_codes), dtype=np.float64)


def sums_by_user(columns: FloatArray, users: IntArray, num_users: int) -> FloatArray:
    """Add up each of the columns [K, N] over every user's rows, giving [K, U]."""
    return np.stack([sum_by(users, column, num_users) for column in columns])
