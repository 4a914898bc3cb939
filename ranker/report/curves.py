"""Curves: progressive validation and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ranker.report import scales
from ranker.report.content import CalibrationBin, TaskCalibration, TaskProgress, WindowValue
from ranker.report.figure import BLUE, GREY, Chart, error_bars, finish, safe, shorten
from ranker.report.markup import count, estimate_text, metric_label, number, percent


def progress_chart(progress: TaskProgress) -> Chart:
    """A line by window with a band of intervals; windows without a value leave a gap."""
    figure = go.Figure()
    values = [window.estimate.value for window in progress.windows]
    band_x, band_y = _band(progress.windows)
    figure.add_scatter(
        x=band_x,
        y=band_y,
        mode="lines",
        fill="toself",
        fillcolor="rgba(59,118,212,0.20)",
        line_width=0,
        hoverinfo="skip",
    )
    texts = [f"{w.window}: {estimate_text(w.estimate)}" for w in progress.windows]
    figure.add_scatter(
        x=list(range(len(values))),
        y=values,
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 5, "color": BLUE},
        hovertext=[safe(text) for text in texts],
        hoverinfo="text",
    )
    labels = [safe(shorten(window.window)) for window in progress.windows]
    figure.update_xaxes(**scales.window_ticks(labels, at_most=3), showgrid=False)
    figure.update_yaxes(nticks=5, zeroline=False)
    title = f"{progress.task} · {metric_label(progress.metric)}"
    return finish(figure, title=title, description="; ".join(texts), height_px=190)


def calibration_chart(calibration: TaskCalibration) -> Chart:
    """Mean label against mean prediction of each bin, with the diagonal; log axes for rare tasks.

    On log axes a bin without a single positive sits, hollow, on the lower edge.
    """
    bins = calibration.bins
    scale = scales.calibration_scale(bins)
    figure = go.Figure()
    figure.add_scatter(
        x=[scale.low, scale.high],
        y=[scale.low, scale.high],
        mode="lines",
        line={"color": GREY, "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
    )
    shown = [scale.clip(b.mean_label) for b in bins]
    texts = [_bin_text(b, calibration.unit) for b in bins]
    figure.add_scatter(
        x=[scale.clip(b.mean_prediction) for b in bins],
        y=shown,
        error_y=error_bars(
            shown, [scale.clip(b.ci_low) for b in bins], [scale.clip(b.ci_high) for b in bins], BLUE
        ),
        mode="markers",
        marker={
            "size": 7,
            "color": BLUE,
            "symbol": ["circle" if b.mean_label >= scale.low else "circle-open" for b in bins],
        },
        hovertext=[safe(text) for text in texts],
        hoverinfo="text",
        cliponaxis=False,
    )
    figure.update_xaxes(**scale.axis(calibration.unit), title={"text": "predicted", "standoff": 6})
    figure.update_yaxes(**scale.axis(calibration.unit), title={"text": "observed", "standoff": 6})
    note = " · log axes" if scale.is_log else ""
    title = f"{calibration.task}{note}"
    return finish(figure, title=title, description="; ".join(texts), height_px=240)


def _band(windows: Sequence[WindowValue]) -> tuple[list[float | None], list[float | None]]:
    """Outlines of the interval band, one closed polygon for each run of windows without a gap."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    run: list[tuple[float, float, float]] = []
    ends = [(w.estimate.value, w.estimate.ci_low, w.estimate.ci_high) for w in windows]
    for x, (value, low, high) in enumerate([*ends, (None, None, None)]):
        if value is not None and low is not None and high is not None:
            run.append((x, low, high))
            continue
        if len(run) == 1:  # a lone window gets a narrow box, a polygon of no width can't be seen
            x_only, low_only, high_only = run[0]
            run = [(x_only + side, low_only, high_only) for side in (-0.15, 0.15)]
        if run:
            xs += [*(r[0] for r in run), *(r[0] for r in reversed(run)), run[0][0], None]
            ys += [*(r[1] for r in run), *(r[2] for r in reversed(run)), run[0][1], None]
            run = []
    return xs, ys


def _bin_text(b: CalibrationBin, unit: str) -> str:
    def write(x: float) -> str:
        return f"{number(x)} {unit}" if unit else percent(x)

    observed = f"{write(b.mean_label)} [{write(b.ci_low)}, {write(b.ci_high)}]"
    return f"predicted {write(b.mean_prediction)}, observed {observed}, {count(b.rows)} rows"
