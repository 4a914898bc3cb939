"""What a machine can do for training, measured: threads, micro-batches, bfloat16, torch.compile.

A setting is recommended only where it was clearly faster in every round, and nothing is where the
rounds disagree too much.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ranker.training.gradients import PLAIN, Precision, StepSettings
from ranker.training.step_trials import StepTrials, Timing, Variant, speedup
from ranker.training.trial_model import TrialSizes

CLEARLY_FASTER = 1.05
MIN_ROUNDS = 3
MICRO_BATCHES = (256, 512, 1024)
_UNSTEADY = 1.3
_MATRIX_ROWS = 2048  # three matrices of 16 MiB: larger than most caches
_PRODUCTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Settings of a `ranker.training.settings.TrainConfig`; None: keep what you have."""

    threads: int | None = None
    micro_batch_rows: int | None = None
    precision: Precision | None = None
    compile_model: bool | None = None


NOTHING = Recommendation()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCheck:
    """What was measured, and what follows.

    Attributes:
        device: ``cpu`` or ``cuda``, where the steps ran.
        batch_rows: rows of a step.
        sgemm_gflops: threads -> sustained speed of float32 matrix products on the processor.
        timings: the baseline first.
        together: the settings that pay, combined, beside the best of them alone; empty if there
            are less than two.
        unsure: why nothing is recommended though something may pay; empty if measurements agree.
    """

    device: str
    batch_rows: int
    sgemm_gflops: dict[int, float]
    timings: tuple[Timing, ...]
    together: tuple[Timing, ...]
    unsure: str
    recommendation: Recommendation


def check_machine(
    *,
    cores: int,
    sizes: TrialSizes,
    compiles: bool,
    max_rounds: int,
    budget_s: float,
    on_progress: Callable[[str], None] = lambda _: None,
) -> MachineCheck:
    """Measure training steps on the GPU if there is one, else on the processor.

    Args:
        cores: the most threads to use.
        sizes: of the model that is timed.
        compiles: also try torch.compile, which alone takes half a minute on a small machine.
        max_rounds, budget_s, on_progress: see `ranker.training.step_trials.StepTrials.run`.
    """
    load = os.getloadavg()[0]  # before we add to it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_progress("matrix products")
    gflops = {threads: sgemm_gflops(threads=threads) for threads in sorted({1, cores})}
    trials = StepTrials(sizes, device=device, rng=np.random.default_rng(0))
    measured = partial(
        trials.run, max_rounds=max_rounds, budget_s=budget_s, on_progress=on_progress
    )
    variants = variants_for(device, cores=cores, batch_rows=sizes.batch_rows)
    timings = measured([v for v in variants if compiles or not v.step.compile_model])
    unsure = reason_for_doubt(timings[0], load=load, cores=cores)
    pays = [] if unsure else [timing.variant for timing in what_pays(timings)]
    together = measured([pays[0], combined(pays)]) if len(pays) > 1 else ()
    return MachineCheck(
        device=device.type,
        batch_rows=sizes.batch_rows,
        sgemm_gflops=gflops,
        timings=timings,
        together=together,
        unsure=unsure,
        recommendation=NOTHING if unsure else recommend(timings, together),
    )


def sgemm_gflops(*, threads: int) -> float:
    """Median speed of float32 products of square matrices, in GFLOP/s, after one to warm up."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.rand(_MATRIX_ROWS, _MATRIX_ROWS), torch.rand(_MATRIX_ROWS, _MATRIX_ROWS)
    out = torch.empty_like(a)
    seconds = []
    for _ in range(1 + _PRODUCTS):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * _MATRIX_ROWS**3 / statistics.median(seconds[1:]) / 1e9


def variants_for(device: torch.device, *, cores: int, batch_rows: int) -> tuple[Variant, ...]:
    """The baseline, then one change each: all threads, the whole batch, float32, not compiled."""
    changes = {
        f"micro_batch_rows: {rows}": StepSettings(micro_batch_rows=rows)
        for rows in MICRO_BATCHES
        if rows < batch_rows
    }
    changes["precision: bf16"] = StepSettings(precision="bf16")
    changes["compile_model: true"] = StepSettings(compile_model=True)
    few = [Variant(name="threads: 1", threads=1, step=PLAIN)]
    return (
        Variant(name="baseline", threads=cores, step=PLAIN),
        *(few if cores > 1 and device.type == "cpu" else []),
        *(Variant(name=name, threads=cores, step=step) for name, step in changes.items()),
    )


def reason_for_doubt(baseline: Timing, *, load: float, cores: int) -> str:
    """Why the machine is too busy to tell; empty if it is not.

    Args:
        baseline: the same step in every round.
        load: processes that ran or waited to, on average over the minute before.
        cores: that they share with us.
    """
    if load > cores:
        return f"{load:.1f} programs at a time wanted the {cores} usable cores in the last minute"
    rounds = len(baseline.seconds)
    if rounds < MIN_ROUNDS:
        return f"there was time for {rounds} of {MIN_ROUNDS} rounds only"
    fastest, slowest = min(baseline.seconds), max(baseline.seconds)
    if slowest > _UNSTEADY * fastest:
        return f"the same step took {fastest:.3g} s in one round and {slowest:.3g} s in another"
    return ""


def is_clearly_faster(timing: Timing, baseline: Timing) -> bool:
    """True if it was faster by 5 % in every round, of which there were enough."""
    gain = speedup(timing, baseline)
    return gain is not None and gain.low >= CLEARLY_FASTER and len(timing.seconds) >= MIN_ROUNDS


def what_pays(timings: Sequence[Timing]) -> list[Timing]:
    """Those clearly faster than the first: for each setting the best value, fastest first."""
    baseline, *others = timings
    faster = [timing for timing in others if is_clearly_faster(timing, baseline)]
    faster.sort(key=lambda timing: statistics.median(timing.seconds))
    best: dict[tuple[bool, ...], Timing] = {}
    for timing in faster:
        best.setdefault(_changed(timing.variant, baseline.variant), timing)
    return list(best.values())


def combined(variants: Sequence[Variant]) -> Variant:
    """All their changes at once; no two change the same setting."""
    steps = [variant.step for variant in variants]
    return Variant(
        name=", ".join(variant.name for variant in variants),
        threads=min(variant.threads for variant in variants),
        step=StepSettings(
            micro_batch_rows=max(step.micro_batch_rows for step in steps),
            precision="bf16" if any(step.precision == "bf16" for step in steps) else "fp32",
            compile_model=any(step.compile_model for step in steps),
        ),
    )


def recommend(timings: Sequence[Timing], together: Sequence[Timing]) -> Recommendation:
    """What `MachineCheck` recommends, from its ``timings`` and ``together``."""
    baseline = timings[0]
    best = next(iter(what_pays(timings)), baseline)
    if together and is_clearly_faster(together[1], together[0]):
        best = together[1]
    step = best.variant.step
    recommendation = Recommendation(
        micro_batch_rows=step.micro_batch_rows or None,
        precision=None if step.precision == "fp32" else step.precision,
        compile_model=step.compile_model or None,
    )
    threads = best.variant.threads
    alone = next((t for t in timings if t.variant.threads < baseline.variant.threads), None)
    all_pay = alone is not None and (alone.left_out or is_clearly_faster(baseline, alone))
    if threads < baseline.variant.threads or all_pay:
        recommendation = replace(recommendation, threads=threads)
    return recommendation


def _changed(variant: Variant, baseline: Variant) -> tuple[bool, ...]:
    """Which settings differ."""
    return (
        variant.threads != baseline.threads,
        variant.step.micro_batch_rows != baseline.step.micro_batch_rows,
        variant.step.precision != baseline.step.precision,
        variant.step.compile_model != baseline.step.compile_model,
    )
