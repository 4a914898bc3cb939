"""`render_report`: content in, one self-contained HTML page out."""

from __future__ import annotations

from ranker.report.content import ReportContent
from ranker.report.frame import Section, framed
from ranker.report.markup import Html, element, escape
from ranker.report.model_sections import (
    calibration_section,
    experts_section,
    metrics_section,
    progress_section,
)
from ranker.report.run_sections import (
    cost_section,
    data_section,
    experiment_section,
    provenance_section,
    slates_section,
)


def render_report(content: ReportContent) -> str:
    """Render ``content`` as an HTML page that needs no network and no other file.

    All texts are escaped. Sections that are None are named in one line at the end.
    """
    sections = _sections(content)
    return framed(
        title=content.title,
        header=_header(content),
        sections=sections,
        closing=_absent([title for _, title, body in sections if body is None]),
        created_by=content.created_by,
    )


def _sections(content: ReportContent) -> list[Section]:
    """Anchor, short title and body of every section, in the order of the page."""
    c = content
    return [
        ("metrics", "Quality", None if c.metrics is None else metrics_section(c.metrics)),
        (
            "experiment",
            "A/B comparison",
            None if c.experiment is None else experiment_section(c.experiment),
        ),
        ("progress", "By window", None if c.progress is None else progress_section(c.progress)),
        (
            "calibration",
            "Calibration",
            None if c.calibration is None else calibration_section(c.calibration),
        ),
        ("experts", "Experts", None if c.experts is None else experts_section(c.experts)),
        ("slates", "Slates", None if c.slates is None else slates_section(c.slates)),
        ("data", "Data", None if c.data is None else data_section(c.data)),
        ("cost", "Cost", None if c.cost is None else cost_section(c.cost)),
        (
            "provenance",
            "Provenance",
            None if c.provenance is None else provenance_section(c.provenance),
        ),
    ]


def _header(content: ReportContent) -> Html:
    children = [
        element("h1", escape(content.title)),
        element("p", escape(content.subtitle), css_class="subtitle"),
    ]
    if content.headlines:
        items = [element("li", escape(headline)) for headline in content.headlines]
        children.append(element("ul", *items, css_class="headlines"))
    return element("header", *children)


def _absent(titles: list[str]) -> Html:
    if not titles:
        return Html("")
    return element("p", escape(f"Not part of this run: {', '.join(titles)}."), css_class="absent")
