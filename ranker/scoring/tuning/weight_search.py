"""Which score weights to try: drawn around today's, or evolved by Optuna.

Multiplying all weights by one number keeps every order, so the sum of what may change is kept.
Shapes: `C` vectors, `T` tasks, `F` of them free, `O` objectives.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.config import ConfigError
from ranker.evaluation.metrics import FloatArray
from ranker.schema import MAX_WEIGHT, MIN_WEIGHT

POPULATION = 100
DIGITS = 4
SHARE_OFF = 0.1  # of the changed weights: whether a task is needed at all
Objectives = Callable[[FloatArray], FloatArray]  # [C, T] -> [C, O], higher is better


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchSpace:
    """Where to search.

    Attributes:
        today: [T], today's weights.
        free: [T], the tasks whose weights may change. Those of tasks whose labels are too few to
            judge an order by stay as they are: nobody would see the harm.
        spread: a changed weight is at most so many times today's, or so many times smaller.
    """

    today: FloatArray
    free: npt.NDArray[np.bool_]
    spread: float

    @property
    def base(self) -> FloatArray:
        """Where the free weights start: today's, or the smallest there is instead of 0."""
        smallest = self.today[self.today > 0].min()
        return np.where(self.today > 0, self.today, smallest)[self.free]

    def vectors(self, free_weights: FloatArray) -> FloatArray:
        """Whole vectors [C, T]: the free weights scaled to the sum that they have today.

        Four digits of each are kept: what is judged is what a person reads in the file.
        """
        target = self.today[self.free].sum() or self.today.sum()
        scaled = free_weights * (target / free_weights.sum(axis=1, keepdims=True))
        scaled[scaled > 0] = scaled[scaled > 0].clip(MIN_WEIGHT, MAX_WEIGHT)
        vectors = np.tile(self.today, (len(free_weights), 1))
        vectors[:, self.free] = _four_digits(scaled)
        return vectors


def landmarks(space: SearchSpace, tasks: Sequence[str]) -> dict[str, FloatArray]:
    """Weights [T] by name: every free task alone, and today's without each of them."""
    today, found = space.today, {}
    for k in np.flatnonzero(space.free).tolist():
        found[f"only {tasks[k]}"] = np.where(np.arange(today.size) == k, 1.0, 0.0)
    for k in np.flatnonzero(space.free & (today > 0) & (today < today.sum())).tolist():
        found[f"without {tasks[k]}"] = np.where(np.arange(today.size) == k, 0.0, today)
    return found


def draw_around(space: SearchSpace, *, num_candidates: int, rng: np.random.Generator) -> FloatArray:
    """Weights [C, T]: each candidate changes some of the free weights and keeps the others.

    How many is drawn evenly from 1 to all. A changed weight is its base times a factor that is
    log-uniform in [1 / spread, spread], or 0 in one case of ten.
    """
    today = space.today[space.free]
    num_free = today.size
    num_changed = rng.integers(1, num_free, size=(num_candidates, 1), endpoint=True)
    places = np.argsort(rng.random((num_candidates, num_free)), axis=1)
    changed = places < num_changed  # [C, F]
    factors = space.spread ** rng.uniform(-1, 1, size=changed.shape)
    factors[rng.random(changed.shape) < SHARE_OFF] = 0.0
    drawn = np.where(changed, space.base * factors, today)
    drawn[drawn.sum(axis=1) == 0] = space.base
    return space.vectors(drawn)


def evolve(
    space: SearchSpace, objectives: Objectives, *, num_candidates: int, seed: int
) -> FloatArray:
    """Weights [C, T] that Optuna's NSGA-II breeds for ``objectives`` (Deb et al., IEEE TEC 2002).

    The first is the base. A generation is judged at once.

    Raises:
        ConfigError: Optuna is not installed.
    """
    require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    num_objectives = objectives(space.today[np.newaxis]).shape[1]
    study = optuna.create_study(directions=["maximize"] * num_objectives, sampler=sampler)
    names = [f"task {number}" for number in range(space.base.size)]
    study.enqueue_trial(dict.fromkeys(names, 0.0))
    between = optuna.distributions.FloatDistribution(-1, 1)
    tried: list[FloatArray] = []
    for start in range(0, num_candidates, POPULATION):
        size = min(POPULATION, num_candidates - start)
        trials = [study.ask(dict.fromkeys(names, between)) for _ in range(size)]
        exponents = np.array([[trial.params[name] for name in names] for trial in trials])
        tried.append(space.vectors(space.base * space.spread**exponents))
        for trial, values in zip(trials, objectives(tried[-1]), strict=True):
            if np.isfinite(values).all():
                study.tell(trial, [float(value) for value in values])
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return np.concatenate(tried)


def require_optuna() -> None:
    """Raise `ConfigError` with the remedy where Optuna is missing."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "method: optuna is not installed; pip install -e '.[tune]' or choose random"
        )


def _four_digits(weights: FloatArray) -> FloatArray:
    sizes = np.floor(np.log10(weights, out=np.zeros_like(weights), where=weights > 0))
    units = 10.0 ** np.abs(sizes - DIGITS + 1)  # a whole number, so that 0.4115 is written so
    finer = sizes < DIGITS
    rounded: FloatArray = np.where(
        finer, np.round(weights * units) / units, np.round(weights / units) * units
    )
    return rounded
