"""Training steps timed side by side under several settings.

All variants train one model on one batch in turn, so that a machine that gets slower while it is
watched slows them all. How long a step takes hardly depends on the weights, so they can share them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from ranker.config import ConfigError
from ranker.data.batch import Batch
from ranker.data.loader import slice_batch
from ranker.training.gradients import GradientPass, StepSettings
from ranker.training.objective import observed_rows
from ranker.training.optimizers import OptimizerConfig, build_optimizers
from ranker.training.trial_model import BASE_RATES, TrialSizes, trial_batch, trial_model

_TRIAL_S = 0.2  # shorter steps are repeated: clock and scheduler have their grain
_FIRST_TRY_PART = 16
_HOPELESS_RATIO, _HOPELESS_STEP_S = 3.0, 2.0  # both: such a variant would use up the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to compute a training step."""

    name: str
    threads: int
    step: StepSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a variant took.

    Attributes:
        seconds: of a step, round by round; a round times all variants one after another. Empty if
            the variant was left out.
        first_step_s: of the very first step, on a part of the batch; compiling is part of it.
        left_out: why it was not timed; empty if it was.
    """

    variant: Variant
    seconds: tuple[float, ...]
    first_step_s: float
    left_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """A variant's speed over another's: median of the rounds' ratios, smallest and largest."""

    median: float
    low: float
    high: float


def speedup(timing: Timing, baseline: Timing) -> Speedup | None:
    """How many times as fast as ``baseline`` in the same rounds; None if either was left out."""
    if not timing.seconds or not baseline.seconds:
        return None
    ratios = [b / s for s, b in zip(timing.seconds, baseline.seconds, strict=True)]
    return Speedup(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


class StepTrials:
    """Times variants on a model of its own."""

    def __init__(
        self, sizes: TrialSizes, *, device: torch.device, rng: np.random.Generator
    ) -> None:
        self._model = trial_model(sizes).to(device)
        self._batch = trial_batch(sizes, rng=rng).to(device)
        self._optimizers = build_optimizers(self._model, OptimizerConfig())
        self._gradients: dict[StepSettings, GradientPass] = {}

    def run(
        self,
        variants: Sequence[Variant],
        *,
        max_rounds: int,
        budget_s: float,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> tuple[Timing, ...]:
        """Time ``variants`` in rounds, each beginning with another one; torch's threads are kept.

        Args:
            variants: the first is the baseline, which must work.
            max_rounds: no more rounds than this.
            budget_s: of the rounds; after the first none begins that would end later.
            on_progress: told what is being done.

        Raises:
            ConfigError: the baseline doesn't work here.
        """
        with _threads_kept():
            tried = self._first_tries(variants, on_progress)
            timed = [timing.variant for timing in tried if not timing.left_out]
            for variant in timed:
                self._step(variant, self._batch)
            rounds: list[dict[str, float]] = []
            until = time.perf_counter() + budget_s
            while len(rounds) < max_rounds:
                on_progress(f"round {len(rounds) + 1}")
                started = time.perf_counter()
                first = len(rounds) % len(timed)
                order = (*timed[first:], *timed[:first])
                rounds.append({variant.name: self._trial(variant) for variant in order})
                now = time.perf_counter()
                if now + (now - started) > until:
                    break
        seconds = {v.name: tuple(taken[v.name] for taken in rounds) for v in timed}
        return tuple(replace(t, seconds=seconds.get(t.variant.name, ())) for t in tried)

    def _first_tries(
        self, variants: Sequence[Variant], on_progress: Callable[[str], None]
    ) -> list[Timing]:
        """Two steps of each on a part of the batch; what fails or hardly moves is left out."""
        rows = max(2, self._batch.num_rows // _FIRST_TRY_PART)
        part = slice_batch(self._batch, 0, rows)
        tried: list[Timing] = []
        baseline_s = float("inf")
        for variant in variants:
            on_progress(f"first steps: {variant.name}")
            first_s, left_out = 0.0, ""
            try:
                first_s = self._step(variant, part)
                second_s = self._step(variant, part)
            except ConfigError as error:
                if not tried:
                    raise
                left_out = str(error)
            else:
                baseline_s = baseline_s if tried else second_s
                ratio, whole_s = second_s / baseline_s, second_s * self._batch.num_rows / rows
                if ratio > _HOPELESS_RATIO and whole_s > _HOPELESS_STEP_S:
                    left_out = f"{ratio:.0f} times slower in a first try of {rows} rows"
            tried.append(
                Timing(variant=variant, seconds=(), first_step_s=first_s, left_out=left_out)
            )
        return tried

    def _trial(self, variant: Variant) -> float:
        """Mean seconds of a step, of as many as take a while."""
        total_s, steps = 0.0, 0
        while total_s < _TRIAL_S:
            total_s += self._step(variant, self._batch)
            steps += 1
        return total_s / steps

    def _step(self, variant: Variant, batch: Batch) -> float:
        """Seconds of one training step."""
        if torch.get_num_threads() != variant.threads:
            torch.set_num_threads(variant.threads)
        if variant.step not in self._gradients:
            self._gradients[variant.step] = GradientPass(
                self._model, loss_weights=dict.fromkeys(BASE_RATES, 1.0), settings=variant.step
            )
        started = time.perf_counter()
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        self._gradients[variant.step].add(batch, observed=observed_rows(batch.labels))
        for optimizer in self._optimizers:
            optimizer.step()
        if next(self._model.parameters()).is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Inside, torch's threads may be set; afterwards they are what they were."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
