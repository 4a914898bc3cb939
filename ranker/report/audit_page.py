"""`render_audit`: an audit in, one self-contained HTML page out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ranker.audit.audit import Audit
from ranker.report.audit_sections import (
    answers_section,
    columns_section,
    draft_section,
    experiments_section,
    findings_section,
    labels_section,
    leaks_section,
    positions_section,
    time_section,
)
from ranker.report.frame import Section, framed
from ranker.report.markup import Html, count, element, escape, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """What the page says: the audit, where the log was, and what made the page."""

    audit: Audit
    log: str
    created_by: str


def render_audit(page: AuditPage) -> str:
    """Render an audit as an HTML page that needs no network and no other file.

    All texts are escaped; parts for which the log has nothing are left out.
    """
    return framed(
        title=f"Audit of {page.log}",
        header=_header(page),
        sections=_sections(page.audit),
        closing=Html(""),
        created_by=page.created_by,
    )


def _sections(audit: Audit) -> list[Section]:
    """Anchor, short title and body of every section, in the order of the page; empty: left out."""
    return [
        ("answers", "Answers", answers_section(audit)),
        ("findings", "Findings", findings_section(audit)),
        ("columns", "Columns", columns_section(audit)),
        ("labels", "Labels", labels_section(audit)),
        ("experiments", "Experiments", experiments_section(audit)),
        ("leaks", "Single columns", leaks_section(audit)),
        ("positions", "Positions", positions_section(audit)),
        ("time", "Rows by window", time_section(audit)),
        ("draft", "Schema draft", draft_section(audit)),
    ]


def _header(page: AuditPage) -> Html:
    audit = page.audit
    levels = Counter(finding.level for finding in audit.findings)
    sentences = [
        f"{levels['problem']} problems, {levels['look']} things to look at, "
        f"{levels['fine']} found fine.",
        *(finding.sentence for finding in audit.findings if finding.level == "problem"),
    ]
    return element(
        "header",
        element("h1", escape(f"Audit of {page.log.rstrip('/').rsplit('/', 1)[-1]}")),
        element("p", escape(f"{page.log}: {_extent(audit)}"), css_class="subtitle"),
        element("ul", *(element("li", escape(s)) for s in sentences[:5]), css_class="headlines"),
    )


def _extent(audit: Audit) -> str:
    sample = audit.sample
    if sample.share >= 1:
        return f"{count(sample.num_rows_total)} rows, all of them looked at."
    what = "users" if sample.by_user else "rows"
    return (
        f"{count(sample.num_rows_total)} rows; looked at {count(audit.num_rows)}, those of "
        f"{percent(sample.share)} of the {what}, chosen by a hash."
    )
