"""From metrics.json to what a report says of models: metrics, progress, calibration, experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.metrics_table import HEADLINE
from ranker.schema import Schema

if TYPE_CHECKING:
    from ranker.report import content as c

OURS = "ranker"


def estimate(value: Mapping[str, Any]) -> c.Estimate:
    """A number with its interval, or the reason why there is none."""
    from ranker.report import content

    low, high = value.get("ci_low"), value.get("ci_high")
    return content.Estimate(
        value=value["value"],
        ci_low=low,
        ci_high=high,
        reason=value.get("reason") or ("" if value["value"] is not None else "not measured"),
    )


def subtitle(schema: Schema, metrics: Mapping[str, Any]) -> str:
    """What was trained and tested on what."""
    if not metrics:
        return schema.name
    split, train = metrics["split"], metrics["train"]
    return (
        f"{schema.name}: trained on {train['first']} to {train['last']}, "
        f"tested on {split['first']} to {split['last']} ({split['rows']:,} impressions)"
    )


def task_metrics(metrics: Mapping[str, Any]) -> list[c.TaskMetrics]:
    """Every task's metrics, the model's beside the baselines', and the paired differences."""
    from ranker.report import content

    tasks = []
    for name, ours in metrics.get("tasks", {}).items():
        headline = HEADLINE[ours["kind"]]
        models = [content.ModelMetrics(model=OURS, metrics=_metric_values(ours))]
        comparisons = []
        for baseline, by_task in metrics["baselines"].items():
            if name not in by_task:
                continue
            values = _metric_values(by_task[name])
            models.append(content.ModelMetrics(model=baseline, metrics=values))
            difference = metrics["differences"][baseline][name][headline]
            comparisons.append(
                content.Comparison(
                    baseline=baseline,
                    difference=estimate(difference),
                    verdict=difference["verdict"].replace(" ", "_"),
                )
            )
        tasks.append(
            content.TaskMetrics(
                task=name,
                family=ours["family"],
                rows=ours["rows"],
                positives=ours.get("positives"),
                headline_metric=headline,
                models=models,
                comparisons=comparisons,
            )
        )
    return tasks


def _metric_values(task: Mapping[str, Any]) -> dict[str, c.Estimate]:
    return {
        name: estimate(value)
        for name, value in task.items()
        if isinstance(value, dict) and "value" in value
    }


def progress(metrics: Mapping[str, Any]) -> list[c.TaskProgress]:
    """The headline metric by window, each predicted before it was trained on."""
    from ranker.report import content

    lines = []
    for task, by_window in metrics.get("progressive", {}).items():
        windows = [
            content.WindowValue(window=w, estimate=estimate(v[HEADLINE[v["kind"]]]))
            for w, v in by_window.items()
        ]
        if any(w.estimate.value is not None for w in windows):
            metric = HEADLINE[next(iter(by_window.values()))["kind"]]
            lines.append(content.TaskProgress(task=task, metric=metric, windows=windows))
    return lines


def calibration(metrics: Mapping[str, Any]) -> list[c.TaskCalibration]:
    """Calibration curves; an interval that is missing shrinks to its point."""
    from ranker.report import content

    curves = []
    for task, bins in metrics.get("calibration", {}).items():
        shown = [
            content.CalibrationBin(
                mean_prediction=b["mean_prediction"],
                mean_label=b["mean_label"],
                rows=b["rows"],
                ci_low=b["mean_label"] if b["ci_low"] is None else b["ci_low"],
                ci_high=b["mean_label"] if b["ci_high"] is None else b["ci_high"],
            )
            for b in bins
        ]
        ratio = metrics["tasks"][task].get("calibration_ratio")
        unit = "s" if task.endswith("_s") else ""
        curves.append(
            content.TaskCalibration(
                task=task,
                bins=shown,
                unit=unit,
                ratio=None if ratio is None else estimate(ratio),
                calibrator=_calibrator(metrics, task),
            )
        )
    return curves


def _calibrator(metrics: Mapping[str, Any], task: str) -> str:
    """What a task's predictions went through; nothing in metrics from before calibrators."""
    if "calibrators" not in metrics:
        return ""
    kind = metrics["calibrators"][task]["calibrator"]["kind"]
    return "not calibrated" if kind == "identity" else f"calibrated ({kind})"


def experts(metrics: Mapping[str, Any]) -> c.ExpertUtilization | None:
    """Mean gate weights of each task; None without gates."""
    from ranker.report import content

    experts = metrics.get("experts")
    if not experts:
        return None
    return content.ExpertUtilization(
        tasks=[
            content.TaskExperts(
                task=task,
                weights=found["mean_weights"],
                alarm="polarized gate" if found["polarized"] else "",
            )
            for task, found in experts.items()
        ]
    )
