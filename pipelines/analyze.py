"""``ranker analyze``: a real experiment's table becomes a verdict with its reasons, and a page."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import (
    add_config,
    non_negative,
    print_config,
    require_output_folder,
    resolve,
)
from pipelines.console import Console
from ranker.config import ConfigError

if TYPE_CHECKING:
    from ranker.experiment.analysis import ExperimentAnalysis
    from ranker.experiment.metric_result import MetricResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "outcomes",
        type=Path,
        metavar="OUTCOMES",
        help="Parquet file or folder: user, arm, day, ...",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="gets analysis.json and report.html",
    )
    parser.add_argument("--title", help="of the page; default: the file's name")
    parser.add_argument("--seed", type=non_negative, metavar="N", help="of the bootstrap")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Analyse an experiment."""
    from ranker.experiment.analysis_settings import AnalysisSettings

    if arguments.config is None and not arguments.overrides:
        raise ConfigError(
            "analyze needs --config FILE, which names the metrics; configs/analyze/example.yaml is "
            "one to start from"
        )
    settings = resolve(AnalysisSettings, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(settings, console)
    output = require_output_folder(arguments)
    from ranker.experiment.analysis import analyse
    from ranker.experiment.outcomes_reading import read_outcomes

    analysis = analyse(read_outcomes(arguments.outcomes, settings), settings)
    title = arguments.title or f"Experiment {arguments.outcomes.stem}"
    write_analysis(analysis, output, title=title)
    report = output / "report.html"
    console.result(
        f"{describe(analysis, console)}\n{report}", {"report": str(report), **analysis.to_json()}
    )
    return 0


def write_analysis(analysis: ExperimentAnalysis, output: Path, *, title: str) -> None:
    """Write ``analysis.json`` and ``report.html``."""
    from ranker.atomic import write_json, write_text
    from ranker.config import dump_yaml
    from ranker.report.content import Provenance
    from ranker.report.experiment_page import ExperimentPage, render_experiment

    page = ExperimentPage(
        title=title,
        analysis=analysis,
        created_by=f"ranker {version('ranker')}",
        provenance=Provenance(config_yaml=dump_yaml(analysis.settings)),
    )
    write_json(output / "analysis.json", analysis.to_json())
    write_text(output / "report.html", render_experiment(page))


def describe(analysis: ExperimentAnalysis, console: Console) -> str:
    """Verdicts, their reasons, and a table of all metrics."""
    several = len(analysis.settings.treatments) > 1
    rows = [
        [
            f"{one.metric.name} ({one.treatment})" if several else one.metric.name,
            one.metric.role,
            _shown(one),
            one.headline.method,
            str(one.verdict),
        ]
        for one in analysis.results
    ]
    lines = [line for decision in analysis.decisions for line in decision.lines]
    table = console.table(["metric", "role", "lift", "method", "verdict"], rows)
    return "\n".join([*lines, "", table, *analysis.notes])


def _shown(result: MetricResult) -> str:
    interval = result.lift_interval
    if result.headline.lift is None or interval is None:
        return f"– ({result.headline.reason})"
    return f"{result.headline.lift:+.2%} [{interval[0]:+.2%}, {interval[1]:+.2%}]"
