"""Predictors behind one protocol: what turns candidate rows into predictions, by several routes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ranker.bundle import ModelBundle
from ranker.data.features import FeatureSource
from ranker.scoring.factorised.factorised import FactorisedPredictor
from ranker.scoring.predict import ScoringCounts
from ranker.scoring.runtimes.forward import (
    RuntimeUnavailableError,
    compiled_forward,
    exported_forward,
)
from ranker.scoring.runtimes.plain import PlainPredictor
from ranker.scoring.runtimes.runtime_name import EXACT_RUNTIMES, RuntimeName

Float64Array = npt.NDArray[np.float64]


class Predictor(Protocol):
    """Predicts all tasks of candidate rows."""

    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """Task -> predictions [N] in label units, not calibrated; conditional tasks stay so.

        The bytes of the result are a function of ``rows`` alone.

        Args:
            rows: N canonical candidate rows, each request's rows side by side.
            counts: is added to.

        Raises:
            DataError: the state is newer than a request.
        """
        ...


def build_predictor(
    bundle: ModelBundle, source: FeatureSource, *, runtime: RuntimeName = "factorised"
) -> Predictor:
    """The predictor of a bundle and a state.

    All runtimes but ``onnx_int8`` give the plain path's predictions within 1e-5. ``compiled`` and
    the two of ONNX take some time to build.

    Raises:
        DataError: the state does not belong to the bundle.
        RuntimeUnavailableError: the runtime needs what is not installed.
    """
    model, schema, threads = bundle.model, bundle.schema, torch.get_num_threads()
    match runtime:
        case "factorised":
            return FactorisedPredictor(bundle, source)
        case "plain":
            return PlainPredictor(bundle, source)
        case "compiled":
            return PlainPredictor(bundle, source, forward=compiled_forward(model, schema))
        case "onnx" | "onnx_int8":
            forward = exported_forward(model, schema, int8=runtime == "onnx_int8", threads=threads)
            return PlainPredictor(bundle, source, forward=forward)
        case _:
            assert_never(runtime)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeTiming:
    """What a runtime took.

    Attributes:
        build_s: until its first predictions, those of the measured rows; None if unavailable.
        rows_per_s: predicting the same rows once more; None if unavailable.
        unavailable: why; empty if it is not.
    """

    runtime: RuntimeName
    build_s: float | None
    rows_per_s: float | None
    unavailable: str = ""

    def seconds_for(self, num_rows: int) -> float:
        """What ``num_rows`` rows would take, building included."""
        if self.build_s is None or self.rows_per_s is None:
            return math.inf
        return self.build_s + num_rows / self.rows_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeChoice:
    """The runtime that would be done first, its predictor, and what was measured of all."""

    runtime: RuntimeName
    predictor: Predictor
    timings: tuple[RuntimeTiming, ...]


def choose_runtime(
    bundle: ModelBundle,
    source: FeatureSource,
    rows: pa.Table,
    *,
    num_rows: int,
    runtimes: Sequence[RuntimeName] = EXACT_RUNTIMES,
) -> RuntimeChoice:
    """Measure runtimes on ``rows``, a few requests, and take the fastest for ``num_rows`` rows.

    Which one that is depends on the machine and on the moment, and so do the last bits of
    predictions: a job whose bytes must be the same again names its runtime instead.

    Raises:
        RuntimeUnavailableError: none of ``runtimes`` can be had.
    """
    timings: list[RuntimeTiming] = []
    fastest: tuple[float, RuntimeName, Predictor] | None = None
    for runtime in runtimes:
        started = time.perf_counter()
        try:
            predictor = build_predictor(bundle, source, runtime=runtime)
        except RuntimeUnavailableError as error:
            timings.append(
                RuntimeTiming(
                    runtime=runtime, build_s=None, rows_per_s=None, unavailable=str(error)
                )
            )
            continue
        predictor.predict(rows, ScoringCounts())
        built = time.perf_counter()
        predictor.predict(rows, ScoringCounts())
        rows_per_s = rows.num_rows / (time.perf_counter() - built)
        timing = RuntimeTiming(runtime=runtime, build_s=built - started, rows_per_s=rows_per_s)
        timings.append(timing)
        if fastest is None or timing.seconds_for(num_rows) < fastest[0]:
            fastest = (timing.seconds_for(num_rows), runtime, predictor)
    if fastest is None:
        reasons = "; ".join(timing.unavailable for timing in timings)
        raise RuntimeUnavailableError(f"no runtime can be had: {reasons}")
    return RuntimeChoice(runtime=fastest[1], predictor=fastest[2], timings=tuple(timings))
