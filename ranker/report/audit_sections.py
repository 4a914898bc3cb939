"""The sections of an audit's page."""

from __future__ import annotations

from ranker.audit.answers import Verdict
from ranker.audit.audit import Audit
from ranker.audit.finding import Finding, Level
from ranker.audit.label_checks import LabelFigures, Rate
from ranker.audit.roles import Guess
from ranker.audit.sizes import SizeNeeded, days_text
from ranker.report.charts import rows_chart
from ranker.report.content import Estimate, TaskProgress, WindowRows, WindowValue
from ranker.report.curves import progress_chart
from ranker.report.markup import (
    Column,
    Html,
    count,
    details,
    element,
    escape,
    estimate_html,
    join,
    narrow_table,
    number,
    percent,
    table,
)
from ranker.report.panel import chart_grid, chart_html, section, task_html, tiles

_ANSWERS: dict[Verdict, tuple[str, str]] = {
    "yes": ("better", "✓ yes"),
    "partly": ("cannot_tell", "◐ partly"),
    "no": ("worse", "✕ no"),
}
_LEVELS: dict[Level, tuple[str, str]] = {
    "fine": ("better", "✓ fine"),
    "look": ("cannot_tell", "○ look"),
    "problem": ("worse", "▲ problem"),
}
_STRONGEST = 15


def answers_section(audit: Audit) -> Html:
    """What the log can and cannot answer."""
    rows = [
        [escape(a.question), _badge(*_ANSWERS[a.verdict]), escape(a.why)] for a in audit.answers
    ]
    columns = [
        Column(title="Question", numeric=False),
        Column(title="Answer", numeric=False),
        Column(title="Why", numeric=False),
    ]
    return section(
        "answers",
        "What this log can answer",
        "The questions people bring to a log. *Partly* means: with care, or with less "
        "power than one would wish.",
        table(caption="Questions and answers", columns=columns, rows=rows),
    )


def findings_section(audit: Audit) -> Html:
    """Every finding; the problems first, those that are fine folded away."""
    open_ones = [f for level in ("problem", "look") for f in audit.findings if f.level == level]
    fine = [f for f in audit.findings if f.level == "fine"]
    parts = [_finding_table(open_ones, "Findings to act on")] if open_ones else []
    if fine:
        parts.append(details(f"{len(fine)} found fine", _finding_table(fine, "Found fine")))
    return section(
        "findings",
        "Findings",
        "*Problem*: something fails or misleads unless mended. *Look*: a person should judge.",
        *parts,
    )


def columns_section(audit: Audit) -> Html:
    """What each column was taken for; the many features are folded away."""
    if not audit.guesses:
        return Html("")
    features = [g for g in audit.guesses if g.role.endswith("feature")]
    others = [g for g in audit.guesses if not g.role.endswith("feature")]
    parts = [_guess_table(others, "Columns with a role")] if others else []
    if features:
        parts.append(details(f"{len(features)} features", _guess_table(features, "Features")))
    return section(
        "columns",
        "Columns",
        "What each column was taken for, by its name and its values; the draft below follows it.",
        *parts,
    )


def labels_section(audit: Audit) -> Html:
    """Rates with intervals, and by window."""
    labels = audit.figures.labels
    if not labels:
        return Html("")
    columns = [
        Column(title="Label", numeric=False),
        Column(title="Rate or mean"),
        Column(title="Observed rows"),
        Column(title="Above 0"),
        Column(title="Not observed"),
    ]
    charts = [
        chart_html(progress_chart(_progress(label)))
        for label in labels
        if len([w for w in label.windows if w.rate is not None]) > 1
    ]
    return section(
        "labels",
        "Labels",
        "Means over observed rows with 95 % intervals that take a user's rows as one; below them "
        "the same by window. A drop at the end often means feedback that had not yet arrived.",
        table(caption="Labels", columns=columns, rows=[_label_row(label) for label in labels]),
        *([chart_grid(charts)] if charts else []),
    )


def experiments_section(audit: Audit) -> Html:
    """Users and days for a lift of 1 %."""
    if not audit.figures.sizes:
        return Html("")
    columns = [
        Column(title="Label", numeric=False),
        Column(title="Metric", numeric=False),
        Column(title="Users an arm"),
        Column(title="Users in the log"),
        Column(title="How long", numeric=False),
    ]
    return section(
        "experiments",
        "Size of an A/B test",
        "Users an arm to see a lift of 1 % with 80 % power at 95 % confidence, two equal arms, "
        "without covariates; from means and variances by user. *How long*: the shortest stretch of "
        "the log's end with enough users.",
        table(
            caption="Size of an experiment by label",
            columns=columns,
            rows=[_size_row(size) for size in audit.figures.sizes],
        ),
    )


def leaks_section(audit: Audit) -> Html:
    """The strongest single features."""
    if not audit.strengths:
        return Html("")
    columns = [
        Column(title="Feature", numeric=False),
        Column(title="Label", numeric=False),
        Column(title="AUC on later rows"),
    ]
    rows = [
        [escape(s.feature), escape(s.task), escape(number(s.auc))]
        for s in audit.strengths[:_STRONGEST]
    ]
    return section(
        "leaks",
        "What single columns know",
        "Each feature alone, fitted on the earlier 70 % of the time and tested on the rest: .5 is "
        "chance. What knows nearly all was logged with the outcome; look closely at anything above "
        ".9.",
        narrow_table(caption="Strongest single features", columns=columns, rows=rows),
    )


def positions_section(audit: Audit) -> Html:
    """Rates by position, and the range of propensities."""
    positions, propensities = audit.figures.positions, audit.figures.propensities
    parts = []
    if propensities is not None:
        parts.append(
            tiles(
                [
                    ("smallest propensity", f"{propensities.smallest:.2g}"),
                    ("largest propensity", f"{propensities.largest:.2g}"),
                    ("worth for a uniform policy", percent(propensities.sample_share)),
                    ("mean of 1 / propensity", number(propensities.mean_inverse)),
                ]
            )
        )
    if positions is not None:
        told = [p for p in positions.by_position if p.rate is not None]
        if positions.task and len(told) > 1:
            windows = [
                WindowValue(window=str(p.position), estimate=_estimate(p.rate)) for p in told
            ]
            progress = TaskProgress(
                task=positions.task, metric="rate by position as logged", windows=windows
            )
            parts.append(chart_html(progress_chart(progress)))
        columns = [Column(title="Position", numeric=False), Column(title="Rows")]
        rows = [[escape(str(p.position)), escape(count(p.rows))] for p in positions.by_position]
        parts.append(narrow_table(caption="Rows by position", columns=columns, rows=rows))
    if not parts:
        return Html("")
    return section(
        "positions",
        "Positions and propensities",
        "Rates fall with position for two reasons, attention and the logging policy's own order: "
        "only overlap or propensities tell them apart.",
        *parts,
    )


def time_section(audit: Audit) -> Html:
    """Rows by window."""
    if len(audit.rows_by_window) < 2:
        return Html("")
    windows = [WindowRows(label=label, rows=rows) for label, rows in audit.rows_by_window.items()]
    return section(
        "time",
        "Rows by window",
        "Rows looked at, without exact duplicates, by window of the schema.",
        chart_html(rows_chart(windows)),
    )


def draft_section(audit: Audit) -> Html:
    """The drafted schema."""
    if audit.draft is None:
        return Html("")
    return section(
        "draft",
        "Schema draft",
        "Also in schema_draft.yaml. Read every line, mend it, then run *ranker validate*.",
        element("pre", escape(audit.draft.yaml_text)),
    )


def _badge(css_class: str, text: str) -> Html:
    return Html(f'<span class="verdict {css_class}">{escape(text)}</span>')


def _finding_table(findings: list[Finding], caption: str) -> Html:
    columns = [Column(title="Topic", numeric=False), Column(title="Finding", numeric=False)]
    rows = [
        [
            join([_badge(*_LEVELS[f.level]), element("span", escape(f.topic), css_class="about")]),
            task_html(f.sentence, f.remedy),
        ]
        for f in findings
    ]
    return table(caption=caption, columns=columns, rows=rows)


def _guess_table(guesses: list[Guess], caption: str) -> Html:
    columns = [
        Column(title="Column", numeric=False),
        Column(title="Taken for", numeric=False),
        Column(title="Why", numeric=False),
    ]
    rows = [[escape(g.column), task_html(g.role, g.sureness), escape(g.reason)] for g in guesses]
    return table(caption=caption, columns=columns, rows=rows)


def _label_row(label: LabelFigures) -> list[Html]:
    task = label.task
    about = f"{task.family}, {task.kind}"
    if task.direction == "negative":
        about += ", less is better"
    missing = 1 - label.observed_rows / max(1, label.num_rows)
    return [
        task_html(task.name, about),
        _rate_html(label),
        escape(count(label.observed_rows)),
        escape(count(label.positives)),
        escape(percent(missing)),
    ]


def _rate_html(label: LabelFigures) -> Html:
    rate = label.rate
    if rate is None or label.task.kind != "binary":
        return estimate_html(_estimate(rate))
    if rate.ci_low is None or rate.ci_high is None:
        return escape(percent(rate.value))
    interval = f"[{percent(max(0.0, rate.ci_low))}, {percent(min(1.0, rate.ci_high))}]"
    return join(
        [
            element("span", escape(percent(rate.value)), css_class="value"),
            Html(" "),
            element("span", escape(interval), css_class="interval"),
        ]
    )


def _progress(label: LabelFigures) -> TaskProgress:
    what = "rate" if label.task.kind == "binary" else "mean"
    windows = [WindowValue(window=w.window, estimate=_estimate(w.rate)) for w in label.windows]
    return TaskProgress(task=label.task.name, metric=what, windows=windows)


def _estimate(rate: Rate | None) -> Estimate:
    if rate is None:
        return Estimate(value=None, reason="not observed")
    return Estimate(value=rate.value, ci_low=rate.ci_low, ci_high=rate.ci_high)


def _size_row(size: SizeNeeded) -> list[Html]:
    how_long = size.reason or days_text(size)
    return [
        task_html(size.task.name, size.task.family),
        escape(size.metric),
        escape(count(size.users_per_arm)),
        escape(count(size.users_in_log)),
        escape(how_long),
    ]
