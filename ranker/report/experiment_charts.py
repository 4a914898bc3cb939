"""A lift day by day with its confidence sequence."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ranker.experiment.cumulative import CumulativeLift
from ranker.report import scales
from ranker.report.figure import BLUE, GREY, Chart, LegendEntry, finish, safe, shorten

_BAND = "rgba(59,118,212,0.20)"


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
