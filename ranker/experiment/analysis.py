"""The analysis of an experiment: every metric and treatment, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.assignment import ArmCounts, check_arm_counts
from ranker.experiment.decision import Decision, decide
from ranker.experiment.effect import FloatArray
from ranker.experiment.metric import Role
from ranker.experiment.metric_analyst import MetricAnalyst
from ranker.experiment.metric_result import Json, MetricResult
from ranker.experiment.multiplicity import benjamini_hochberg, holm
from ranker.experiment.outcomes_table import Outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentAnalysis:
    """What an experiment says.

    Attributes:
        results: metric by metric in the settings' order, treatments within.
        decisions: one a treatment.
        day_labels: days with rows; empty where the table has none.
        notes: what was found in the table, in sentences.
    """

    settings: AnalysisSettings
    sample_ratio: ArmCounts
    results: tuple[MetricResult, ...]
    decisions: tuple[Decision, ...]
    day_labels: tuple[str, ...]
    has_pre_period: bool
    notes: tuple[str, ...]

    def results_of(self, treatment: str) -> tuple[MetricResult, ...]:
        """All metrics of one treatment."""
        return tuple(one for one in self.results if one.treatment == treatment)

    def to_json(self) -> Json:
        """Ready for ``json.dumps``."""
        return {
            "control": self.settings.control,
            "treatments": list(self.settings.treatments),
            "confidence": self.settings.confidence,
            "peeking": self.settings.peeking,
            "days": list(self.day_labels),
            "pre_period": self.has_pre_period,
            "sample_ratio": {
                "num_users_by_arm": dict(self.sample_ratio.num_users_by_arm),
                "share_by_arm": dict(self.sample_ratio.share_by_arm),
                "p_value": self.sample_ratio.p_value,
            },
            "decisions": [decision.to_json() for decision in self.decisions],
            "metrics": [result.to_json() for result in self.results],
            "notes": list(self.notes),
        }


def analyse(outcomes: Outcomes, settings: AnalysisSettings) -> ExperimentAnalysis:
    """Analyse an experiment.

    The headline effect of means and ratios is by CUPED where there is a pre-period. p-values are
    adjusted over primary metrics and treatments (Holm) and, apart, over secondary ones
    (Benjamini–Hochberg). Courses by day are made of primary metrics and guardrails.
    """
    sample_ratio = check_arm_counts(outcomes.num_users_by_arm, share_by_arm=settings.share_by_arm)
    analyst = MetricAnalyst(
        outcomes=outcomes, settings=settings, rng=np.random.default_rng(settings.seed)
    )
    results = [result for metric in settings.metrics for result in analyst.results(metric)]
    adjusted = _adjust(results)
    span = outcomes.rows.days
    num_days = int(span[-1] - span[0]) + 1 if outcomes.rows.day_labels else 0
    return ExperimentAnalysis(
        settings=settings,
        sample_ratio=sample_ratio,
        results=adjusted,
        decisions=tuple(
            decide(
                [one for one in adjusted if one.treatment == treatment],
                treatment=treatment,
                sample_ratio=sample_ratio,
                num_days=num_days,
            )
            for treatment in settings.treatments
        ),
        day_labels=outcomes.rows.day_labels,
        has_pre_period=bool(outcomes.past_by_metric),
        notes=outcomes.notes,
    )


def _adjust(results: list[MetricResult]) -> tuple[MetricResult, ...]:
    """Fill in adjusted p-values, within primary and within secondary metrics."""
    p_values = np.array([result.headline.p_value for result in results])
    adjusted = p_values.copy()
    methods: dict[Role, Callable[[FloatArray], FloatArray]] = {
        "primary": holm,
        "secondary": benjamini_hochberg,
    }
    for role, method in methods.items():
        chosen = np.array([result.metric.role == role for result in results])
        adjusted[chosen] = method(p_values[chosen])
    return tuple(
        replace(result, p_adjusted=p) for result, p in zip(results, adjusted.tolist(), strict=True)
    )
