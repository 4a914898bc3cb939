"""``ranker doctor``: what this machine has, what is wrong with it, and which settings pay here."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.console import Console
from pipelines.environment import (
    SHOWN_PACKAGES,
    Environment,
    Problem,
    problems_of,
    read_environment,
)
from pipelines.exit_codes import EXIT_GATE

if TYPE_CHECKING:
    from ranker.training.machine_check import MachineCheck
    from ranker.training.step_trials import Timing

MAX_ROUNDS, BUDGET_S = 7, 12.0
QUICK_MAX_ROUNDS, QUICK_BUDGET_S = 3, 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--measure",
        choices=("full", "quick", "none"),
        default="full",
        help="training steps: full takes under a minute, quick leaves out torch.compile",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What torch finds: the GPU's name, or empty; and the C++ compiler for torch.compile."""

    gpu: str
    cpp_compiler: str


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Look, measure, recommend."""
    environment = read_environment(Path.cwd())
    problems = problems_of(environment)
    accelerator = Accelerator(gpu="", cpp_compiler="")
    try:
        accelerator, more = _look_with_torch(environment)
        problems += more
    except (ImportError, OSError) as error:
        text = f"torch can't be imported ({error}): make the virtual environment again"
        problems.append(Problem(text=text, fatal=True))
    unusable = any(problem.fatal for problem in problems)
    check = None
    if arguments.measure != "none" and not unusable:
        check = _measure(environment, console, quick=arguments.measure == "quick")
    lines = [*_fact_lines(environment, accelerator), *_problem_lines(problems)]
    if check is not None:
        lines += ["", *_measurement_lines(check, console), "", *_recommendation_lines(check)]
    values = {
        "environment": {**asdict(environment), **asdict(accelerator)},
        "problems": [asdict(problem) for problem in problems],
        "measured": None if check is None else _as_values(check),
        "recommended": None if check is None else recommended(check),
    }
    console.result("\n".join(lines), values)
    return EXIT_GATE if unusable else 0


def recommended(check: MachineCheck) -> dict[str, object]:
    """The keys of a training config to set, with their values."""
    return {key: v for key, v in asdict(check.recommendation).items() if v is not None}


def _look_with_torch(environment: Environment) -> tuple[Accelerator, list[Problem]]:
    import torch

    from ranker.training.gradients import cpp_compiler

    usable = torch.cuda.is_available()
    problems = []
    if environment.gpu_files and not usable:
        why = "is built without CUDA" if torch.version.cuda is None else "can't use it"
        text = f"there is a GPU, but this torch {why}: install the torch build for its driver"
        problems.append(Problem(text=text, fatal=False))
    gpu = torch.cuda.get_device_name() if usable else ""
    return Accelerator(gpu=gpu, cpp_compiler=cpp_compiler() or ""), problems


def _measure(environment: Environment, console: Console, *, quick: bool) -> MachineCheck:
    from ranker.training.machine_check import check_machine
    from ranker.training.trial_model import TrialSizes

    return check_machine(
        cores=environment.cores,
        sizes=TrialSizes(),
        compiles=not quick,
        max_rounds=QUICK_MAX_ROUNDS if quick else MAX_ROUNDS,
        budget_s=QUICK_BUDGET_S if quick else BUDGET_S,
        on_progress=lambda what: console.say(f"measuring: {what}"),
    )


def _fact_lines(environment: Environment, accelerator: Accelerator) -> list[str]:
    shown = [p for p in environment.packages if p.name in ("python", *SHOWN_PACKAGES)]
    others = len(environment.packages) - len(shown)
    cores = f"{environment.cores} of {environment.machine_cores} usable"
    return [
        *(f"{p.name:<17}  {p.version or 'missing'} (tested: {p.tested})" for p in shown),
        f"{'other packages':<17}  {others} looked at",
        f"{'cores':<17}  {cores}, load {environment.load:.1f}",
        f"{'memory':<17}  {environment.free_memory_gib:.1f} GiB free of "
        f"{environment.memory_gib:.1f} GiB",
        f"{'disk':<17}  {environment.free_disk_gib:.1f} GiB free at {environment.folder}",
        f"{'GPU':<17}  {accelerator.gpu or 'none'}",
        f"{'C++ compiler':<17}  {accelerator.cpp_compiler or 'none: compile_model needs one'}",
    ]


def _problem_lines(problems: Sequence[Problem]) -> list[str]:
    if not problems:
        return ["no problems found"]
    return [f"{'PROBLEM' if p.fatal else 'hint'}: {p.text}" for p in problems]


def _measurement_lines(check: MachineCheck, console: Console) -> list[str]:
    gflops = ", ".join(
        f"{speed:.0f} GFLOP/s with {threads} thread{'s' if threads > 1 else ''}"
        for threads, speed in check.sgemm_gflops.items()
    )
    baseline = check.timings[0]
    header = ("setting", "a step", "speed, of the first row's", "first step")
    return [
        f"matrix products (float32): {gflops}",
        f"training steps of {check.batch_rows:,} rows on {check.device}; baseline: threads: "
        f"{baseline.variant.threads}, whole batch, fp32, not compiled",
        console.table(header, [_row(timing, baseline) for timing in check.timings]),
        *(f"{t.variant.name} was left out: {t.left_out}" for t in check.timings if t.left_out),
        *_together_lines(check, console, header),
    ]


def _together_lines(check: MachineCheck, console: Console, header: Sequence[str]) -> list[str]:
    if not check.together:
        return []
    rows = [_row(timing, check.together[0]) for timing in check.together]
    return ["what pays, together, over the best alone:", console.table(header, rows)]


def _row(timing: Timing, baseline: Timing) -> tuple[str, str, str, str]:
    from ranker.training.step_trials import speedup

    name = timing.variant.name
    gain = speedup(timing, baseline)
    if gain is None:
        return name, "–", "left out", f"{timing.first_step_s:.1f} s"
    step = f"{1000 * statistics.median(timing.seconds):.0f} ms"
    speed = f"{gain.median:.2f} [{gain.low:.2f}, {gain.high:.2f}]"
    return name, step, speed, f"{timing.first_step_s:.1f} s"


def _recommendation_lines(check: MachineCheck) -> list[str]:
    if check.unsure:
        return [f"too busy to tell: {check.unsure}; try again when the machine is quiet"]
    keys = recommended(check)
    if not keys:
        return ["nothing was clearly faster than the baseline: keep your training config"]
    lines = ["faster by 5 % or more in every round; for the training config:"]
    lines += [f"  {line}" for line in yaml.safe_dump(keys, sort_keys=False).splitlines()]
    if "precision" in keys:
        lines.append("bf16 rounds: compare the metrics of both before you keep it")
    return lines


def _as_values(check: MachineCheck) -> dict[str, Any]:
    from ranker.training.step_trials import speedup

    def values(timings: Sequence[Timing]) -> list[dict[str, Any]]:
        return [
            {
                **asdict(timing),
                "speedup": None if (s := speedup(timing, timings[0])) is None else asdict(s),
            }
            for timing in timings
        ]

    return {
        "device": check.device,
        "batch_rows": check.batch_rows,
        "sgemm_gflops": {str(threads): speed for threads, speed in check.sgemm_gflops.items()},
        "steps": values(check.timings),
        "together": values(check.together),
        "unsure": check.unsure,
    }
