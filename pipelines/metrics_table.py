"""The short table of metrics.json: task, metric with interval, baseline, paired difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.console import Console

HEADLINE = {"binary": "auc", "regression": "rmse"}


def metrics_table(metrics: Mapping[str, Any], console: Console) -> str:
    """One row a task, against the first baseline that has it."""
    rows = []
    for task, values in metrics["tasks"].items():
        metric = HEADLINE[values["kind"]]
        baseline = next((n for n, by_task in metrics["differences"].items() if task in by_task), "")
        cells = [task, metric, _interval(values[metric])]
        if baseline:
            difference = metrics["differences"][baseline][task][metric]
            cells += [
                f"{baseline} {_value(metrics['baselines'][baseline][task][metric])}",
                _interval(difference, signed=True),
                str(difference["verdict"]) if difference["value"] is not None else "cannot tell",
            ]
        else:
            cells += ["", "", ""]
        rows.append(cells)
    header = ["task", "metric", "ranker", "baseline", "difference", "verdict"]
    return console.table(header, rows)


def _value(estimate: Mapping[str, Any]) -> str:
    value = estimate["value"]
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _interval(estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    if estimate["value"] is None:
        return f"– ({estimate.get('reason', 'not measured')})"
    sign = "+" if signed else ""
    digits = 4 if abs(estimate["value"]) < 10 else 2
    text = f"{estimate['value']:{sign}.{digits}f}"
    if estimate["ci_low"] is not None:
        text += f" [{estimate['ci_low']:{sign}.{digits}f}, {estimate['ci_high']:{sign}.{digits}f}]"
    return text
