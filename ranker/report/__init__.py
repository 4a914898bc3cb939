"""One self-contained HTML page a run: `render_report` turns a `ReportContent` into text."""

from ranker.report.content import ReportContent
from ranker.report.page import render_report

__all__ = ["ReportContent", "render_report"]
