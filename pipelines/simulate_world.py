"""``ranker simulate --world``: an experiment in a world whose truth is known."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from pipelines.analyze import describe
from pipelines.arguments import print_config, require_output
from pipelines.console import Console
from pipelines.world_config import (
    WorldExperiment,
    WorldExperimentConfig,
    analysis_settings,
    check_columns,
    experiment_settings,
    first_date,
    load_world,
    make_world_of,
    other_overrides,
)
from pipelines.world_policies import ArmArgument, find_policy
from pipelines.world_truth import JudgedLift, judge_lifts, means_by_arm
from ranker.atomic import check_replaceable, replacing_folder, write_json, write_text
from ranker.config import digest, dump_yaml, load_config
from ranker.data.parquet import write_table
from ranker.experiment.analysis import ExperimentAnalysis, analyse
from ranker.experiment.outcomes_reading import outcomes_of
from ranker.experiment.world.days import Arm
from ranker.experiment.world.experiment import expect_experiment, run_experiment
from ranker.experiment.world.truth import true_means
from ranker.manifest import folder_digests, write_manifest
from ranker.report.content import Provenance
from ranker.report.experiment_page import ExperimentPage, render_experiment
from ranker.report.markup import Column, Html, escape, table
from ranker.report.panel import section

KIND = "simulation"


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Simulate an experiment in a world."""
    config = load_config(WorldExperimentConfig, arguments.config, other_overrides(arguments))
    settings = load_world(arguments.world, arguments.overrides)
    resolved = WorldExperiment(world=settings, experiment=config)
    if arguments.print_config:
        return print_config(resolved, console)
    output = require_output(arguments)
    check_replaceable(output, kind=KIND)
    check_columns(config)
    return _simulate(arguments, resolved, output, console)


def _simulate(
    arguments: argparse.Namespace, resolved: WorldExperiment, output: Path, console: Console
) -> int:
    settings, config = resolved.world, resolved.experiment
    arms = _arm_arguments(arguments, config)
    names = _names(arguments, arms)
    plan = experiment_settings(config, names, settings)
    analysing = analysis_settings(config, names, settings)
    world = make_world_of(settings)
    ranked = {
        name: Arm(
            policy=find_policy(world, arm, data=arguments.data, state=arguments.state),
            click_lift=lift,
        )
        for name, arm, lift in zip(names, arms, (0.0, config.click_lift), strict=True)
    }
    console.say(f"simulating {names[1]} against {names[0]}: {settings.num_users:,} users")
    jobs = arguments.jobs or os.cpu_count() or 1
    outcomes = run_experiment(world, ranked, settings=plan, jobs=jobs)
    analysis = analyse(outcomes_of(outcomes, analysing), analysing)
    console.say("computing the true lifts")
    expected = expect_experiment(world, ranked, settings=plan, jobs=jobs)
    judged = judge_lifts(
        analysis,
        everybody=true_means(world, ranked, settings=plan, jobs=jobs),
        split=means_by_arm(expected, start=first_date(config, settings)),
    )
    document, page = _said(resolved, names, arms, analysis, judged)
    _write(output, outcomes, document, page)
    report = output / "report.html"
    text = f"{describe(analysis, console)}\n\n{describe_truth(judged, console)}\n{report}"
    console.result(text, {"report": str(report), **document, "analysis": analysis.to_json()})
    return 0


def _said(
    resolved: WorldExperiment,
    names: tuple[str, str],
    arms: Sequence[ArmArgument],
    analysis: ExperimentAnalysis,
    judged: Sequence[JudgedLift],
) -> tuple[dict[str, object], ExperimentPage]:
    """What ``simulation.json`` holds, and the page."""
    simulated, real = _origins(resolved, names, arms)
    document: dict[str, object] = {
        "kind": "world",
        "control": names[0],
        "treatment": names[1],
        "seed": resolved.experiment.seed,
        "world_digest": digest(resolved.world),
        "simulated": simulated,
        "real": real,
        "lifts": [one.to_json() for one in judged],
    }
    page = ExperimentPage(
        title=f"Simulated: {names[1]} against {names[0]}",
        analysis=analysis,
        created_by=f"ranker {version('ranker')}",
        simulated=simulated,
        real=real,
        truth=_truth_section(judged),
        provenance=Provenance(config_yaml=dump_yaml(resolved)),
    )
    return document, page


def _truth_section(judged: Sequence[JudgedLift]) -> Html:
    """Estimates beside the truth, for the page."""
    titles = [
        "Metric",
        "True lift",
        "Expected of the split",
        "Read",
        "Interval",
        "Covers the truth",
    ]
    return section(
        "truth",
        "What is true in this world",
        "The *true lift* compares everybody under treatment with everybody under control; the one "
        "*expected of the split* takes the users as they were assigned.",
        table(
            caption="True and estimated lifts",
            columns=[Column(title=title, numeric=0 < i < 5) for i, title in enumerate(titles)],
            rows=[[escape(cell) for cell in row] for row in _truth_rows(judged)],
        ),
    )


def describe_truth(judged: Sequence[JudgedLift], console: Console) -> str:
    """Estimates beside the truth, as a table."""
    header = ["metric", "true lift", "expected of split", "read", "interval", "covers truth"]
    return console.table(header, _truth_rows(judged))


def _truth_rows(judged: Sequence[JudgedLift]) -> list[list[str]]:
    return [
        [
            one.metric,
            _percent(one.true_lift),
            _percent(one.split_lift),
            _percent(one.estimate),
            f"[{_percent(one.ci_low)}, {_percent(one.ci_high)}]",
            one.reason or ("yes" if one.covers else "no"),
        ]
        for one in judged
    ]


def _arm_arguments(
    arguments: argparse.Namespace, config: WorldExperimentConfig
) -> tuple[ArmArgument, ArmArgument]:
    end = config.first_day + config.num_days
    starts = {"control": config.first_day - config.pre_period_days, "treatment": config.first_day}
    control, treatment = (
        ArmArgument(
            role=role,
            text=getattr(arguments, role),
            weights=getattr(arguments, f"{role}_weights"),
            days=range(start, end),
        )
        for role, start in starts.items()
    )
    return control, treatment


def _names(arguments: argparse.Namespace, arms: Sequence[ArmArgument]) -> tuple[str, str]:
    """Names of the arms; two of the same ranking are told apart by their roles."""
    control, treatment = (getattr(arguments, f"{arm.role}_name") or arm.name for arm in arms)
    if control == treatment:
        return f"{control} (control)", f"{treatment} (treatment)"
    return control, treatment


def _origins(
    resolved: WorldExperiment, names: tuple[str, str], arms: Sequence[ArmArgument]
) -> tuple[list[str], list[str]]:
    """What was simulated and what is real, in sentences."""
    world, lift = resolved.world, resolved.experiment.click_lift
    simulated = [
        f"users, items, requests, candidate lists and everything users do, by a world of "
        f"{world.num_users:,} users and {world.num_items:,} items; its settings (digest "
        f"{digest(world)[:12]}) are inventions unless they were fitted to a log"
    ]
    if lift:
        simulated.append(f"{lift:+.2%} clicks, injected into the treatment")
    if world.interference:
        simulated.append(
            "interference: items shown to one arm are crowded for the other too, so that a split "
            "of users need not find the true lift"
        )
    real: list[str] = []
    for name, arm in zip(names, arms, strict=True):
        origins = simulated if arm.is_built_in else real
        origins.append(f"the ranking of {name} ({arm.origin})")
    return simulated, real or ["only the analysis, which is the one for live traffic"]


def _write(
    output: Path,
    outcomes: pa.Table,
    document: Mapping[str, object],
    page: ExperimentPage,
) -> None:
    """Write the whole folder, or nothing."""
    assert page.provenance is not None
    with replacing_folder(output, kind=KIND) as folder:
        write_table(folder / "outcomes.parquet", outcomes)
        write_json(folder / "simulation.json", document)
        write_json(folder / "analysis.json", page.analysis.to_json())
        write_text(folder / "config.yaml", page.provenance.config_yaml)
        write_text(folder / "analyze.yaml", dump_yaml(page.analysis.settings))
        write_text(folder / "report.html", render_experiment(page))
        manifest = {"kind": KIND, "created_by": page.created_by}
        write_manifest(folder, {**manifest, "files": folder_digests(folder)})


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"
