"""``ranker simulate --like LOG``: a world fitted to a log, and how close it came."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from pydantic import Field

from pipelines.arguments import print_config, read_schema, require_output
from pipelines.console import Console
from pipelines.world_config import load_world, other_overrides
from ranker.atomic import check_replaceable, replacing_folder, write_json, write_text
from ranker.config import Config, ConfigError, dump_yaml, load_config
from ranker.data.parquet import DataError
from ranker.data.problems import ProblemLog
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time
from ranker.data.tables import stream_log
from ranker.experiment.world.calibrate import Closeness, fit_to
from ranker.experiment.world.log_rows import WORLD_TASKS, match_tasks, rows_of_tables
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.summary import LogSummary, summarise
from ranker.manifest import folder_digests, write_manifest
from ranker.schema import Schema

CLOSE = 0.1  # a statistic further off than this is named as not met
SORT_ROWS = 1_000_000  # held in memory; equal rows are found by sorting
NEVER_FITTED = (
    "never fitted: candidate lists, the logging policy's randomness, tastes and topics, devices, "
    "novelty, interference, and what satisfaction does to coming back"
)
NOT_IN_WORLD = "in the world nobody watches or likes without a click, whatever the log says"

KIND = "fitted world"


class LikeConfig(Config):
    """How to fit.

    Attributes:
        seed: of the fitted world.
        max_users: of the worlds played on the way; more is slower and sharper.
    """

    seed: int = Field(default=0, ge=0)
    max_users: int = Field(default=4_000, ge=50)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Fit a world to a log."""
    config = load_config(LikeConfig, arguments.config, other_overrides(arguments))
    if arguments.print_config:
        return print_config(config, console)
    output = require_output(arguments)
    check_replaceable(output, kind=KIND)
    schema = read_schema(arguments.schema)
    # The world's file must be right before the log is read.
    load_world(arguments.world, arguments.overrides)
    summary, problems, duplicates = _summarise(arguments.like, schema)
    console.say(f"fitting a world to {summary.num_impressions:,} impressions")
    start = _start(arguments, config, summary)
    try:
        fitted, closeness = fit_to(summary, start, max_users=config.max_users)
    except ValueError as error:
        raise ConfigError(f"no world like {arguments.like} was found: {error}") from None
    notes = [*_absent(summary, schema), *_not_met(closeness), NEVER_FITTED, NOT_IN_WORLD]
    if problems.bad_rows:
        notes.append(f"{problems.bad_rows:,} bad rows of the log were left out")
    if duplicates.rows:
        notes.append(f"{duplicates.rows:,} exact duplicates of the log were dropped")
    document = {
        "log": summary.model_dump(mode="json"),
        "exact_duplicates": duplicates.rows,
        "closeness": [{**asdict(one), "relative_error": one.relative_error} for one in closeness],
        "notes": notes,
    }
    with replacing_folder(output, kind=KIND) as folder:
        write_text(folder / "world.yaml", dump_yaml(fitted))
        write_json(folder / "closeness.json", document)
        manifest = {"kind": KIND, "created_by": f"ranker {version('ranker')}"}
        write_manifest(folder, {**manifest, "files": folder_digests(folder)})
    world_file = output / "world.yaml"
    lines = [describe(closeness, console), *(f"- {note}" for note in notes), str(world_file)]
    console.result("\n".join(lines), {"world": str(world_file), **document})
    return 0


def _summarise(log: Path, schema: Schema) -> tuple[LogSummary, ProblemLog, DuplicateCount]:
    """The log's statistics, what is wrong with its bad rows, and what `prepare` would drop."""
    problems, duplicates = ProblemLog(), DuplicateCount()
    tables = stream_log(log, schema, problems=problems, quarantine=lambda _: None)
    try:
        with tempfile.TemporaryDirectory(prefix="ranker-like-") as spill:
            rows = sort_by_time(
                (Arrival(rows=table) for table in tables),
                spill=Path(spill),
                run_rows=SORT_ROWS,
                duplicates=duplicates,
            )
            summary = summarise(rows_of_tables(rows, schema))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{log}: {error} ({problems.bad_rows:,} bad rows)") from None
    return summary, problems, duplicates


def describe(closeness: Sequence[Closeness], console: Console) -> str:
    """Statistic by statistic, as a table."""
    rows = [
        [
            one.statistic,
            f"{one.log:.4g}",
            f"{one.world:.4g}",
            _off_text(one),
            "fitted" if one.fitted else "came out so",
        ]
        for one in closeness
    ]
    return console.table(["statistic", "log", "world", "off by", ""], rows)


def _start(arguments: argparse.Namespace, config: LikeConfig, summary: LogSummary) -> WorldSettings:
    """Where to start: a given world, or the defaults in the log's size."""
    overrides = [f"world.seed={config.seed}", *arguments.overrides]
    if arguments.world is None:
        count = max(WorldSettings().candidates.count, round(summary.impressions_per_request))
        overrides = [
            f"world.num_users={summary.num_users}",
            # three fifths of them exist on the first day, and have to fill a candidate list
            f"world.num_items={max(summary.num_items, 2 * count + 2)}",
            f"world.num_days={summary.num_days}",
            *overrides,
        ]
    return load_world(arguments.world, overrides)


def _absent(summary: LogSummary, schema: Schema) -> list[str]:
    """What the log can't tell, in sentences."""
    tasks = match_tasks(schema)
    notes = [
        f"the log has no task like {task!r}: "
        + ("the world asks nobody" if task == "rating" else "its settings are as they were given")
        for task in WORLD_TASKS
        if task not in tasks
    ]
    if summary.ctr_by_position is None:
        notes.append("the log has no positions: how far down users look is as it was given")
    if schema.log.request is None:
        what = "one day" if schema.list_by == "user_window" else "one time stamp"
        notes.append(f"the log has no requests: a slate is what a user was shown in {what}")
    if summary.items.correlation is None:
        notes.append("too few clicks and likes by item: the conflict is as it was given")
    return notes


def _not_met(closeness: Sequence[Closeness]) -> list[str]:
    """Statistics that the world misses, in a sentence."""
    missed = [one.statistic for one in closeness if abs(_off(one)) > CLOSE]
    said = f"off by more than {CLOSE:.0%} (correlations: by more than {CLOSE:g})"
    return [f"{said}: {', '.join(missed)}"] if missed else []


def _off(one: Closeness) -> float:
    """Relative, but not for correlations, most of which are near 0."""
    difference = one.world - one.log
    return difference if _is_absolute(one) else difference / abs(one.log)


def _off_text(one: Closeness) -> str:
    return f"{_off(one):+.3f}" if _is_absolute(one) else f"{_off(one):+.1%}"


def _is_absolute(one: Closeness) -> bool:
    return one.log == 0 or one.statistic.startswith("correlation")
