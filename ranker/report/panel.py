"""The frame of a section, and a chart inside the page."""

from __future__ import annotations

from collections.abc import Sequence

from ranker.report.figure import Chart
from ranker.report.markup import Html, element, escape, join


def section(anchor: str, title: str, reading: str, *children: Html) -> Html:
    """A section with a heading and one plain sentence on how to read it.

    ``anchor`` is our own word; words of ``reading`` between asterisks are set in italics.
    """
    parts = reading.split("*")
    words = [element("em", escape(p)) if i % 2 else escape(p) for i, p in enumerate(parts)]
    lead = element("p", *words, css_class="how")
    label = f"{anchor}-title"
    heading = Html(f'<h2 id="{label}">{escape(title)}</h2>')
    body = join([heading, lead, *children])
    return Html(f'<section id="{anchor}" aria-labelledby="{label}">{body}</section>')


def chart_html(chart: Chart) -> Html:
    """A figure whose JSON the page's script draws."""
    # With no "<" left, no text inside the JSON can close the script element or open a comment.
    figure_json = chart.figure_json.replace("<", "\\u003c")
    entries = [
        Html(
            f'<li><span style="color:{entry.color}" aria-hidden="true">{entry.glyph}</span> '
            f"{escape(entry.name)}</li>"
        )
        for entry in chart.legend
    ]
    legend = element("ul", *entries, css_class="legend") if entries else Html("")
    label = escape(f"Chart: {chart.title}. {chart.description}")
    return Html(
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{legend}'
        f'<div class="plot" role="img" aria-label="{label}" style="height:{chart.height_px}px">'
        f'</div><script type="application/json">{figure_json}</script></figure>'
    )


def chart_grid(charts: Sequence[Html]) -> Html:
    """Small multiples: as many in a row as fit."""
    return element("div", *charts, css_class="grid")


def task_html(task: str, about: str) -> Html:
    """A task, and in small type below it something about it, such as its family."""
    return join(
        [escape(task), Html(" "), element("span", escape(about), css_class="about")],
    )


def tiles(values: Sequence[tuple[str, str]]) -> Html:
    """Large numbers with their names below, as a description list."""
    return element(
        "dl",
        *(
            element("div", element("dt", escape(name)), element("dd", escape(value)))
            for name, value in values
        ),
        css_class="tiles",
    )


def bars(values: Sequence[tuple[str, float, str]]) -> Html:
    """Rows of name, share of the longest bar (0 to 1), and text."""
    rows = [
        Html(
            f'<li><span class="name">{escape(name)}</span>'
            f'<span class="track"><span style="width:{100 * share:.1f}%"></span></span>'
            f'<span class="num">{escape(text)}</span></li>'
        )
        for name, share, text in values
    ]
    return element("ul", *rows, css_class="bars")
