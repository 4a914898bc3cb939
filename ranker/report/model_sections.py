"""The sections on how good the model is."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.report.charts import models_chart
from ranker.report.content import (
    ExpertUtilization,
    TaskCalibration,
    TaskExperts,
    TaskMetrics,
    TaskProgress,
)
from ranker.report.curves import calibration_chart, progress_chart
from ranker.report.markup import (
    Column,
    Html,
    count,
    details,
    difference_html,
    element,
    escape,
    estimate_html,
    join,
    metric_label,
    number,
    percent,
    table,
)
from ranker.report.panel import chart_grid, chart_html, section, task_html


def metrics_section(tasks: Sequence[TaskMetrics]) -> Html:
    """Main table, one chart for each headline metric, and all metrics on demand."""
    charts = [
        chart_html(models_chart([task for task in tasks if task.headline_metric == metric]))
        for metric in dict.fromkeys(task.headline_metric for task in tasks)
    ]
    return section(
        "metrics",
        "Ranking quality",
        "Values on rows the model never trained on, with 95 % intervals in brackets that resample "
        "whole users. A difference is *better* or *worse* only if its interval excludes zero.",
        _main_table(tasks),
        element(
            "p",
            escape("Each dot is a model, its bar the interval; an AUC is better further right."),
            css_class="how",
        ),
        *charts,
        details("All metrics of all models", _full_table(tasks)),
    )


def progress_section(tasks: Sequence[TaskProgress]) -> Html:
    """Small multiples, one for each task."""
    rows = [
        [
            escape(t.task),
            escape(metric_label(t.metric)),
            escape(w.window),
            estimate_html(w.estimate),
        ]
        for t in tasks
        for w in t.windows
    ]
    columns = [
        Column(title="Task", numeric=False),
        Column(title="Metric", numeric=False),
        Column(title="Window", numeric=False),
        Column(title="Value"),
    ]
    return section(
        "progress",
        "Progressive validation",
        "Each window is predicted before the model trains on it: a line that rises shows learning, "
        "a sudden drop a shift in the data. Bands are intervals; every chart has its own scale.",
        chart_grid([chart_html(progress_chart(task)) for task in tasks]),
        details("The numbers", table(caption="Metric by window", columns=columns, rows=rows)),
    )


def calibration_section(tasks: Sequence[TaskCalibration]) -> Html:
    """Small multiples, one for each task, and their bins on demand."""
    columns = [
        Column(title="Task", numeric=False),
        Column(title="Rows"),
        Column(title="Predicted"),
        Column(title="Observed"),
    ]
    rows = [row for task in tasks for row in _bin_rows(task)]
    ratios = [
        element(
            "li",
            element("b", escape(task.task)),
            Html(" "),
            estimate_html(task.ratio),
            escape(f", {task.calibrator}" if task.calibrator else ""),
        )
        for task in tasks
        if task.ratio is not None
    ]
    ratio_list = (
        [
            element("h3", escape("Mean prediction ÷ mean label")),
            element("ul", *ratios, css_class="ratios"),
        ]
        if ratios
        else []
    )
    return section(
        "calibration",
        "Calibration",
        "Rows are binned by prediction. A dot on the dotted diagonal means that what was predicted "
        "is what happened; below it the model promises too much, above it too little.",
        *ratio_list,
        chart_grid([chart_html(calibration_chart(task)) for task in tasks]),
        details("The numbers", table(caption="Calibration bins", columns=columns, rows=rows)),
    )


def experts_section(experts: ExpertUtilization) -> Html:
    """A table shaded as a heat map, with the alarm beside each polarized gate."""
    num_experts = len(experts.tasks[0].weights) if experts.tasks else 0
    columns = [
        Column(title="Task", numeric=False),
        *(Column(title=f"Expert {i}") for i in range(1, num_experts + 1)),
        Column(title="Gate", numeric=False),
    ]
    heat = table(
        caption="Mean gate weight by task and expert",
        columns=columns,
        rows=[_expert_row(task) for task in experts.tasks],
    )
    return section(
        "experts",
        "Expert utilisation",
        "How much each task draws on each expert: mean gate weight over the test rows; a row sums "
        "to 100 %. A polarized gate (one expert above 90 %, or most below 1 %) wastes the others.",
        element("div", heat, css_class="heat"),
    )


def _main_table(tasks: Sequence[TaskMetrics]) -> Html:
    baselines = list(dict.fromkeys(c.baseline for task in tasks for c in task.comparisons))
    columns = [
        Column(title="Task", numeric=False),
        Column(title=tasks[0].models[0].model if tasks else "Value"),
    ]
    for baseline in baselines:
        columns += [Column(title=baseline), Column(title="Difference")]
    columns.append(Column(title="Positives"))
    rows = [_main_row(task, baselines) for task in tasks]
    return table(caption="Headline metric by task", columns=columns, rows=rows)


def _main_row(task: TaskMetrics, baselines: Sequence[str]) -> list[Html]:
    comparisons = {comparison.baseline: comparison for comparison in task.comparisons}
    cells = [
        task_html(task.task, f"{metric_label(task.headline_metric)}\u00a0·\u00a0{task.family}"),
        estimate_html(task.headline(task.models[0].model)),
    ]
    for baseline in baselines:
        cells.append(estimate_html(task.headline(baseline)))
        comparison = comparisons.get(baseline)
        cells.append(
            difference_html(comparison.difference, comparison.verdict)
            if comparison is not None
            else escape("–")
        )
    return [*cells, escape(count(task.positives))]


def _full_table(tasks: Sequence[TaskMetrics]) -> Html:
    models = list(dict.fromkeys(model.model for task in tasks for model in task.models))
    columns = [
        Column(title="Task", numeric=False),
        Column(title="Metric", numeric=False),
        *(Column(title=model) for model in models),
    ]
    rows: list[list[Html]] = []
    for task in tasks:
        metrics_by_model = {model.model: model.metrics for model in task.models}
        for metric in dict.fromkeys(name for model in task.models for name in model.metrics):
            values = [metrics_by_model.get(model, {}).get(metric) for model in models]
            rows.append(
                [escape(task.task), escape(metric_label(metric)), *map(estimate_html, values)]
            )
    return table(caption="All metrics by task and model", columns=columns, rows=rows)


def _bin_rows(task: TaskCalibration) -> list[list[Html]]:
    def write(value: float) -> str:
        return f"{number(value)} {task.unit}" if task.unit else percent(value)

    return [
        [
            escape(task.task),
            escape(count(b.rows)),
            escape(write(b.mean_prediction)),
            join(
                [
                    element("span", escape(write(b.mean_label)), css_class="value"),
                    Html(" "),
                    element(
                        "span",
                        escape(f"[{write(b.ci_low)}, {write(b.ci_high)}]"),
                        css_class="interval",
                    ),
                ]
            ),
        ]
        for b in task.bins
    ]


def _expert_row(task: TaskExperts) -> list[Html]:
    gate = (
        element("span", escape(f"⚠\ufe0e {task.alarm}"), css_class="verdict worse")
        if task.alarm
        else element("span", escape("healthy"), css_class="quiet")
    )
    return [escape(task.task), *(_heat_cell(weight) for weight in task.weights), gate]


def _heat_cell(weight: float) -> Html:
    # Square root: most weights are small, and their differences matter.
    opacity = 0.9 * min(1.0, max(0.0, weight)) ** 0.5
    ink = ' class="on-dark"' if opacity > 0.62 else ""
    return Html(f'<span{ink} style="--heat:{opacity:.2f}">{100 * weight:.0f}</span>')
