"""``ranker report``: the HTML page of a run folder, drawn from the files its commands left."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.console import Console
from pipelines.metrics_table import HEADLINE
from pipelines.report_metrics import calibration, experts, progress, subtitle, task_metrics
from pipelines.report_run import cost, data_summary, provenance, read_json, slates
from pipelines.report_simulation import conclusion, experiment
from ranker.atomic import write_text
from ranker.schema import Schema, load_schema


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

    metrics = read_json(run_folder / "metrics.json")
    simulation = read_json(run_folder / "simulation.json")
    if not (prepared / "schema.yaml").is_file():
        raise DataError(f"{prepared}: holds no prepared data; give --data DIR")
    if not metrics and not simulation:
        raise DataError(f"{run_folder}: holds neither metrics.json nor simulation.json")
    schema = load_schema(prepared / "schema.yaml")
    page = render_report(
        ReportContent(
            title=title,
            subtitle=subtitle(schema, metrics),
            created_by=f"ranker {version('ranker')}",
            headlines=_headlines(schema, metrics, simulation),
            data=data_summary(schema, prepared, metrics),
            metrics=task_metrics(metrics) or None,
            progress=progress(metrics) or None,
            calibration=calibration(metrics) or None,
            experts=experts(metrics),
            experiment=experiment(simulation),
            cost=cost(run_folder, metrics),
            slates=slates(run_folder, schema) or None,
            provenance=provenance(run_folder, metrics),
        )
    )
    path = run_folder / "report.html"
    write_text(path, page)
    return path


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
        sentences.append(conclusion(simulation))
    return sentences
