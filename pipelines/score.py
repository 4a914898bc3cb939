"""``ranker score``: candidate lists become slates."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.arguments import (
    add_config,
    non_negative,
    positive,
    print_config,
    require_output_parts,
    resolve,
)
from pipelines.console import Console
from pipelines.progress import ProgressBar
from ranker.config import ConfigError, load_config
from ranker.score_weights import ScoreWeights, check_score_weights
from ranker.scoring.score_config import ScoreConfig

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.scoring.job.job import Engine, JobResult
    from ranker.scoring.job.shard_counts import ScoreSummary
    from ranker.scoring.slates.exposure import SlateCounts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--candidates", type=Path, required=True, metavar="PATH", help="Parquet or folder"
    )
    parser.add_argument(
        "--score-weights", type=Path, metavar="FILE", help="instead of the bundle's"
    )
    parser.add_argument(
        "--keep-columns",
        metavar="A,B,C",
        help="the candidates' columns to copy into the slates, besides request, user, time and "
        "item; default: all",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="gets Parquet parts and a manifest",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a job that was interrupted"
    )
    parser.add_argument("--seed", type=non_negative, metavar="N")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray needs the extra 'ray'"
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="ray: shards at a time; default: its CPUs"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="ray: a cluster to join; default: one of its own"
    )
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Score candidate lists."""
    config = resolve(ScoreConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    output = require_output_parts(
        arguments, arguments.candidates, arguments.bundle, arguments.state
    )
    started = time.perf_counter()
    engine = choose_engine(arguments)

    from ranker.bundle import load_bundle
    from ranker.data.state import load_state
    from ranker.scoring.job.job import JobInputs, Watch, run_job

    bundle, source = load_bundle(arguments.bundle), load_state(arguments.state)
    inputs = JobInputs(
        bundle=arguments.bundle,
        state=arguments.state,
        candidates=arguments.candidates,
        output=output,
        score_weights=read_score_weights(bundle, arguments.score_weights),
        config=config,
        keep_columns=_names(arguments.keep_columns),
    )
    with ProgressBar(console, "plan") as planned, ProgressBar(console, "score") as scored:
        watch = Watch(planned=planned.update, scored=scored.update, say=console.say)
        result = run_job(inputs, bundle, source, engine, watch, resume=arguments.resume)
    seconds = time.perf_counter() - started
    console.result(
        describe(result, arguments.output, seconds=seconds), to_json(result, seconds=seconds)
    )
    return 0


def choose_engine(arguments: argparse.Namespace) -> Engine:
    """Who scores the shards.

    Raises:
        ConfigError: options of Ray without ``--engine ray``, or Ray is not installed.
    """
    if arguments.engine == "local":
        for name in ("workers", "ray_address"):
            if getattr(arguments, name) is not None:
                raise ConfigError(
                    f"--{name.replace('_', '-')} belongs to --engine ray; the local engine is one "
                    "process"
                )
        from ranker.scoring.job.local_engine import score_locally

        return score_locally
    from ranker.scoring.job.on_ray import RayEngine, require_ray

    require_ray()
    return RayEngine(workers=arguments.workers, address=arguments.ray_address)


def read_score_weights(bundle: ModelBundle, path: Path | None) -> ScoreWeights:
    """The weights of a file, or the bundle's; checked against the bundle's tasks."""
    weights = bundle.score_weights if path is None else load_config(ScoreWeights, path)
    try:
        check_score_weights(weights, tasks=bundle.schema.tasks)
    except ValueError as error:
        raise ConfigError(f"{path or 'the bundle'}: {error}") from None
    return weights


def to_json(result: JobResult, *, seconds: float) -> dict[str, Any]:
    """The summary, which stands in the manifest too, and what this run did and took."""
    return {
        **result.summary.to_json(),
        "run": {
            "shards": result.shards,
            "shards_kept": result.kept,
            "candidates_scored": result.scored,
            "seconds": seconds,
            "candidates_per_s": result.scored / max(seconds, 1e-9),
            "seconds_by_stage": result.seconds,
        },
    }


def describe(result: JobResult, output: Path, *, seconds: float) -> str:
    """A line on the slates, on their scores, on ids and rows the model can't tell, on time."""
    summary = result.summary
    lines = [
        f"{output}: {summary.shown:,} items in {summary.requests:,} slates, out of "
        f"{summary.candidates:,} candidates, in {seconds:.1f} s "
        f"({result.scored / max(seconds, 1e-9):,.0f}/s)"
    ]
    if result.kept:
        lines.append(f"  {result.kept:,} of {result.shards:,} shards had been finished before")
    lines += _data_lines(summary)
    stages = [f"{name} {spent:.1f}" for name, spent in result.seconds.items()]
    lines.append("  seconds by stage, some at the same time: " + ", ".join(stages))
    return "\n".join(lines)


def _data_lines(summary: ScoreSummary) -> list[str]:
    lines = []
    if summary.scores is not None:
        values = [f"{name} {value:.4g}" for name, value in summary.scores.items()]
        lines.append("  scores: " + ", ".join(values))
    lines += _slate_lines(summary.slates)
    if summary.unknown_or_null_ids:
        counts = [f"{name} {count:,}" for name, count in summary.unknown_or_null_ids.items()]
        lines.append("  unknown or null ids: " + ", ".join(counts))
    lines += [
        f"  {count:,} candidates have no row in the {owner} table"
        for owner, count in summary.rows_without_owner.items()
    ]
    return lines


def _slate_lines(slates: SlateCounts) -> list[str]:
    """What the constraints kept from being shown, if anything."""
    lines = []
    if slates.hidden_by_freshness:
        lines.append(f"  {slates.hidden_by_freshness:,} candidates hidden by freshness")
    if slates.short_slates:
        empty = f", {slates.empty_slates:,} of them empty" if slates.empty_slates else ""
        lines.append(
            f"  {slates.short_slates:,} slates are shorter than asked for{empty} "
            f"({slates.missing_items:,} items missing)"
        )
    return lines


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(n.strip() for n in text.split(",") if n.strip())
