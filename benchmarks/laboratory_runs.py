"""Many seeded experiments on all cores, and the bands their counts must fall into."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from record import Figure, progress
from scipy import stats

FloatArray = npt.NDArray[np.float64]
Experiment = Callable[[np.random.Generator], Mapping[str, float]]
CONFIDENCE = 0.95
FAMILY_ERROR = 0.001  # chance that sound methods leave their bands, over all of a family
_CHUNK = 50  # experiments to a generator: fixed, so that no figure depends on the number of cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A proof's figure and where it has to lie."""

    proof: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.value <= self.high

    def to_json(self) -> dict[str, str | float | bool]:
        return {
            "proof": self.proof,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "holds": self.holds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof measured, and where it had to lie."""

    figures: dict[str, Figure]
    verdicts: list[Verdict] = field(default_factory=list)
    details: object = None


def repeat(
    experiment: Experiment, *, times: int, seed: int, executor: Executor
) -> dict[str, FloatArray]:
    """Outcomes of ``times`` independent experiments, name -> [times]."""
    sizes = [min(_CHUNK, times - start) for start in range(0, times, _CHUNK)]
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    chunks = executor.map(_run_chunk, [experiment] * len(sizes), sizes, seeds)
    joined: dict[str, list[float]] = {}
    for outcomes in chunks:
        for name, values in outcomes.items():
            joined.setdefault(name, []).extend(values)
    return {name: np.array(values) for name, values in joined.items()}


def _run_chunk(
    experiment: Experiment, times: int, seed: np.random.SeedSequence
) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    rows = [experiment(rng) for _ in range(times)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def share_figure(hits: FloatArray) -> Figure:
    """Share of experiments with a hit, and its exact (Clopper-Pearson) interval."""
    count = int(np.count_nonzero(hits))
    interval = stats.binomtest(count, len(hits)).proportion_ci(CONFIDENCE)
    return Figure(value=count / len(hits), ci_low=float(interval.low), ci_high=float(interval.high))


def share_verdict(proof: str, hits: FloatArray, *, expected: float, family: int) -> Verdict:
    """The share must lie in the band that holds a whole family of sound methods."""
    tail = FAMILY_ERROR / family / 2
    low, high = stats.binom.ppf([tail, 1 - tail], len(hits), expected) / len(hits)
    return Verdict(proof=proof, value=float(np.mean(hits)), low=float(low), high=float(high))


def near_verdict(
    proof: str, hits: FloatArray, *, expected: float, margin: float, family: int
) -> Verdict:
    """The share must lie within ``margin``, or with few experiments within what chance allows."""
    band = share_verdict(proof, hits, expected=expected, family=family)
    return Verdict(
        proof=proof,
        value=band.value,
        low=min(band.low, expected - margin),
        high=max(band.high, expected + margin),
    )


def at_most_verdict(proof: str, hits: FloatArray, *, limit: float) -> Verdict:
    """The share itself must not pass the limit."""
    return Verdict(proof=proof, value=float(np.mean(hits)), low=0.0, high=limit)


def uniform_verdict(proof: str, p_values: FloatArray, *, family: int) -> Verdict:
    """The p-value of the Kolmogorov-Smirnov test that p-values are uniform."""
    p_value = float(stats.kstest(p_values, "uniform").pvalue)
    return Verdict(proof=proof, value=p_value, low=FAMILY_ERROR / family, high=1.0)


def report_failures(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if not verdict.holds:
            progress(
                f"FAILED {verdict.proof}: {verdict.value:.5g} is not in "
                f"[{verdict.low:.5g}, {verdict.high:.5g}]"
            )
