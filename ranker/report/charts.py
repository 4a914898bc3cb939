"""Dots and bars: rows of each window, models by task, lifts."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ranker.report import scales
from ranker.report.content import LiftRow, TaskMetrics, Verdict, WindowRows
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
from ranker.report.markup import count, estimate_text, lift_text, metric_label

_MODEL_COLORS = (BLUE, ORANGE, GREY, TEAL, PURPLE)
_MODEL_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down")
_GLYPHS = {
    "circle": "●",
    "circle-open": "○",
    "diamond": "◆",
    "square": "■",
    "triangle-up": "▲",
    "triangle-down": "▼",
}
_VERDICT_COLORS: dict[Verdict, str] = {"better": TEAL, "worse": ORANGE, "cannot_tell": GREY}
_VERDICT_SYMBOLS: dict[Verdict, str] = {
    "better": "triangle-up",
    "worse": "triangle-down",
    "cannot_tell": "circle-open",
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
    """Forest plot: lifts in percent with intervals, grouped by family."""
    figure = go.Figure()
    labels: list[str] = []
    placed: list[tuple[int, LiftRow]] = []
    for family in dict.fromkeys(row.family for row in lifts):
        labels.append(f"<b>{family.capitalize()}</b>")
        for row in (row for row in lifts if row.family == family):
            placed.append((len(labels), row))
            labels.append(safe(shorten(row.metric)) + (" ★" if row.role == "primary" else ""))
    for verdict in dict.fromkeys(row.verdict for _, row in placed):
        _add_lifts(figure, [(y, r) for y, r in placed if r.verdict == verdict], verdict)
    stripe(figure, len(labels))
    figure.add_vline(x=0, line={"color": GREY, "width": 1.4})
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, showgrid=False)
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], zeroline=False)
    figure.update_xaxes(ticksuffix=" %", nticks=7, zeroline=False)
    said = "; ".join(f"{row.metric} {lift_text(row.lift)}" for row in lifts)
    legend = [
        LegendEntry(
            name=verdict.replace("cannot_tell", "can’t tell"),
            color=_VERDICT_COLORS[verdict],
            glyph=_GLYPHS[_VERDICT_SYMBOLS[verdict]],
        )
        for verdict in dict.fromkeys(row.verdict for _, row in placed)
    ]
    title, height = "Lift by metric", 46 + 28 * len(labels)
    return finish(figure, title=title, description=said, height_px=height, legend=legend)


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


def _add_lifts(figure: go.Figure, rows: Sequence[tuple[int, LiftRow]], verdict: Verdict) -> None:
    chosen = [(y, r) for y, r in rows if r.lift.value is not None]
    values = [_times_100(row.lift.value) for _, row in chosen]
    color = _VERDICT_COLORS[verdict]
    figure.add_scatter(
        x=values,
        y=[y for y, _ in chosen],
        error_x=error_bars(
            values,
            [_times_100(row.lift.ci_low) for _, row in chosen],
            [_times_100(row.lift.ci_high) for _, row in chosen],
            color,
        ),
        mode="markers",
        marker={"color": color, "size": 10, "symbol": _VERDICT_SYMBOLS[verdict]},
        hovertext=[safe(f"{row.metric}: {lift_text(row.lift)}") for _, row in chosen],
        hoverinfo="text",
    )


def _times_100(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
