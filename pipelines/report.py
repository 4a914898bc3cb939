"""``ranker report``: the HTML page of a run folder, drawn from the files its commands left."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console import Console
from pipelines.metrics_table import HEADLINE
from ranker.atomic import write_text
from ranker.schema import Schema, load_schema

if TYPE_CHECKING:
    from ranker.report import content as c

NUM_EXAMPLES = 3
OURS = "ranker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, metavar="DIR", help="run folder with metrics.json")
    parser.add_argument("--data", type=Path, metavar="DIR", help="prepared data; default DIR/data")
    parser.add_argument("--title", default="ranker report")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Draw a run's page."""
    prepared = arguments.data or arguments.run / "data"
    try:
        page = write_report(arguments.run, prepared, title=arguments.title)
    except KeyError as error:
        from ranker.data.parquet import DataError

        raise DataError(
            f"{arguments.run}: its results lack {error}: they are of another version, or of other "
            f"data than {prepared}; evaluate, score and simulate again"
        ) from None
    console.result(str(page), {"report": str(page)})
    return 0


def write_report(run_folder: Path, prepared: Path, *, title: str) -> Path:
    """Write ``report.html`` from whatever the run folder holds.

    Raises:
        DataError: neither prepared data nor results.
    """
    from ranker.data.parquet import DataError
    from ranker.report import ReportContent, render_report

    metrics = _read_json(run_folder / "metrics.json")
    simulation = _read_json(run_folder / "simulation.json")
    if not (prepared / "schema.yaml").is_file():
        raise DataError(f"{prepared}: holds no prepared data; give --data DIR")
    if not metrics and not simulation:
        raise DataError(f"{run_folder}: holds neither metrics.json nor simulation.json")
    schema = load_schema(prepared / "schema.yaml")
    page = render_report(
        ReportContent(
            title=title,
            subtitle=_subtitle(schema, metrics),
            created_by=f"ranker {version('ranker')}",
            headlines=_headlines(schema, metrics, simulation),
            data=_data_summary(schema, prepared, metrics),
            metrics=_task_metrics(metrics) or None,
            progress=_progress(metrics) or None,
            calibration=_calibration(schema, metrics) or None,
            experts=_experts(metrics),
            experiment=_experiment(simulation),
            cost=_cost(run_folder, metrics),
            slates=_slates(run_folder, schema) or None,
            provenance=_provenance(run_folder, metrics),
        )
    )
    path = run_folder / "report.html"
    write_text(path, page)
    return path


def _read_json(path: Path) -> dict[str, Any]:
    from ranker.data.parquet import DataError

    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _subtitle(schema: Schema, metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return schema.name
    split, train = metrics["split"], metrics["train"]
    return (
        f"{schema.name}: trained on {train['first']} to {train['last']}, "
        f"tested on {split['first']} to {split['last']} ({split['rows']:,} impressions)"
    )


def _headlines(
    schema: Schema, metrics: Mapping[str, Any], simulation: Mapping[str, Any]
) -> list[str]:
    """One sentence a baseline: on which tasks we are better, worse, or can't tell."""
    sentences = []
    for baseline, by_task in metrics.get("differences", {}).items():
        verdicts: dict[str, list[str]] = {}
        for task, by_metric in by_task.items():
            verdict = by_metric[HEADLINE[schema.task(task).kind]]["verdict"]
            verdicts.setdefault(verdict, []).append(task)
        parts = [
            f"{verdict} on {', '.join(verdicts[verdict])}"
            for verdict in ("better", "worse")
            if verdict in verdicts
        ]
        if "cannot tell" in verdicts:
            parts.append(f"cannot tell on {', '.join(verdicts['cannot tell'])}")
        sentences.append(f"Against the {baseline}: {'; '.join(parts)}.")
    polarized = [t for t, e in metrics.get("experts", {}).items() if e["polarized"]]
    if polarized:
        sentences.append(f"Polarized gates: {', '.join(polarized)}.")
    if simulation:
        sentences.append(_conclusion(simulation))
    return sentences


def _estimate(value: Mapping[str, Any]) -> c.Estimate:
    from ranker.report import content

    low, high = value.get("ci_low"), value.get("ci_high")
    return content.Estimate(
        value=value["value"],
        ci_low=low,
        ci_high=high,
        reason=value.get("reason") or ("" if value["value"] is not None else "not measured"),
    )


def _metric_values(task: Mapping[str, Any]) -> dict[str, c.Estimate]:
    return {
        name: _estimate(value)
        for name, value in task.items()
        if isinstance(value, dict) and "value" in value
    }


def _data_summary(schema: Schema, prepared: Path, metrics: Mapping[str, Any]) -> c.DataSummary:
    from ranker.data.prepare import read_summary
    from ranker.report import content

    summary = read_summary(prepared)
    train, split = metrics.get("train", {}), metrics.get("split", {})

    def split_of(label: str) -> Any:
        if train and label <= train["last"]:
            return "train"
        return "test" if split and split["first"] <= label <= split["last"] else ""

    labels = []
    for task in schema.tasks:
        found = summary.labels[task.name]
        labels.append(
            content.LabelSummary(
                task=task.name,
                family=task.family,
                kind=task.kind,
                observed_rows=found.observed,
                positives=round(found.total) if task.kind == "binary" else None,
                mean=found.total / found.observed if found.observed else None,
            )
        )
    return content.DataSummary(
        rows_read=summary.rows_read,
        rows_kept=summary.rows_kept,
        exact_duplicates=summary.exact_duplicates,
        users=summary.users,
        items=summary.items,
        quarantined=[
            content.Quarantine(reason=reason, rows=rows)
            for reason, rows in summary.bad_rows_by_reason.items()
        ],
        windows=[
            content.WindowRows(label=label, rows=rows, split=split_of(label))
            for label, rows in summary.rows_by_window.items()
        ],
        labels=labels,
    )


def _task_metrics(metrics: Mapping[str, Any]) -> list[c.TaskMetrics]:
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
                    difference=_estimate(difference),
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


def _progress(metrics: Mapping[str, Any]) -> list[c.TaskProgress]:
    from ranker.report import content

    lines = []
    for task, by_window in metrics.get("progressive", {}).items():
        windows = [
            content.WindowValue(window=w, estimate=_estimate(v[HEADLINE[v["kind"]]]))
            for w, v in by_window.items()
        ]
        if any(w.estimate.value is not None for w in windows):
            metric = HEADLINE[next(iter(by_window.values()))["kind"]]
            lines.append(content.TaskProgress(task=task, metric=metric, windows=windows))
    return lines


def _calibration(schema: Schema, metrics: Mapping[str, Any]) -> list[c.TaskCalibration]:
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
                ratio=None if ratio is None else _estimate(ratio),
                calibrator=_calibrator(metrics, task),
            )
        )
    del schema
    return curves


def _calibrator(metrics: Mapping[str, Any], task: str) -> str:
    """What a task's predictions went through; nothing in metrics from before calibrators."""
    if "calibrators" not in metrics:
        return ""
    kind = metrics["calibrators"][task]["calibrator"]["kind"]
    return "not calibrated" if kind == "identity" else f"calibrated ({kind})"


def _experts(metrics: Mapping[str, Any]) -> c.ExpertUtilization | None:
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


def _experiment(simulation: Mapping[str, Any]) -> c.ExperimentSummary | None:
    from ranker.report import content

    if not simulation:
        return None
    lifts = []
    for lift in simulation["lifts"]:
        if lift["control_mean"] is None or lift["treatment_mean"] is None:
            continue
        lifts.append(
            content.LiftRow(
                metric=lift["metric"],
                family=lift["family"],
                control_mean=lift["control_mean"],
                treatment_mean=lift["treatment_mean"],
                lift=_estimate({**lift, "value": lift["lift"]}),
                verdict=lift["verdict"].replace(" ", "_"),
            )
        )
    users = simulation["lifts"][0]
    return content.ExperimentSummary(
        control=simulation["control"],
        treatment=simulation["treatment"],
        control_users=users["num_users_control"],
        treatment_users=users["num_users_treatment"],
        lifts=lifts,
        verdict=_overall(simulation),
        conclusion=_conclusion(simulation),
        banner=(
            "Semi-synthetic: users, requests and candidates are real, outcomes are drawn from a "
            "response model (gradient boosting) under an assumed examination curve."
        ),
        notes=[*_expected_lifts(simulation), *simulation["assumptions"], *simulation["notes"]],
    )


def _expected_lifts(simulation: Mapping[str, Any]) -> list[str]:
    """The lifts without the luck of one split: both arms on all users, no outcome drawn."""
    shown = [
        f"{lift['metric']} {lift['lift']:+.2%} [{lift['ci_low']:+.2%}, {lift['ci_high']:+.2%}]"
        for lift in simulation["expected_lifts"]
        if lift["lift"] is not None
    ]
    if not shown:
        return []
    return [f"expected lifts, both arms on all users and nothing drawn: {'; '.join(shown)}"]


def _verdicts(simulation: Mapping[str, Any]) -> dict[str, list[str]]:
    verdicts: dict[str, list[str]] = {}
    for lift in simulation["lifts"]:
        verdicts.setdefault(lift["verdict"].replace(" ", "_"), []).append(lift["metric"])
    return verdicts


def _overall(simulation: Mapping[str, Any]) -> Any:
    verdicts = _verdicts(simulation)
    if "better" in verdicts and "worse" not in verdicts:
        return "better"
    return "worse" if "worse" in verdicts and "better" not in verdicts else "cannot_tell"


def _conclusion(simulation: Mapping[str, Any]) -> str:
    verdicts = _verdicts(simulation)
    parts = [
        f"{word} on {', '.join(verdicts[word])}" for word in ("better", "worse") if word in verdicts
    ]
    found = "; ".join(parts) if parts else "no difference that can be told from chance"
    return (
        f"Simulated A/B (semi-synthetic), {simulation['treatment']} against "
        f"{simulation['control']}: {found}."
    )


def _cost(run_folder: Path, metrics: Mapping[str, Any]) -> c.Cost | None:
    from ranker.report import content

    train, stages = _read_json(run_folder / "train.json"), _read_json(run_folder / "stages.json")
    if not train and not metrics:
        return None
    model = metrics.get("model", {})
    return content.Cost(
        embedding_parameters=model.get("embedding_parameters"),
        dense_parameters=model.get("dense_parameters"),
        multiplications_per_example=model.get("multiplications_per_example"),
        train_rows=train.get("rows_trained"),
        train_examples_per_s=train.get("examples_per_s"),
        peak_memory_mib=stages.get("peak_memory_mib"),
        stages=[
            content.Stage(name=name, wall_s=seconds)
            for name, seconds in stages.get("wall_s", {}).items()
        ],
    )


def _slates(run_folder: Path, schema: Schema) -> list[c.SlateExample]:
    """The first few slates of ``slates.parquet``."""
    from pipelines.requests import request_key
    from ranker.data.parquet import stream
    from ranker.report import content

    path = run_folder / "slates.parquet"
    if not path.exists():
        return []
    rows = [row for located in islice(stream(path), 1) for row in located.rows[:200].to_pylist()]
    by_request: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_request.setdefault(request_key(schema, row), []).append(row)
    complete = list(by_request.items())[: max(1, len(by_request) - 1)][:NUM_EXAMPLES]
    return [
        content.SlateExample(
            request=key,
            user=str(shown[0][schema.log.user]),
            query_item="",
            num_candidates=0,
            items=[_slate_item(row, schema) for row in shown],
        )
        for key, shown in complete
    ]


def _slate_item(row: Mapping[str, Any], schema: Schema) -> c.SlateItem:
    from ranker.report import content

    ranks = {n.removesuffix("_rank"): v for n, v in row.items() if n.endswith("_rank")}
    return content.SlateItem(
        rank=row["rank"],
        item=str(row[schema.log.item]),
        score=row["score"],
        prediction_by_task={task.name: row[f"prediction.{task.name}"] for task in schema.tasks},
        sources=", ".join(name for name, rank in ranks.items() if rank is not None),
    )


def _provenance(run_folder: Path, metrics: Mapping[str, Any]) -> c.Provenance:
    from ranker.report import content

    facts: list[content.Fact] = []
    if metrics:
        sha256 = metrics["bundle"]["weights_sha256"]
        facts.append(content.Fact(name="seed of the intervals", value=str(metrics["seed"])))
        facts.append(content.Fact(name="sha256 of the weights", value=sha256))
    config = run_folder / "config.yaml"
    return content.Provenance(
        facts=facts, config_yaml=config.read_text(encoding="utf-8") if config.is_file() else ""
    )
