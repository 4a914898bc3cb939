"""``ranker simulate``: two arms rank the same candidate lists, and something answers for the users.

With --candidates a response model does. Semi-synthetic: users, requests, candidates and features
are real, outcomes are drawn. With --world a world with known truth does (`simulate_world`), which
can also write a log (`world_log`), or be fitted to one (`world_like`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines.arguments import (
    add_config,
    local_date,
    non_negative,
    positive,
    print_config,
    require_output_folder,
    resolve,
)
from pipelines.arms import ArmScores, CandidateColumns, arm_scores
from pipelines.console import Console
from pipelines.simulate_forms import FILES, LIKE, WORLD, WORLD_LOG
from ranker.config import Config, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ranker.data.features import ColumnArray
    from ranker.data.store import EncodedStore
    from ranker.experiment.lift import Lift
    from ranker.experiment.response import LoggedImpressions
    from ranker.experiment.simulation_result import SimulationResult
    from ranker.schema import Schema, TaskSpec


class SimulateConfig(Config):
    """The experiment; see `ranker.experiment.simulation_result.SimulationSettings`.

    Attributes:
        examination_eta: an item at rank r is examined with the *assumed* probability r**-eta.
        metrics: the tasks whose outcomes are drawn; empty = all.
        response_iterations, response_rows: size of the response model's boosting and training set.
    """

    seed: int = Field(default=0, ge=0)
    salt: str = Field(default="simulate", pattern="^[^:]+$")
    share_treatment: float = Field(default=0.5, gt=0, lt=1)
    slate_size: int = Field(default=10, ge=1)
    examination_eta: float = Field(default=0.5, ge=0)
    metrics: tuple[str, ...] = ()
    num_refits: int = Field(default=20, ge=2)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    response_iterations: int = Field(default=40, ge=1)
    response_rows: int = Field(default=20_000, ge=100)
    chunk_rows: int = Field(default=100_000, ge=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    files = parser.add_argument_group("in real requests, with drawn outcomes")
    files.add_argument("--data", type=Path, metavar="DIR", help="prepared data")
    files.add_argument("--state", type=Path, metavar="DIR")
    files.add_argument("--candidates", type=Path, metavar="PATH", help="Parquet")
    files.add_argument(
        "--before",
        type=local_date,
        metavar="DATE",
        help="the response model learns from before it",
    )
    world = parser.add_argument_group("in a world with known truth (docs/world.md)")
    world.add_argument("--world", type=Path, metavar="FILE", help="YAML; see configs/world")
    world.add_argument(
        "--write-log", type=Path, metavar="DIR", help="write the world's log and candidate lists"
    )
    world.add_argument("--jobs", type=positive, metavar="N", help="at a time; default: the cores")
    world.add_argument("--like", type=Path, metavar="LOG", help="fit a world to this log")
    world.add_argument("--schema", type=Path, metavar="FILE", help="of the log to be like")
    for arm in ("control", "treatment"):
        parser.add_argument(
            f"--{arm}",
            metavar="ARM",
            help="bundle, or Parquet of scores or slates; in a world also a policy's name",
        )
        parser.add_argument(
            f"--{arm}-weights", type=Path, metavar="FILE", help="score weights of a bundle"
        )
        parser.add_argument(f"--{arm}-name", metavar="NAME")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="gets simulation.json, or a world's files; required, but for --write-log",
    )
    parser.add_argument("--seed", type=non_negative, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Simulate an A/B comparison, or make a world for it."""
    if arguments.like is not None:
        from pipelines.world_like import run as run_like

        LIKE.check(arguments)
        return run_like(arguments, console)
    if arguments.write_log is not None:
        from pipelines.world_log import run as run_log

        WORLD_LOG.check(arguments)
        return run_log(arguments, console)
    if arguments.world is not None:
        from pipelines.simulate_world import run as run_world

        WORLD.check(arguments)
        return run_world(arguments, console)
    FILES.check(arguments)
    return _run_files(arguments, console)


def _run_files(arguments: argparse.Namespace, console: Console) -> int:
    config = resolve(SimulateConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    from pipelines.requests import check_candidate_lists
    from ranker.atomic import write_json
    from ranker.data.intact import open_intact_store
    from ranker.data.state import load_state
    from ranker.data.tables import read_requests

    output = require_output_folder(arguments)
    store, source = open_intact_store(arguments.data), load_state(arguments.state)
    candidates = read_requests(arguments.candidates, store.schema, content="candidates")
    check_candidate_lists(candidates, store.schema, str(arguments.candidates))
    table = CandidateColumns(store, source, candidates, config.chunk_rows)
    arms = [
        arm_scores(
            table,
            Path(getattr(arguments, arm)),
            getattr(arguments, f"{arm}_weights"),
            name=getattr(arguments, f"{arm}_name"),
            role=arm,
            slate_size=config.slate_size,
        )
        for arm in ("control", "treatment")
    ]
    console.say(f"simulating {arms[1].name} against {arms[0].name}")
    result = simulate_arms(table, arms, arguments.before, config)
    write_json(output / "simulation.json", result.to_json())
    console.result(describe(result, console), result.to_json())
    return 0


def simulate_arms(
    table: CandidateColumns,
    arms: Sequence[ArmScores],
    before: str,
    config: SimulateConfig,
) -> SimulationResult:
    """Run the experiment."""
    from pipelines.requests import request_codes
    from ranker.data.windows import local_midnight_ms
    from ranker.experiment.outcomes import power_examination
    from ranker.experiment.policy import JudgedCandidates, ScoredArm
    from ranker.experiment.response import ResponseSettings
    from ranker.experiment.simulate import simulate
    from ranker.experiment.simulation_result import SimulationSettings

    schema = table.store.schema
    names = tuple(f.name for f in schema.all_features if f.kind == "numeric")
    lists = JudgedCandidates(
        requests=request_codes(table.candidates, schema),
        users=_plain_ids(table.candidates.column("user")),
        items=_plain_ids(table.candidates.column("item")),
        features=_matrix(table.columns, names),
        feature_names=names,
    )
    return simulate(
        candidates=lists,
        control=ScoredArm(name=arms[0].name, scores=arms[0].scores),
        treatment=ScoredArm(name=arms[1].name, scores=arms[1].scores),
        log=logged_impressions(table.store, before, names),
        tasks=metric_tasks(schema, config),
        test_start_ms=local_midnight_ms(before, schema),
        examination=power_examination(eta=config.examination_eta, num_ranks=config.slate_size),
        settings=SimulationSettings(
            slate_size=config.slate_size,
            salt=config.salt,
            share_treatment=config.share_treatment,
            num_refits=config.num_refits,
            confidence=config.confidence,
            seed=config.seed,
            response=ResponseSettings(
                max_iter=config.response_iterations, max_training_rows=config.response_rows
            ),
        ),
    )


def logged_impressions(
    store: EncodedStore, before: str, names: tuple[str, ...]
) -> LoggedImpressions:
    """What the response model learns from: rows before the local date ``before``.

    Raises:
        DataError: there are none.
    """
    import numpy as np

    from ranker.data.parquet import DataError
    from ranker.data.windows import local_midnight_ms
    from ranker.experiment.response import LoggedImpressions

    # by the clock: a long window may begin before the date and end after it
    before_ms = local_midnight_ms(before, store.schema)
    span = slice(0, int(np.searchsorted(store.column("time_ms"), before_ms)))
    if span.stop == 0:
        raise DataError(f"{store.folder}: no rows before {before} to learn responses from")
    columns = {f"feature.{n}": np.asarray(store.column(f"feature.{n}")[span]) for n in names}
    user_index = np.asarray(store.column("user")[span], dtype=np.int64)
    return LoggedImpressions(
        features=_matrix(columns, names),
        feature_names=names,
        labels={
            task.name: np.asarray(store.column(f"label.{task.name}")[span], dtype=np.float64)
            for task in store.schema.tasks
        },
        users=_plain_ids(store.encoders.vocabularies["user"].decode(user_index)),
        times_ms=np.asarray(store.column("time_ms")[span], dtype=np.int64),
    )


def metric_tasks(schema: Schema, config: SimulateConfig) -> list[TaskSpec]:
    """The tasks to measure, with the tasks they are conditional on.

    Raises:
        ConfigError: an unknown task.
    """
    known = {task.name: task for task in schema.tasks}
    for name in config.metrics:
        if name not in known:
            raise ConfigError(f"metrics: {name!r} is not one of {list(known)}")
    names = dict.fromkeys(config.metrics or known)
    for name in list(names):
        condition = known[name].conditional_on
        if condition is not None:
            names[condition] = None
    return [known[name] for name in names]


def describe(result: SimulationResult, console: Console) -> str:
    """Both kinds of lift as a table, under the label that they need.

    The lift of the split is what one live test of this size would read, luck of its users and
    outcomes included; the expected lift gives both arms to all users and draws nothing.
    """
    rows = [
        [split.metric, split.family, _shown(split), _shown(expected), str(split.verdict.value)]
        for split, expected in zip(result.lifts, result.expected_lifts, strict=True)
    ]
    head = f"{result.label}: {result.treatment} against {result.control}"
    header = ["metric", "family", "lift (split users)", "expected lift (all users)", "verdict"]
    return f"{head}\n" + console.table(header, rows)


def _shown(lift: Lift) -> str:
    if lift.lift is None or lift.ci_low is None or lift.ci_high is None:
        return f"– ({lift.reason})"
    return f"{lift.lift:+.2%} [{lift.ci_low:+.2%}, {lift.ci_high:+.2%}]"


def _matrix(columns: dict[str, ColumnArray], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.stack([columns[f"feature.{name}"].astype(np.float32) for name in names], axis=1)


def _plain_ids(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64] | npt.NDArray[np.str_]:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(values.type):
        return np.asarray(values.to_pylist(), dtype=np.str_)
    return np.asarray(
        values.to_numpy(zero_copy_only=False)
        if isinstance(values, pa.Array)
        else values.to_numpy(),
        dtype=np.int64,
    )
