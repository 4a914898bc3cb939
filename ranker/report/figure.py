"""What all figures share: palette, layout, error bars, and texts that Plotly can't misread."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ranker.report.markup import clean

# After Okabe and Ito's colour-blind-safe palette, darkened to be read on white and on near-black.
BLUE, ORANGE, GREY, TEAL, PURPLE = "#3b76d4", "#d9822b", "#8b95a5", "#1a9e87", "#b06fb8"
_STRIPE = "rgba(128,136,150,0.08)"
_LABEL_LENGTH = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """A name, its colour (our own, not the caller's) and a character shaped like its symbol."""

    name: str
    color: str
    glyph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure and what people who can't see it are told.

    Attributes:
        figure_json: Plotly's JSON, not yet safe inside HTML.
    """

    title: str
    description: str
    height_px: int
    figure_json: str
    legend: Sequence[LegendEntry] = ()


def finish(
    figure: go.Figure,
    *,
    title: str,
    description: str,
    height_px: int,
    legend: Sequence[LegendEntry] = (),
) -> Chart:
    """Lay out a figure. Text and grid colours are left to the page's theme.

    The legend is the page's too: Plotly's own covers the data where the page is narrow.
    """
    figure.update_layout(
        template="none",
        dragmode=False,
        hovermode="closest",
        showlegend=False,
        margin={"l": 8, "r": 14, "t": 10, "b": 8},
        bargap=0.25,
    )
    figure.update_xaxes(fixedrange=True, automargin=True)
    figure.update_yaxes(fixedrange=True, automargin=True, ticklabelstandoff=5)
    return Chart(
        title=title,
        description=description,
        height_px=height_px,
        figure_json=figure.to_json(),
        legend=legend if len(legend) > 1 else (),
    )


def stripe(figure: go.Figure, num_rows: int) -> None:
    """Shade every second row."""
    for row in range(0, num_rows, 2):
        figure.add_hrect(y0=row - 0.5, y1=row + 0.5, fillcolor=_STRIPE, line_width=0, layer="below")


def error_bars(
    values: Sequence[float | None],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    color: str,
) -> dict[str, object]:
    """Asymmetric error bars from interval ends; none where an end is missing."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_distance(v, high) for v, high in zip(values, highs, strict=True)],
        "arrayminus": [_distance(low, v) for v, low in zip(values, lows, strict=True)],
        "color": color,
        "thickness": 1.6,
        "width": 0,
    }


def shorten(text: str) -> str:
    """Cut a label that would leave no room for the data."""
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"


def safe(text: str) -> str:
    """Escape a label."""
    # Plotly reads tags such as <a href> in its labels and decodes entities.
    return html.escape(clean(text), quote=False)


def _distance(low: float | None, high: float | None) -> float:
    # A value may lie outside its bootstrap interval; Plotly draws no bar of negative length.
    return 0.0 if low is None or high is None else max(0.0, high - low)
