"""The chart of engagement against satisfaction: candidates, front, today, chosen, and you."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ranker.report.figure import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    TEAL,
    Chart,
    LegendEntry,
    finish,
    safe,
    shorten,
)
from ranker.report.markup import signed
from ranker.report.tuning_content import TunedPoint, TuningPage

_HEIGHT_PX = 430
_Style = tuple[str, str, int]  # plotly's symbol, colour, size


def front_chart(page: TuningPage) -> Chart:
    """Changes of both families on the page's rows; the script moves the trace called ``you``."""
    figure = go.Figure()
    figure.add_scatter(
        x=[100 * x for x, _ in page.cloud],
        y=[100 * y for _, y in page.cloud],
        mode="markers",
        marker={"size": 4, "color": GREY, "opacity": 0.35},
        hoverinfo="skip",
        name="tried",
    )
    _add(figure, page.front, ("circle", BLUE, 8), "front")
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    _add(figure, [page.today], ("square", PURPLE, 11), "today")
    if page.chosen is not None:
        _add(figure, [page.chosen], ("diamond", TEAL, 13), "chosen")
    figure.add_scatter(
        x=[0],
        y=[0],
        mode="markers",
        marker={
            "size": 20,
            "symbol": "circle-open",
            "color": ORANGE,
            "line": {"width": 3, "color": ORANGE},
        },
        hovertemplate="you are here<br>engagement %{x:.2f} %<br>satisfaction %{y:.2f} %"
        "<extra></extra>",
        name="you",
    )
    figure.update_xaxes(title="engagement, change in %", zeroline=False, nticks=7)
    figure.update_yaxes(title="satisfaction, change in %", zeroline=False, nticks=7)
    legend = [
        LegendEntry(name="you are here", color=ORANGE, glyph="◯"),
        LegendEntry(name="today", color=PURPLE, glyph="■"),
        LegendEntry(name="front", color=BLUE, glyph="●"),
        LegendEntry(name="tried", color=GREY, glyph="•"),
    ]
    if page.chosen is not None:
        legend.insert(2, LegendEntry(name="chosen", color=TEAL, glyph="◆"))
    return finish(
        figure,
        title="Engagement against satisfaction, relative to today’s weights",
        description="; ".join(_text(point) for point in page.extremes) or "no candidate",
        height_px=_HEIGHT_PX,
        legend=legend,
    )


def _add(figure: go.Figure, points: Sequence[TunedPoint], style: _Style, name: str) -> None:
    symbol, color, size = style
    placed = [p for p in points if p.engagement is not None and p.satisfaction is not None]
    figure.add_scatter(
        x=[100 * p.engagement for p in placed if p.engagement is not None],
        y=[100 * p.satisfaction for p in placed if p.satisfaction is not None],
        mode="markers",
        marker={"size": size, "symbol": symbol, "color": color},
        hovertext=[_text(point) for point in placed],
        hoverinfo="text",
        name=name,
    )


def _text(point: TunedPoint) -> str:
    changes = [
        f"{family} {'–' if value is None else signed(100 * value, decimals=2)} %"
        for family, value in (
            ("engagement", point.engagement),
            ("satisfaction", point.satisfaction),
        )
    ]
    return "<br>".join([safe(shorten(point.name)), *changes])
