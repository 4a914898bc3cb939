"""The sections on the data, the A/B comparison, slates, cost and provenance."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.report.charts import lift_chart, rows_chart
from ranker.report.content import (
    Cost,
    DataSummary,
    ExperimentSummary,
    LabelSummary,
    LiftRow,
    Provenance,
    SlateExample,
)
from ranker.report.markup import (
    Column,
    Html,
    count,
    details,
    element,
    escape,
    join,
    lift_html,
    mean_text,
    narrow_table,
    number,
    percent,
    table,
    verdict_html,
)
from ranker.report.panel import bars, chart_html, section, task_html, tiles


def data_section(data: DataSummary) -> Html:
    """What was read, what was set aside, rows per window, and the labels."""
    children = [
        tiles(
            [
                ("rows read", count(data.rows_read)),
                ("rows kept", count(data.rows_kept)),
                ("exact duplicates dropped", count(data.exact_duplicates)),
                ("quarantined", count(sum(q.rows for q in data.quarantined))),
                ("users", count(data.users)),
                ("items", count(data.items)),
            ]
        )
    ]
    if data.windows:
        children.append(chart_html(rows_chart(data.windows)))
    if data.labels:
        children += [element("h3", escape("Labels")), _label_table(data.labels)]
    children.append(element("h3", escape("Quarantined rows")))
    children.append(
        narrow_table(
            caption="Quarantined rows by reason",
            columns=[Column(title="Reason", numeric=False), Column(title="Rows")],
            rows=[[escape(q.reason), escape(count(q.rows))] for q in data.quarantined],
        )
        if data.quarantined
        else element("p", escape("None: every row that was read passed the checks."))
    )
    return section(
        "data",
        "Data",
        "What was read, what was set aside and why, and how often each outcome was observed.",
        *children,
    )


def experiment_section(experiment: ExperimentSummary) -> Html:
    """Banner, conclusion, forest plot, table and assumptions."""
    children = [
        Html(f'<p class="banner" role="note">{escape(experiment.banner)}</p>'),
        element(
            "p",
            verdict_html(experiment.verdict),
            Html(" "),
            escape(experiment.conclusion),
            css_class="conclusion",
        ),
        tiles(
            [
                ("control", experiment.control),
                ("users in control", count(experiment.control_users)),
                ("treatment", experiment.treatment),
                ("users in treatment", count(experiment.treatment_users)),
            ]
        ),
    ]
    if experiment.lifts:
        children += [chart_html(lift_chart(experiment.lifts)), _lift_table(experiment.lifts)]
    if experiment.notes:
        children.append(element("h3", escape("Assumptions and notes")))
        children.append(element("ul", *(element("li", escape(n)) for n in experiment.notes)))
    has_primary = any(row.role == "primary" for row in experiment.lifts)
    return section(
        "experiment",
        "A/B comparison",
        "Lift is the relative change of a metric’s mean from control to treatment. If an interval "
        "crosses the zero line the arms cannot be told apart."
        + (" ★ marks the primary metric." if has_primary else ""),
        *children,
    )


def slates_section(slates: Sequence[SlateExample]) -> Html:
    """The top of a few slates."""
    return section(
        "slates",
        "Slates",
        "The top of a few requests’ slates, with the prediction for every task; the score combines "
        "them into one order.",
        *(_slate(example) for example in slates),
    )


def cost_section(cost: Cost) -> Html:
    """Size, speed, memory, and time by stage."""
    values = [
        ("embedding parameters", _known(cost.embedding_parameters)),
        ("dense parameters", _known(cost.dense_parameters)),
        ("multiplications per example", _known(cost.multiplications_per_example)),
        ("training rows", _known(cost.train_rows)),
        ("training examples per second", _known(cost.train_examples_per_s)),
        ("peak memory", _known(cost.peak_memory_mib, unit=" MiB")),
    ]
    children = [tiles([(name, value) for name, value in values if value])]
    if cost.stages:
        longest = max(stage.wall_s for stage in cost.stages) or 1.0
        total = sum(stage.wall_s for stage in cost.stages)
        children.append(element("h3", escape(f"Time by stage, {_duration(total)} in all")))
        children.append(
            bars([(s.name, s.wall_s / longest, _duration(s.wall_s)) for s in cost.stages])
        )
    return section("cost", "Cost", "What the model and this job cost on this machine.", *children)


def provenance_section(provenance: Provenance) -> Html:
    """Seeds, digests and the resolved configuration."""
    children: list[Html] = []
    if provenance.facts:
        pairs = [
            element("div", element("dt", escape(f.name)), element("dd", escape(f.value)))
            for f in provenance.facts
        ]
        children.append(element("dl", *pairs, css_class="facts"))
    if provenance.config_yaml:
        code = element("pre", element("code", escape(provenance.config_yaml)))
        children.append(details("Resolved configuration", code))
    return section(
        "provenance",
        "Provenance",
        "With the same data, configuration and seeds the same numbers come out again.",
        *children,
    )


def _label_table(labels: Sequence[LabelSummary]) -> Html:
    columns = [
        Column(title="Task", numeric=False),
        Column(title="Kind", numeric=False),
        Column(title="Observed"),
        Column(title="Positives"),
        Column(title="Rate or mean"),
    ]
    return narrow_table(
        caption="Labels by task", columns=columns, rows=[_label_row(label) for label in labels]
    )


def _label_row(label: LabelSummary) -> list[Html]:
    if label.mean is None:
        mean = "never observed"
    else:
        mean = percent(label.mean) if label.kind == "binary" else number(label.mean)
    return [
        task_html(label.task, label.family),
        escape(label.kind),
        escape(count(label.observed_rows)),
        escape(count(label.positives)),
        escape(mean),
    ]


def _lift_table(lifts: Sequence[LiftRow]) -> Html:
    has_roles = any(row.role for row in lifts)
    columns = [
        Column(title="Metric", numeric=False),
        *([Column(title="Role", numeric=False)] if has_roles else []),
        Column(title="Control"),
        Column(title="Treatment"),
        Column(title="Lift"),
        Column(title="Verdict", numeric=False),
    ]
    rows = [
        [
            task_html(row.metric, row.family),
            *([escape(row.role or "–")] if has_roles else []),
            escape(mean_text(row.control_mean)),
            escape(mean_text(row.treatment_mean)),
            lift_html(row.lift),
            verdict_html(row.verdict),
        ]
        for row in lifts
    ]
    return table(caption="Lift by metric", columns=columns, rows=rows)


def _slate(example: SlateExample) -> Html:
    tasks = list(dict.fromkeys(task for item in example.items for task in item.prediction_by_task))
    columns = [
        Column(title="Rank", numeric=False),
        Column(title="Item", numeric=False),
        Column(title="Score"),
        *(Column(title=task) for task in tasks),
        Column(title="Sources", numeric=False),
    ]
    rows = []
    for item in example.items:
        predictions = [item.prediction_by_task.get(task) for task in tasks]
        cells = [escape("–" if p is None else mean_text(p)) for p in predictions]
        rank, score = escape(count(item.rank)), escape(number(item.score))
        rows.append([rank, escape(item.item), score, *cells, escape(item.sources or "–")])
    title = element("h3", escape(f"Request {example.request}"))
    about = f"User {example.user}, {count(len(rows))} items."
    caption = f"Slate of request {example.request}"
    return join(
        [
            title,
            element("p", escape(about), css_class="how"),
            table(caption=caption, columns=columns, rows=rows),
        ]
    )


def _known(value: float | None, *, unit: str = "") -> str:
    return "" if value is None else f"{value:,.0f}{unit}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
