"""What a report says: plain values, no charts and no HTML.

Every section of `ReportContent` is optional, so that each job fills in what it knows: evaluation
has no A/B comparison, a simulation has no training cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Family = Literal["engagement", "satisfaction"]
Verdict = Literal["better", "worse", "cannot_tell"]
Split = Literal["train", "validation", "test", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: None where it can't be estimated; ``reason`` then says why.
        ci_low: lower end of the interval; None where no interval was computed.
        ci_high: upper end.

    Raises:
        ValueError: not finite, half an interval, a reversed one, or a missing value unexplained.
    """

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        ends = [x for x in (self.ci_low, self.ci_high) if x is not None]
        _require_finite("estimate", [*ends, *([] if self.value is None else [self.value])])
        if self.value is None and not self.reason:
            raise ValueError("estimate: value is None and reason is empty; say why there is none")
        if len(ends) == 1:
            raise ValueError(f"estimate: an interval needs both ends, got only {ends[0]}")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise ValueError(f"estimate: ci_low {ends[0]} is above ci_high {ends[1]}; swap them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Rows set aside for one reason."""

    reason: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRows:
    """Rows of one window of time and what it was used for."""

    label: str
    rows: int
    split: Split = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """How often a task's label was observed.

    Attributes:
        positives: None for regression.
        mean: positive rate, or the mean in the label's unit; None without observed rows.
    """

    task: str
    family: Family
    kind: Literal["binary", "regression"]
    observed_rows: int
    positives: int | None
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What was read and what became of it."""

    rows_read: int
    rows_kept: int
    exact_duplicates: int
    users: int
    items: int
    quarantined: Sequence[Quarantine] = ()
    windows: Sequence[WindowRows] = ()
    labels: Sequence[LabelSummary] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """All metrics of one model on one task, by metric name (``auc``, ``log_loss``)."""

    model: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Our model minus a baseline on the task's headline metric, paired by user."""

    baseline: str
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """One task's results.

    Attributes:
        headline_metric: the metric name that the main table shows.
        models: our model first, then the baselines.
        comparisons: at most one for each baseline; none where there is no baseline.
    """

    task: str
    family: Family
    rows: int
    positives: int | None
    headline_metric: str
    models: Sequence[ModelMetrics]
    comparisons: Sequence[Comparison] = ()

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError(f"metrics of task {self.task!r}: expected at least one model")

    def headline(self, model: str) -> Estimate | None:
        """The headline metric of ``model``; None where it was not measured."""
        for candidate in self.models:
            if candidate.model == model:
                return candidate.metrics.get(self.headline_metric)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowValue:
    """A metric on one window, before the model trained on it."""

    window: str
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProgress:
    """Progressive validation of one task, windows in time order."""

    task: str
    metric: str
    windows: Sequence[WindowValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows of similar predictions, in the label's unit; the interval is of ``mean_label``."""

    mean_prediction: float
    mean_label: float
    rows: int
    ci_low: float
    ci_high: float

    def __post_init__(self) -> None:
        values = [self.mean_prediction, self.mean_label, self.ci_low, self.ci_high]
        _require_finite("calibration bin", values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCalibration:
    """Calibration of one task.

    Attributes:
        unit: of the label, for example ``s``; empty for probabilities.
        ratio: mean prediction / mean label over all rows.
        calibrator: what the predictions went through, in a few words; empty if it is not known.
    """

    task: str
    bins: Sequence[CalibrationBin]
    unit: str = ""
    ratio: Estimate | None = None
    calibrator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExperts:
    """Mean gate weight of each expert for one task; ``alarm`` describes a polarized gate."""

    task: str
    weights: Sequence[float]
    alarm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertUtilization:
    """Tasks × experts. Leave it out for a shared bottom, which has no gates."""

    tasks: Sequence[TaskExperts]

    def __post_init__(self) -> None:
        sizes = sorted({len(task.weights) for task in self.tasks})
        if len(sizes) > 1:
            raise ValueError(f"expert utilization: tasks have different numbers of experts {sizes}")
        for task in self.tasks:
            _require_finite(f"expert utilization of {task.task!r}", task.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftRow:
    """One metric of an A/B comparison.

    Attributes:
        lift: (treatment − control) / control as a fraction: .012 is +1.2 %.
        role: the primary metric decides; a guardrail must not worsen.
    """

    metric: str
    family: Family
    control_mean: float
    treatment_mean: float
    lift: Estimate
    verdict: Verdict
    role: Literal["primary", "guardrail", ""] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSummary:
    """An A/B comparison.

    Attributes:
        banner: how far it can be trusted, in one or two sentences.
        conclusion: the overall verdict in words.
        notes: assumptions, one sentence each.
    """

    control: str
    treatment: str
    control_users: int
    treatment_users: int
    lifts: Sequence[LiftRow]
    verdict: Verdict
    conclusion: str
    banner: str
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the job and how long it took."""

    name: str
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the model and the job cost; None where a job does not know."""

    embedding_parameters: int | None = None
    dense_parameters: int | None = None
    multiplications_per_example: int | None = None
    train_rows: int | None = None
    train_examples_per_s: float | None = None
    peak_memory_mib: float | None = None
    stages: Sequence[Stage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlateItem:
    """One ranked item; predictions in the label's unit, by task."""

    rank: int
    item: str
    score: float
    prediction_by_task: Mapping[str, float]
    sources: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlateExample:
    """The top of one request's slate."""

    request: str
    user: str
    items: Sequence[SlateItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and a value, such as a seed or a digest."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the page comes from: seeds, digests, versions, and the resolved configuration."""

    facts: Sequence[Fact] = ()
    config_yaml: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """All that one page says; a section that is None is left out and listed as left out.

    The page calls the intervals of ``metrics`` 95 % intervals that resample whole users.
    """

    title: str
    subtitle: str
    created_by: str
    headlines: Sequence[str] = field(default=())
    data: DataSummary | None = None
    metrics: Sequence[TaskMetrics] | None = None
    progress: Sequence[TaskProgress] | None = None
    calibration: Sequence[TaskCalibration] | None = None
    experts: ExpertUtilization | None = None
    experiment: ExperimentSummary | None = None
    cost: Cost | None = None
    slates: Sequence[SlateExample] | None = None
    provenance: Provenance | None = None


def _require_finite(where: str, values: Sequence[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(
                f"{where}: expected finite numbers, got {value}; use None and a reason"
            )
