"""The sections of the page of `ranker tune-weights`."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.report.markup import (
    Column,
    Html,
    details,
    element,
    escape,
    estimate_html,
    join,
    lift_html,
    percent,
    table,
)
from ranker.report.panel import chart_html, section, task_html
from ranker.report.tuning_charts import front_chart
from ranker.report.tuning_content import TunedPoint, TunedTask, TuningPage
from ranker.report.tuning_data import data_html

_WORDS = {
    "weighted_product": "weighted product",
    "weighted_sum": "weighted sum",
    "rank_normalised_sum": "rank-normalised sum",
}
_BADGES = {"holds": "better", "is broken": "worse", "cannot tell": "cannot_tell"}
_SIGNS = {"holds": "✓", "is broken": "✕", "cannot tell": "○"}


def instrument_section(page: TuningPage) -> Html:
    """Sliders on the left, the front on the right."""
    num_lists, num_rows = len(page.rows.list_starts), len(next(iter(page.rows.labels.values())))
    held = f"{num_lists:,} lists with {num_rows:,} impressions"
    whose = (
        f"a sample of {held} of the users who report, held in this page"
        if page.rows.is_sample
        else f"all {held} of the users who report"
    )
    left = element("div", _choices(page), _sliders(page), _zero_warning())
    right = element("div", _live(), Html(f'<div id="front">{chart_html(front_chart(page))}</div>'))
    return section(
        "instrument",
        "Try weights",
        "Move a slider: a weight goes from a hundredth to a hundred times today’s; at the left "
        "end the task is *off*. Only the proportions of the weights matter. The chart and the "
        f"values beside it are computed here, on {whose}; they are points without intervals. "
        "*Front*: no weights that were tried were better in both, for the users who chose; the "
        "others, drawn here, can disagree.",
        element("div", left, right, css_class="desk"),
        data_html(page),
        details("Every task’s value, live", _live_table(page)),
    )


def list_section(page: TuningPage) -> Html:
    """A real list under the weights of the sliders."""
    options = [
        Html(f'<option value="{number}">{escape(one.label)}</option>')
        for number, one in enumerate(page.shown)
    ]
    pick = Html(
        f'<label class="pick">List<select id="request">{join(options)}</select></label>'
        '<p id="list-moved" class="how" role="status"></p>'
    )
    titles = ["Now", "Today", "Move", *(t.name for t in page.tasks if t.is_predicted)]
    columns = [
        Column(title="Item", numeric=False),
        *(Column(title=title) for title in titles),
        Column(title="What happened", numeric=False),
    ]
    rows = table(caption="The list under the weights of the sliders", columns=columns, rows=[])
    body = Html(rows.replace("<tbody>", '<tbody id="list-body">'))
    return section(
        "list",
        "A real list, before and after",
        "What one user was shown, in the order of the sliders’ weights, with the rank under "
        "today’s and the move between them. Predictions are the model’s; what happened is what the "
        "log observed.",
        pick,
        element("div", body, css_class="list"),
    )


def yaml_section(page: TuningPage) -> Html:
    """The sliders' weights as a file."""
    del page
    return section(
        "weights",
        "These weights as a file",
        "Save them as weights.yaml and give them to ranker score --score-weights weights.yaml.",
        Html(
            '<pre id="yaml"></pre><div class="copying"><button type="button" id="copy">'
            'Copy these weights as YAML</button><span id="copied" role="status"></span></div>'
        ),
    )


def result_section(page: TuningPage) -> Html:
    """Today, the chosen weights and the ends of the front, with intervals."""
    points = [page.today, *([page.chosen] if page.chosen else []), *page.extremes]
    parts = [_point_table(points, "Changes against today’s weights")]
    if page.checks:
        badges = [
            element(
                "li",
                _badge(check.verdict),
                escape(f"{check.constraint}: "),
                lift_html(check.change),
            )
            for check in page.checks
        ]
        parts.append(element("h3", escape("Constraints, for the users who report")))
        parts.append(element("ul", *badges, css_class="ratios"))
    if page.landmarks:
        what = "One task alone, or today’s weights without one"
        parts.append(details(what, _point_table(page.landmarks, what)))
    if page.front:
        what = f"All {len(page.front)} points of the front"
        parts.append(details(what, _point_table(page.front, what), _weight_table(page)))
    return section(
        "result",
        "What the search found",
        "Relative changes of value against today’s weights, better being positive, of users who "
        "had no say in the choice; intervals resample whole users, both sides alike. *Swapped* is "
        "the share of a list’s pairs of items whose order changes; *replaced* the share of the "
        f"first {page.at} items that leave them, in lists longer than that.",
        *parts,
    )


def tasks_section(page: TuningPage) -> Html:
    """Every task's value under today's and the chosen weights."""
    columns = [
        Column(title="Task", numeric=False),
        Column(title="Share in family"),
        Column(title="Value today"),
        *([Column(title="Value chosen"), Column(title="Change")] if page.chosen else []),
    ]
    return section(
        "tasks",
        "Task by task",
        "A task’s value is the mean of its observed labels, weighted by the discount of their "
        "ranks, in the label’s unit. Of a negative task *less* is better, and its change is turned "
        "round.",
        table(caption="Tasks", columns=columns, rows=[_task_row(page, t) for t in page.tasks]),
    )


def methods_section(page: TuningPage) -> Html:
    """What the numbers can and can't say."""
    return section(
        "methods",
        "How to read this, and what it can’t say",
        "Formulas and assumptions.",
        element("ul", *(element("li", escape(sentence)) for sentence in page.methods)),
    )


def _badge(verdict: str) -> Html:
    text = escape(f"{_SIGNS[verdict]} {verdict}")
    return Html(f'<span class="verdict {_BADGES[verdict]}">{text}</span> ')


def _choices(page: TuningPage) -> Html:
    combinations = [
        Html(f'<option value="{escape(name)}">{escape(_WORDS.get(name, name))}</option>')
        for name in page.combinations
    ]
    presets = [
        Html(f'<option value="{number}">{escape(point.name)}</option>')
        for number, point in enumerate(page.named_points)
    ]
    return Html(
        '<div class="choices"><label>Start from<select id="preset"><option value="">choose …'
        f"</option>{join(presets)}</select></label>"
        f'<label>Combination<select id="combination">{join(combinations)}</select></label></div>'
    )


def _sliders(page: TuningPage) -> Html:
    rows = [
        Html(
            f'<li><label for="weight-{number}">{escape(task.name)}<span>{task.family}'
            f"{_asides(task)}</span></label>"
            f'<input id="weight-{number}" type="range" min="-2" max="2" step="0.02">'
            f'<output id="shown-{number}" for="weight-{number}"></output></li>'
        )
        for number, task in enumerate(page.tasks)
        if task.is_predicted
    ]
    return element("ul", *rows, css_class="sliders")


def _asides(task: TunedTask) -> Html:
    less = ", less is better" if task.direction == "negative" else ""
    return escape(less + (", not judged" if task.left_out else ""))


def _zero_warning() -> Html:
    return Html(
        '<p class="banner" id="all-zero" role="alert" hidden>All weights are 0, so every item '
        "would score alike. Give a task some weight.</p>"
    )


def _live() -> Html:
    tiles = [
        Html(f'<div><dt>{family}, here</dt><dd id="live-{family}">–</dd></div>')
        for family in ("engagement", "satisfaction")
    ]
    return element("dl", *tiles, css_class="tiles live")


def _live_table(page: TuningPage) -> Html:
    columns = [Column(title="Task", numeric=False), Column(title="Value"), Column(title="Change")]
    rows = [
        [
            task_html(task.name, task.family),
            Html(f'<span id="now-{number}"></span>'),
            Html(f'<span id="change-{number}"></span>'),
        ]
        for number, task in enumerate(page.tasks)
        if not task.left_out
    ]
    return table(caption="Values under the sliders’ weights", columns=columns, rows=rows)


def _point_table(points: Sequence[TunedPoint], caption: str) -> Html:
    columns = [
        Column(title="Weights", numeric=False),
        Column(title="Engagement"),
        Column(title="Satisfaction"),
        Column(title="Swapped"),
        Column(title="Replaced"),
    ]
    rows = [
        [
            escape(point.name),
            lift_html(point.changes["engagement"]),
            lift_html(point.changes["satisfaction"]),
            escape(percent(point.swapped_pairs)),
            escape("–" if point.replaced_at_top is None else percent(point.replaced_at_top)),
        ]
        for point in points
    ]
    return table(caption=caption, columns=columns, rows=rows)


def _weight_table(page: TuningPage) -> Html:
    names = [task.name for task in page.tasks if task.is_predicted]
    columns = [Column(title="Weights", numeric=False), *(Column(title=name) for name in names)]
    rows = [
        [escape(point.name), *(escape(f"{point.weights[name]:.3g}") for name in names)]
        for point in page.front
    ]
    return table(caption="The weights of the front", columns=columns, rows=rows)


def _task_row(page: TuningPage, task: TunedTask) -> list[Html]:
    head = task_html(task.name, task.family)
    if task.left_out:
        reason = element("span", escape(f"none: {task.left_out}"), css_class="none")
        return [head, escape("–"), reason, *([escape("–")] * 2 if page.chosen else [])]
    cells = [head, escape(percent(task.importance)), estimate_html(page.today.values[task.name])]
    if page.chosen is not None:
        cells.append(estimate_html(page.chosen.values[task.name]))
        cells.append(lift_html(page.chosen.changes[task.name]))
    return cells
