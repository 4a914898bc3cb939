"""What an experiment's page says of its methods, from what was in fact done."""

from __future__ import annotations

from ranker.experiment.analysis import ExperimentAnalysis
from ranker.experiment.metric import MeanMeasure, QuantileMeasure, RatioMeasure
from ranker.report.markup import percent


def method_sentences(analysis: ExperimentAnalysis) -> list[str]:
    """One sentence a method or assumption, then the notes on the table."""
    settings = analysis.settings
    confidence = percent(settings.confidence, decimals=0)
    measures = [metric.measure for metric in settings.metrics]
    sentences = [
        "Users are independent of each other and stay in one arm; a user's rows are not "
        "independent, and no method here treats them so.",
        f"Intervals are at {confidence}, each for itself; lifts by Fieller's interval, which "
        "excludes zero exactly where the test of the difference does.",
    ]
    if any(isinstance(measure, MeanMeasure) for measure in measures):
        sentences.append(
            "Means are over users of their sums in the experiment, compared by Welch's test. A "
            "user whose metric was never observed is left out of that metric."
        )
    if any(isinstance(measure, RatioMeasure) for measure in measures):
        sentences.append("Ratios are of sums, by the delta method clustered by user.")
    if any(isinstance(measure, QuantileMeasure) for measure in measures):
        sentences.append(
            "Quantiles are over rows; their intervals are clustered by user and not narrowed by "
            "CUPED."
        )
    for metric in settings.metrics:
        measure = metric.measure
        if isinstance(measure, MeanMeasure) and measure.winsorise_quantile is not None:
            sentences.append(
                f"{metric.name} is winsorised at the quantile {measure.winsorise_quantile:g} of "
                "all arms' users: what is compared is the mean so cut."
            )
    if analysis.has_pre_period:
        sentences.append(
            "CUPED takes out what the same metric was by user before the experiment; users without "
            "a past keep their place by an indicator of their own."
        )
    sentences.append(
        "p-values are adjusted by Holm over primary metrics and treatments, by Benjamini–Hochberg "
        "over secondary ones; guardrails must all hold and are not adjusted."
    )
    if settings.peeking:
        sentences.append(
            "Confidence sequences decide (asymptotic, Robbins' mixture; the chance of error is "
            "divided among primary metrics and treatments): it may be stopped on any day."
        )
    else:
        sentences.append(
            "One look decides: had the end been chosen for how the result looked, its false alarms "
            "would be more than promised. Set peeking to true for that."
        )
    return [*sentences, *analysis.notes]
