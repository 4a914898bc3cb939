"""What all peers' scripts share: arguments, the log's description, a stopwatch, the files written.

A script is run by its peer's own interpreter, so nothing is imported here that not every
environment has. It imports this module before anything else: the stopwatch runs from then on.

    python run_NAME.py --data DIR --output DIR --batch 4096 [--limit-steps 40]

DIR of the data is what make_data.py wrote. OUTPUT gets timing.json and, unless the run was cut
short, predictions.parquet: user, item and time of every test row with a probability a task.
"""

import time

STARTED_S = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

WARM_UP_STEPS, MIN_STEPS = 5, 8
TRAIN_DAYS = 8
KEYS = ["user_id", "item_id", "time_ms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The MMoE every peer builds for a workload; experts and linear gates sit on the input."""

    embedding_width: int
    num_experts: int
    expert_widths: tuple[int, ...]
    tower_widths: tuple[int, ...]
    rate: float = 1e-3


MODEL_SIZES = {
    "a": ModelSize(embedding_width=16, num_experts=8, expert_widths=(256, 128), tower_widths=(64,)),
    "b": ModelSize(embedding_width=32, num_experts=4, expert_widths=(64,), tower_widths=(64,)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """How a script is run.

    Attributes:
        limit_steps: a peer stops after so many steps; 0 = one whole pass, then predictions.
        train_days: our own scripts train on the last so many of the eight train days.
        overrides: of our own config, KEY=VALUE; peers have none.
    """

    data: Path
    output: Path
    batch: int
    threads: int
    seed: int
    limit_steps: int
    train_days: int
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a user knows of the log: its columns, the split, the model wanted."""

    categorical: list[str]
    numeric: list[str]
    tasks: list[str]
    validation_from_ms: int
    test_from_ms: int
    size: ModelSize


class StepLimitError(Exception):
    """Raised out of a peer's training loop once enough steps have been timed."""


class Stopwatch:
    """Seconds since the script's first statement, by event, and the time of every step."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._seconds_by_event: dict[str, float] = {}
        self._step_times_s: list[float] = []
        self._optimizer: object = None

    def mark(self, event: str) -> None:
        """Note that ``event`` has just happened."""
        self._seconds_by_event[event] = time.perf_counter() - STARTED_S

    def watch_steps(self) -> None:
        """Note the time after every step of the first torch optimizer; raise at the limit."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(lambda optimizer, *_: self._after(optimizer))

    def step(self) -> None:
        """Note the time after a step; raise at the limit."""
        self._step_times_s.append(time.perf_counter() - STARTED_S)
        if len(self._step_times_s) == self._arguments.limit_steps:
            raise StepLimitError

    def save(self, *, rows: int) -> None:
        """Write timing.json; a run that was not cut short trained on ``rows`` rows.

        ``examples_per_s`` leaves out the first steps (five, or a quarter of a shorter run), and
        everything before and after the steps: reading, encoding, validation.
        """
        times, batch = self._step_times_s, self._arguments.batch
        timing: dict[str, float | int | None] = {
            f"{event}_s": seconds for event, seconds in self._seconds_by_event.items()
        }
        timing["steps"] = len(times)
        if times:
            timing["first_step_s"], timing["trained_s"] = times[0], times[-1]
        if len(times) >= MIN_STEPS:
            warm = min(WARM_UP_STEPS, len(times) // 4)
            cut_short = len(times) == self._arguments.limit_steps
            examples = (len(times) * batch if cut_short else rows) - warm * batch
            timing["examples_per_s"] = examples / (times[-1] - times[warm - 1])
        timing["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        text = json.dumps(timing, indent=1) + "\n"
        (self._arguments.output / "timing.json").write_text(text)

    def _after(self, optimizer: object) -> None:
        self._optimizer = self._optimizer or optimizer
        if optimizer is self._optimizer:  # a step with two optimizers counts once
            self.step()


def parse_arguments() -> Arguments:
    """Read the command line; the output folder is made."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-steps", type=int, default=0)
    parser.add_argument("--train-days", type=int, default=TRAIN_DAYS)
    parser.add_argument("--override", action="append", default=[], dest="overrides")
    arguments = Arguments(**vars(parser.parse_args()))
    arguments.output.mkdir(parents=True, exist_ok=True)
    return arguments


def describe(folder: Path) -> Description:
    """Read what make_data.py says of the log."""
    document = json.loads((folder / "data.json").read_text())
    return Description(
        categorical=document["categorical"],
        numeric=document["numeric"],
        tasks=[task["name"] for task in document["tasks"]],
        validation_from_ms=document["validation_from_ms"],
        test_from_ms=document["test_from_ms"],
        size=MODEL_SIZES[document["workload"]],
    )


def split_bounds(time_ms: pd.Series, description: Description) -> tuple[int, int]:
    """The first validation row and the first test row of a log in time order."""
    first = np.searchsorted(
        time_ms.to_numpy(), [description.validation_from_ms, description.test_from_ms]
    )
    return int(first[0]), int(first[1])


def save_predictions(arguments: Arguments, predictions: np.ndarray) -> None:
    """Write the probabilities [N, K] of all test rows, tasks in the description's order."""
    log = describe(arguments.data)
    table = pd.read_parquet(arguments.data / "log.parquet", columns=KEYS)
    table = table[split_bounds(table["time_ms"], log)[1] :].reset_index(drop=True)
    for number, task in enumerate(log.tasks):
        table[task] = predictions[:, number].astype(np.float64)
    table.to_parquet(arguments.output / "predictions.parquet", index=False)
