"""`render_experiment`: an experiment's analysis in, one self-contained HTML page out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ranker.experiment.analysis import ExperimentAnalysis
from ranker.report.content import Provenance
from ranker.report.experiment_methods import method_sentences
from ranker.report.experiment_sections import (
    course_section,
    decision_section,
    guardrails_section,
    list_section,
    metrics_section,
    power_section,
    sample_ratio_section,
    slices_section,
)
from ranker.report.frame import Section, framed
from ranker.report.markup import Html, count, element, escape
from ranker.report.run_sections import provenance_section


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPage:
    """What the page says.

    Attributes:
        title: a few words.
        simulated, real: what of the experiment was simulated and what was real, in sentences; both
            empty for an experiment with live traffic.
        provenance: seeds, digests and the configuration.
        truth: a section on what is known to be true, where the experiment was simulated.
        created_by: the program and its version.
    """

    title: str
    analysis: ExperimentAnalysis
    created_by: str
    simulated: Sequence[str] = ()
    real: Sequence[str] = ()
    provenance: Provenance | None = None
    truth: Html | None = None


def render_experiment(page: ExperimentPage) -> str:
    """Render an HTML page that needs no network and no other file; all texts are escaped."""
    return framed(
        title=page.title,
        header=_header(page),
        sections=_sections(page),
        closing=Html(""),
        created_by=page.created_by,
    )


def _sections(page: ExperimentPage) -> list[Section]:
    """Anchor, short title and body of every section, in the order of the page."""
    analysis = page.analysis
    return [
        ("decision", "Decision", decision_section(analysis)),
        ("metrics", "Metrics", metrics_section(analysis)),
        ("truth", "Truth", page.truth),
        ("course", "Day by day", course_section(analysis)),
        ("guardrails", "Guardrails", guardrails_section(analysis)),
        ("slices", "Slices", slices_section(analysis)),
        ("power", "Power", power_section(analysis)),
        ("ratio", "Sample ratio", sample_ratio_section(analysis)),
        ("origin", "Simulated and real", _origin(page)),
        (
            "methods",
            "Methods",
            list_section(
                "methods",
                "Methods and assumptions",
                "How the numbers were made, and what was found in the table on the way.",
                method_sentences(analysis),
            ),
        ),
        (
            "provenance",
            "Provenance",
            None if page.provenance is None else provenance_section(page.provenance),
        ),
    ]


def _origin(page: ExperimentPage) -> Html | None:
    if not (page.simulated or page.real):
        return None
    sentences = [f"Simulated: {one}" for one in page.simulated]
    sentences += [f"Real: {one}" for one in page.real]
    return list_section(
        "origin",
        "What was simulated and what was real",
        "A simulated experiment is as right as its world: read its verdict with this in mind.",
        sentences,
    )


def _header(page: ExperimentPage) -> Html:
    analysis = page.analysis
    num_users = sum(analysis.sample_ratio.num_users_by_arm.values())
    days = analysis.day_labels
    span = f", {days[0]} to {days[-1]}" if days else ""
    arms = f"{', '.join(analysis.settings.treatments)} against {analysis.settings.control}"
    items = [element("li", escape(decision.headline)) for decision in analysis.decisions]
    return element(
        "header",
        element("h1", escape(page.title)),
        element("p", escape(f"{arms}: {count(num_users)} users{span}"), css_class="subtitle"),
        element("ul", *items, css_class="headlines"),
    )
