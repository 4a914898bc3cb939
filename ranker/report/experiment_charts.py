"""Charts of an experiment: forests of lifts, and a lift day by day with its confidence sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ranker.experiment.cumulative import CumulativeLift
from ranker.report import scales
from ranker.report.content import Estimate, Verdict
from ranker.report.figure import (
    BLUE,
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
_WORDS: dict[Verdict, str] = {"better": "better", "worse": "worse", "cannot_tell": "can’t tell"}
_BAND = "rgba(59,118,212,0.20)"


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


def course_chart(course: CumulativeLift, *, title: str) -> Chart:
    """The lift by day, its confidence sequence as a band, and the intervals of a single look."""
    figure = go.Figure()
    shown = [
        (x, *(100 * column[x] for column in (course.lifts, course.lows, course.highs)))
        for x in range(len(course.day_labels))
        if course.lows[x] == course.lows[x]  # NaN: nothing to show yet
    ]
    figure.add_scatter(
        x=[row[0] for row in shown] + [row[0] for row in reversed(shown)],
        y=[row[2] for row in shown] + [row[3] for row in reversed(shown)],
        mode="lines",
        fill="toself",
        fillcolor=_BAND,
        line_width=0,
        hoverinfo="skip",
    )
    for ends in (course.fixed_lows, course.fixed_highs):
        figure.add_scatter(
            x=[row[0] for row in shown],
            y=[100 * ends[row[0]] for row in shown],
            mode="lines",
            line={"color": GREY, "width": 1.3, "dash": "dot"},
            hoverinfo="skip",
        )
    texts = [
        f"{course.day_labels[x]}: {lift:+.2f} % [{low:+.2f} %, {high:+.2f} %]"
        for x, lift, low, high in shown
    ]
    figure.add_scatter(
        x=[row[0] for row in shown],
        y=[row[1] for row in shown],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 6, "color": BLUE},
        hovertext=[safe(text) for text in texts],
        hoverinfo="text",
    )
    figure.add_hline(y=0, line={"color": GREY, "width": 1.4})
    labels = [safe(shorten(label)) for label in course.day_labels]
    figure.update_xaxes(**scales.window_ticks(labels, at_most=4), showgrid=False)
    figure.update_yaxes(ticksuffix=" %", nticks=6, zeroline=False)
    if shown:
        # the first days' bands may be many times wider than anything that matters
        figure.update_yaxes(range=_focus(shown))
    legend = [
        LegendEntry(name="lift so far", color=BLUE, glyph="●"),
        LegendEntry(name="confidence sequence", color=BLUE, glyph="▒"),
        LegendEntry(name="interval of a single look", color=GREY, glyph="┄"),
    ]
    said = "; ".join(texts) or "no day has a lift"
    return finish(figure, title=title, description=said, height_px=260, legend=legend)


def _focus(shown: Sequence[tuple[float, ...]]) -> list[float]:
    """Lifts of all days, and the bands up to three times the last one's half-width around them."""
    lifts = [row[1] for row in shown]
    half = (shown[-1][3] - shown[-1][2]) / 2
    low = max(min(row[2] for row in shown), min(lifts) - 3 * half)
    high = min(max(row[3] for row in shown), max(lifts) + 3 * half)
    margin = 0.06 * (max(high, 0.0) - min(low, 0.0))
    return [min(low, 0.0) - margin, max(high, 0.0) + margin]


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
