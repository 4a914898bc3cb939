"""Dots and bars: rows of each window, models by task, lifts."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ranker.report import scales
from ranker.report.content import LiftRow, TaskMetrics, WindowRows
from ranker.report.figure import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    TEAL,
    Chart,
    LegendEntry,
    error_bars,
    finish,
    safe,
    shorten,
    stripe,
)
from ranker.report.forest import ForestRow, forest_chart
from ranker.report.markup import count, estimate_text, metric_label

_MODEL_COLORS = (BLUE, ORANGE, GREY, TEAL, PURPLE)
_MODEL_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down")
_GLYPHS = {
    "circle": "●",
    "diamond": "◆",
    "square": "■",
    "triangle-up": "▲",
    "triangle-down": "▼",
}
_SPLIT_COLORS = {"train": "#9dbbe8", "validation": TEAL, "test": BLUE, "": BLUE}


def rows_chart(windows: Sequence[WindowRows]) -> Chart:
    """Bars: rows of each window, coloured by what it was used for."""
    figure = go.Figure()
    labels = [safe(shorten(window.label)) for window in windows]
    for split in dict.fromkeys(window.split for window in windows):
        chosen = [(i, w) for i, w in enumerate(windows) if w.split == split]
        figure.add_bar(
            x=[i for i, _ in chosen],
            y=[window.rows for _, window in chosen],
            marker_color=_SPLIT_COLORS[split],
            hovertext=[safe(f"{w.label}: {count(w.rows)} rows") for _, w in chosen],
            hoverinfo="text",
        )
    figure.update_xaxes(
        **scales.window_ticks([safe(shorten(label)) for label in labels], at_most=7)
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(rangemode="tozero", nticks=5, tickformat=",d")
    legend = [
        LegendEntry(name=split or "other", color=_SPLIT_COLORS[split], glyph=_GLYPHS["square"])
        for split in dict.fromkeys(window.split for window in windows)
    ]
    said = ", ".join(f"{w.label} {count(w.rows)} {w.split}".rstrip() for w in windows)
    return finish(figure, title="Rows per window", description=said, height_px=220, legend=legend)


def models_chart(tasks: Sequence[TaskMetrics]) -> Chart:
    """Dots with intervals: every model's headline metric, a row for each task."""
    figure = go.Figure()
    names = list(dict.fromkeys(model.model for task in tasks for model in task.models))
    for index, name in enumerate(names):
        _add_model(figure, tasks, name=name, index=index, num_models=len(names))
    rows = [safe(shorten(task.task)) for task in tasks]
    stripe(figure, len(rows))
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=rows, showgrid=False)
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], zeroline=False)
    figure.update_xaxes(nticks=6, zeroline=False)
    metric = metric_label(tasks[0].headline_metric)
    said = "; ".join(
        f"{task.task}: "
        + ", ".join(f"{m.model} {estimate_text(task.headline(m.model))}" for m in task.models)
        for task in tasks
    )
    legend = [
        LegendEntry(name=name, color=_model_color(i), glyph=_GLYPHS[_model_symbol(i)])
        for i, name in enumerate(names)
    ]
    height = 46 + len(rows) * max(30, 13 * len(names))
    title = f"{metric} by task"
    return finish(figure, title=title, description=said, height_px=height, legend=legend)


def lift_chart(lifts: Sequence[LiftRow]) -> Chart:
    """Forest plot of lifts, grouped by family; a star marks the primary metric."""
    rows = [
        ForestRow(
            group=row.family.capitalize(),
            name=row.metric + (" ★" if row.role == "primary" else ""),
            lift=row.lift,
            verdict=row.verdict,
        )
        for row in lifts
    ]
    return forest_chart(rows, title="Lift by metric")


def _add_model(
    figure: go.Figure, tasks: Sequence[TaskMetrics], *, name: str, index: int, num_models: int
) -> None:
    chosen = [
        (y, estimate)
        for y, task in enumerate(tasks)
        if (estimate := task.headline(name)) is not None and estimate.value is not None
    ]
    values = [estimate.value for _, estimate in chosen]
    offset = 0.0 if num_models == 1 else 0.5 * (index / (num_models - 1) - 0.5)
    color = _model_color(index)
    figure.add_scatter(
        x=values,
        y=[y + offset for y, _ in chosen],
        error_x=error_bars(
            values, [e.ci_low for _, e in chosen], [e.ci_high for _, e in chosen], color
        ),
        mode="markers",
        marker={"color": color, "size": 8, "symbol": _model_symbol(index)},
        hovertext=[safe(f"{name}: {estimate_text(estimate)}") for _, estimate in chosen],
        hoverinfo="text",
    )


def _model_color(index: int) -> str:
    return _MODEL_COLORS[index % len(_MODEL_COLORS)]


def _model_symbol(index: int) -> str:
    return _MODEL_SYMBOLS[index % len(_MODEL_SYMBOLS)]
