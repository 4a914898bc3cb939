"""The metrics of one task for several models, and which of them is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ranker.evaluation.intervals import Estimate, percentile_estimate
from ranker.evaluation.metrics import FloatArray, Kind, comparable, metric_of

Verdict = Literal["better", "worse", "cannot tell"]
JsonValue = float | int | str | None | Mapping[str, float | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A metric of one model: its value [1] and its bootstrap replicates [R]."""

    value: FloatArray
    replicates: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvaluation:
    """Metrics of every model on one task, with what is needed to compare two of them.

    Attributes:
        rows: rows with a label.
        users: users with such a row.
        positives: rows whose label is 1; ``None`` for regression.
        estimates: by model, then metric.
    """

    kind: Kind
    rows: int
    users: int
    positives: int | None
    estimates: Mapping[str, Mapping[str, Estimate]]
    _samples: Mapping[str, Mapping[str, Samples]] = field(repr=False, compare=False)
    _confidence: float = field(repr=False)

    def difference(self, a: str, b: str) -> Mapping[str, Estimate]:
        """Model ``a`` minus model ``b``, by metric, paired: both see the same user resamples.

        The calibration ratio is compared by |log ratio|, its distance from 1.

        Raises:
            ValueError: a model was not evaluated.
        """
        self._require_models(a, b)
        return {metric: self._difference(a, b, metric) for metric in self.estimates[a]}

    def verdict(self, a: str, b: str, metric: str) -> Verdict:
        """Whether ``a`` is better or worse than ``b`` by ``metric``.

        ``cannot tell`` when the interval of their difference holds 0 or there is none.

        Raises:
            ValueError: a model or metric was not evaluated.
        """
        self._require_models(a, b)
        if metric not in self.estimates[a]:
            raise ValueError(f"metric {metric!r} is not one of {sorted(self.estimates[a])}")
        difference = self._difference(a, b, metric)
        if difference.value is None or not difference.excludes_zero():
            return "cannot tell"
        is_higher = difference.value > 0
        return "better" if is_higher == (metric_of(metric).direction == "higher") else "worse"

    def to_json(self, model: str) -> dict[str, JsonValue]:
        """One model's entry in metrics.json: kind, rows, positives (binary), then the metrics."""
        self._require_models(model)
        counts: dict[str, JsonValue] = {"kind": self.kind, "rows": self.rows}
        if self.positives is not None:
            counts["positives"] = self.positives
        metrics = {name: est.to_json() for name, est in self.estimates[model].items()}
        return counts | metrics

    def _difference(self, a: str, b: str, metric: str) -> Estimate:
        if metric not in self._samples[a]:
            return self.estimates[a][metric]  # too few labels: the reason holds for all models
        first, second = self._samples[a][metric], self._samples[b][metric]
        value = comparable(metric, first.value) - comparable(metric, second.value)
        replicates = comparable(metric, first.replicates) - comparable(metric, second.replicates)
        return percentile_estimate(
            value=float(value[0]),
            replicates=replicates,
            confidence=self._confidence,
            undefined=metric_of(metric).undefined,
        )

    def _require_models(self, *models: str) -> None:
        for model in models:
            if model not in self.estimates:
                raise ValueError(
                    f"model {model!r} was not evaluated; expected one of {sorted(self.estimates)}"
                )
