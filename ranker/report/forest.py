"""Forest plots: lifts with their intervals, a row each, under headings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ranker.report.content import Estimate, Verdict
from ranker.report.figure import (
    GREY,
    ORANGE,
    TEAL,
    Chart,
    LegendEntry,
    error_bars,
    finish,
    safe,
    shorten,
    stripe,
)
from ranker.report.markup import lift_text

_COLORS: dict[Verdict, str] = {"better": TEAL, "worse": ORANGE, "cannot_tell": GREY}
_SYMBOLS: dict[Verdict, str] = {
    "better": "triangle-up",
    "worse": "triangle-down",
    "cannot_tell": "circle-open",
}
_GLYPHS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "cannot_tell": "○"}
_WORDS: dict[Verdict, str] = {"better": "better", "worse": "worse", "cannot_tell": "cannot tell"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One lift of a forest.

    Attributes:
        group: under which heading.
        limit: lift beyond which it would be too bad (a guardrail's, with its sign); None without.
    """

    group: str
    name: str
    lift: Estimate
    verdict: Verdict
    limit: float | None = None


def forest_chart(rows: Sequence[ForestRow], *, title: str) -> Chart:
    """Lifts in percent with intervals, by group; a guardrail's limit is a short upright line."""
    figure = go.Figure()
    labels: list[str] = []
    placed: list[tuple[int, ForestRow]] = []
    for group in dict.fromkeys(row.group for row in rows):
        labels.append(f"<b>{safe(shorten(group))}</b>")
        for row in (row for row in rows if row.group == group):
            placed.append((len(labels), row))
            labels.append(safe(shorten(row.name)))
    verdicts = list(dict.fromkeys(row.verdict for _, row in placed))
    for verdict in verdicts:
        _add_rows(figure, [(y, row) for y, row in placed if row.verdict == verdict], verdict)
    for y, row in placed:
        if row.limit is not None:
            x = 100 * row.limit
            line = {"color": ORANGE, "width": 2, "dash": "dot"}
            figure.add_shape(type="line", x0=x, x1=x, y0=y - 0.45, y1=y + 0.45, line=line)
            # a shape alone doesn't widen the axis
            figure.add_scatter(
                x=[x], y=[y], mode="markers", marker={"opacity": 0}, hoverinfo="skip"
            )
    stripe(figure, len(labels))
    figure.add_vline(x=0, line={"color": GREY, "width": 1.4})
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, showgrid=False)
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], zeroline=False)
    figure.update_xaxes(ticksuffix=" %", nticks=7, zeroline=False)
    said = "; ".join(f"{row.name} {lift_text(row.lift)}" for row in rows)
    legend = [LegendEntry(name=_WORDS[v], color=_COLORS[v], glyph=_GLYPHS[v]) for v in verdicts]
    if any(row.limit is not None for row in rows):
        legend.append(LegendEntry(name="margin of a guardrail", color=ORANGE, glyph="┊"))
    height = 46 + 28 * len(labels)
    return finish(figure, title=title, description=said, height_px=height, legend=legend)


def _add_rows(figure: go.Figure, rows: Sequence[tuple[int, ForestRow]], verdict: Verdict) -> None:
    chosen = [(y, row) for y, row in rows if row.lift.value is not None]
    values = [_percent(row.lift.value) for _, row in chosen]
    color = _COLORS[verdict]
    figure.add_scatter(
        x=values,
        y=[y for y, _ in chosen],
        error_x=error_bars(
            values,
            [_percent(row.lift.ci_low) for _, row in chosen],
            [_percent(row.lift.ci_high) for _, row in chosen],
            color,
        ),
        mode="markers",
        marker={"color": color, "size": 10, "symbol": _SYMBOLS[verdict]},
        hovertext=[safe(f"{row.name}: {lift_text(row.lift)}") for _, row in chosen],
        hoverinfo="text",
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
