"""The sections of an experiment's page, from its analysis."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.experiment.analysis import ExperimentAnalysis
from ranker.experiment.decision import SAMPLE_RATIO_ALARM, Decision
from ranker.experiment.decision import Verdict as DecisionVerdict
from ranker.experiment.metric_result import MetricResult
from ranker.report.experiment_charts import course_chart
from ranker.report.experiment_rows import (
    forest_row,
    guardrail_row,
    metric_row,
    power_row,
    slice_row,
)
from ranker.report.forest import forest_chart
from ranker.report.markup import (
    Column,
    Html,
    count,
    element,
    escape,
    join,
    narrow_table,
    percent,
    table,
)
from ranker.report.panel import chart_grid, chart_html, section, tiles

_BADGES: dict[DecisionVerdict, str] = {
    DecisionVerdict.SHIP: "better",
    DecisionVerdict.DONT_SHIP: "worse",
    DecisionVerdict.NOT_ENOUGH_DATA: "cannot_tell",
    DecisionVerdict.REFUSED: "worse",
}
_ROLES = {
    "primary": "Primary metrics",
    "guardrail": "Guardrails",
    "secondary": "Secondary metrics",
}


def decision_section(analysis: ExperimentAnalysis) -> Html:
    """The verdict on each treatment, all its reasons, and the experiment's size."""
    days = f"{len(analysis.day_labels)}" if analysis.day_labels else "no days in the table"
    counts = analysis.sample_ratio.num_users_by_arm
    size = [(f"users in {arm}", count(users)) for arm, users in counts.items()]
    return section(
        "decision",
        "Decision",
        "The rule was set before the result: better on a primary metric and every guardrail within "
        "its margin is *ship*; worse on either, or no worthwhile gain, is *don’t ship*.",
        tiles([*size, ("days with rows", days)]),
        *(_decision(decision) for decision in analysis.decisions),
    )


def metrics_section(analysis: ExperimentAnalysis) -> Html:
    """Forest and table of all metrics, for each treatment."""
    children: list[Html] = []
    for treatment in analysis.settings.treatments:
        results = analysis.results_of(treatment)
        rows = [
            forest_row(one, group=_ROLES[role])
            for role in _ROLES
            for one in results
            if one.metric.role == role
        ]
        title = f"{treatment} against {analysis.settings.control}"
        children.append(chart_html(forest_chart(rows, title=f"Lift, {title}")))
        p_title = "p, single look" if analysis.settings.peeking else "p, adjusted"
        children.append(_metric_table(results, caption=f"Metrics, {title}", p_title=p_title))
    return section(
        "metrics",
        "Metrics",
        "Lift is the relative change from control to treatment. Where an interval crosses zero the "
        "arms cannot be told apart; ▲ is better and ▼ worse in the metric’s own direction, after "
        "adjusting for how many metrics and treatments were looked at.",
        *children,
    )


def course_section(analysis: ExperimentAnalysis) -> Html | None:
    """The lift of each deciding metric by day; None without days."""
    several = len(analysis.settings.treatments) > 1
    charts = [
        chart_html(
            course_chart(
                one.course,
                title=f"{one.metric.name} · {one.treatment}" if several else one.metric.name,
            )
        )
        for one in analysis.results
        if one.course is not None
    ]
    if not charts:
        return None
    decides = "Here it decides" if analysis.settings.peeking else "Here a single look decides"
    return section(
        "course",
        "Day by day",
        "The lift from all days so far. The band, a confidence sequence, holds on *all* days "
        "together: who stops at the first day on which it leaves zero is wrong no more often than "
        "promised. The dotted interval is right for one look planned in advance only. "
        f"{decides}.",
        chart_grid(charts),
    )


def guardrails_section(analysis: ExperimentAnalysis) -> Html | None:
    """What must not worsen, by how much it may, and how bad it may be; None without guardrails."""
    results = [one for one in analysis.results if one.metric.role == "guardrail"]
    if not results:
        return None
    columns = [
        Column(title="Guardrail", numeric=False),
        Column(title="Margin"),
        Column(title="Lift"),
        Column(title="At worst"),
        Column(title="Within its margin?", numeric=False),
    ]
    return section(
        "guardrails",
        "Guardrails",
        "A guardrail holds when even the bad end of its interval is within the margin; that it "
        "cannot be told from zero isn’t enough.",
        table(
            caption="Guardrails and their margins",
            columns=columns,
            rows=[guardrail_row(one) for one in results],
        ),
    )


def slices_section(analysis: ExperimentAnalysis) -> Html | None:
    """Primary metrics among some of the users; None without slices."""
    charts = [
        chart_html(
            forest_chart(
                [slice_row(part, one) for part in one.slices],
                title=f"{one.metric.name}, {one.treatment} against {analysis.settings.control}",
            )
        )
        for one in analysis.results
        if one.slices
    ]
    if not charts:
        return None
    return section(
        "slices",
        "Slices",
        "Where to look next, not what to decide by: marks are after adjusting for the number of "
        "slices (Benjamini–Hochberg), intervals are each for itself.",
        *charts,
    )


def power_section(analysis: ExperimentAnalysis) -> Html:
    """What the experiment could see, and the users it would take."""
    columns = [
        Column(title="Metric", numeric=False),
        Column(title="Should see"),
        Column(title="Chance to see it"),
        Column(title="Smallest lift seen"),
        Column(title="Expected before"),
        Column(title="Users needed"),
    ]
    power = percent(analysis.settings.power, decimals=0)
    return section(
        "power",
        "Power",
        f"For a single look at the end. *Smallest lift seen* is found with a chance of {power} by "
        "the users there are; *expected before* is the same from the pre-period alone, as it would "
        "have been planned.",
        table(
            caption="Power by metric",
            columns=columns,
            rows=[power_row(one) for one in analysis.results],
        ),
    )


def sample_ratio_section(analysis: ExperimentAnalysis) -> Html:
    """Whether users were split as planned."""
    ratio = analysis.sample_ratio
    total = sum(ratio.num_users_by_arm.values())
    rows = [
        [
            escape(arm),
            escape(count(users)),
            escape(percent(users / total, decimals=2)),
            escape(percent(ratio.share_by_arm[arm], decimals=2)),
        ]
        for arm, users in ratio.num_users_by_arm.items()
    ]
    alarm = ratio.p_value < SAMPLE_RATIO_ALARM
    said = f"p = {ratio.p_value:.2g}: " + (
        "the split is not as planned, and nothing else on this page can be trusted."
        if alarm
        else "the split is as planned, up to chance."
    )
    return section(
        "ratio",
        "Sample ratio",
        f"A split that chance makes less than once in {round(1 / SAMPLE_RATIO_ALARM):,} times says "
        "that users got lost on the way, which no statistic can mend.",
        Html(f'<p class="banner" role="note">{escape(said)}</p>')
        if alarm
        else element("p", escape(said)),
        narrow_table(
            caption="Users by arm",
            columns=[
                Column(title="Arm", numeric=False),
                Column(title="Users"),
                Column(title="Share"),
                Column(title="Planned"),
            ],
            rows=rows,
        ),
    )


def list_section(anchor: str, title: str, reading: str, sentences: Sequence[str]) -> Html:
    """A section that is a list of sentences."""
    items = element("ul", *(element("li", escape(sentence)) for sentence in sentences))
    return section(anchor, title, reading, items)


def _decision(decision: Decision) -> Html:
    badge = Html(
        f'<span class="verdict {_BADGES[decision.verdict]}">{escape(str(decision.verdict))}</span>'
    )
    reasons = element("ul", *(element("li", escape(reason)) for reason in decision.reasons))
    heading = element("p", badge, Html(" "), escape(decision.treatment), css_class="conclusion")
    return join([heading, reasons])


def _metric_table(results: Sequence[MetricResult], *, caption: str, p_title: str) -> Html:
    columns = [
        Column(title="Metric", numeric=False),
        Column(title="Control"),
        Column(title="Treatment"),
        Column(title="Lift"),
        Column(title="Lift without CUPED"),
        Column(title=p_title),
        Column(title="Verdict", numeric=False),
    ]
    return table(caption=caption, columns=columns, rows=[metric_row(one) for one in results])
