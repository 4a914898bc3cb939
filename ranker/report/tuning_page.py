"""`render_tuning`: the search for score weights in, one self-contained HTML page out."""

from __future__ import annotations

from ranker.report import tuning_controls, tuning_script, tuning_style
from ranker.report.frame import Section, framed
from ranker.report.markup import Html, element, escape
from ranker.report.run_sections import provenance_section
from ranker.report.tuning_content import TuningPage
from ranker.report.tuning_sections import (
    instrument_section,
    list_section,
    methods_section,
    result_section,
    tasks_section,
    yaml_section,
)


def render_tuning(page: TuningPage) -> str:
    """Render an HTML page that needs no network and no other file; all texts are escaped.

    Raises:
        ValueError: there is no list to show.
    """
    if not page.shown:
        raise ValueError("tuning page: shown is empty; give at least one list to look at")
    return framed(
        title=page.title,
        header=_header(page),
        sections=_sections(page),
        closing=Html(""),
        created_by=page.created_by,
        css=tuning_style.CSS,
        script=tuning_script.SCRIPT + tuning_controls.SCRIPT,
    )


def _sections(page: TuningPage) -> list[Section]:
    """Anchor, short title and body of every section, in the order of the page."""
    return [
        ("instrument", "Try weights", instrument_section(page)),
        ("list", "A real list", list_section(page)),
        ("weights", "As a file", yaml_section(page)),
        ("result", "Result", result_section(page)),
        ("tasks", "Task by task", tasks_section(page)),
        ("methods", "Methods", methods_section(page)),
        (
            "provenance",
            "Provenance",
            None if page.provenance is None else provenance_section(page.provenance),
        ),
    ]


def _header(page: TuningPage) -> Html:
    items = [element("li", escape(headline)) for headline in page.headlines]
    return element(
        "header",
        element("h1", escape(page.title)),
        element("p", escape(page.subtitle), css_class="subtitle"),
        element("ul", *items, css_class="headlines"),
    )
