"""Search score weights on some users, report what was chosen on the others.

The best of many candidates looks better than it is where it was chosen (the winner's curse), so
what is reported, and every interval, comes from users who had no say in the choice.

Shapes: `N` rows, `T` tasks with predictions, `C` candidates, `Q` quantities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ranker.config import ConfigError
from ranker.data.parquet import DataError
from ranker.evaluation.intervals import Estimate
from ranker.evaluation.metrics import FloatArray
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.tuning.constraint import Constraint, parse_constraint
from ranker.scoring.tuning.front import non_dominated
from ranker.scoring.tuning.logged_lists import LoggedLists, rank_flips
from ranker.scoring.tuning.order_value import (
    FAMILIES,
    Judged,
    OrderJudge,
    draw_users,
    family_importance,
)
from ranker.scoring.tuning.score_terms import score_terms, weighable_tasks
from ranker.scoring.tuning.tuning_result import (
    ConstraintCheck,
    Held,
    Part,
    Tuning,
    TuningRows,
    WeightPoint,
)
from ranker.scoring.tuning.tuning_settings import TuneConfig
from ranker.scoring.tuning.user_parts import judged_tasks, split_users
from ranker.scoring.tuning.weight_search import SearchSpace, draw_around, evolve, landmarks

MAX_CLOUD = 600  # points of a chart
MANY_WEIGHTS = "give --score-weights of tasks that are predicted"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Search:
    """The candidates and how they do on the users who choose; today's weights come first.

    Attributes:
        weights: [C, T].
        changes: [C, Q].
        front: which are on the front.
        feasible: [C], which keep the constraints.
        best: the feasible one with the largest change of what is maximized.
    """

    weights: FloatArray
    changes: FloatArray
    front: npt.NDArray[np.int64]
    feasible: npt.NDArray[np.bool_]
    best: int | None


def tune(
    rows: TuningRows, *, tasks: Sequence[TaskSpec], today: ScoreWeights, config: TuneConfig
) -> Tuning:
    """Try score weights around ``today``'s and choose.

    Raises:
        ConfigError: constraints or quantities that make no sense, weights of tasks without
            predictions, or Optuna asked for but missing.
        DataError: too few users or labels.
    """
    constraints = check_tuning(config, tasks, today)
    weighable = weighable_tasks([*rows.predictions], tasks)
    start = _vector(today, weighable)
    parts = split_users(rows, config)
    judged, left_out = judged_tasks(rows, parts, tasks, today, config)
    _require_judged([config.maximize, *(c.quantity for c in constraints)], left_out)
    terms = _terms(rows, today, tasks, weighable)
    choice, report, page = (
        OrderJudge(lists, terms=terms, labels=rows.labels, judged=judged, today=start, at=config.at)
        for lists in (parts.choice, parts.report, parts.page)
    )
    space = _space(start, weighable, judged, config)
    search = _search(choice, space, constraints, config)
    marks = landmarks(space, [task.name for task in weighable])
    named = [("today", start), *marks.items()]
    named += [("chosen", search.weights[i]) for i in ([] if search.best is None else [search.best])]
    named += [("front", search.weights[i]) for i in search.front]
    points = _points(named, choice, report, page, weighable, config)
    front = points[len(points) - len(search.front) :]
    best = None if search.best is None else points[1 + len(marks)]
    return Tuning(
        tasks=tuple(weighable),
        combination=today.combination,
        judged=judged,
        left_out=left_out,
        choice=_part(parts.choice),
        report=_part(parts.report),
        maximize=config.maximize,
        constraints=tuple(constraints),
        checks=() if best is None else tuple(_check(c, best) for c in constraints),
        today=points[0],
        chosen=best,
        front=tuple(front),
        landmarks=tuple(points[1 : 1 + len(marks)]),
        num_candidates=len(search.weights),
        num_feasible=int(search.feasible.sum()),
        cloud=_cloud(search, page, config),
        page=parts.page,
    )


def check_tuning(
    config: TuneConfig, tasks: Sequence[TaskSpec], today: ScoreWeights
) -> list[Constraint]:
    """The constraints, if all that the config names is there; needs no predictions.

    Raises:
        ConfigError: an unknown quantity or task, constraints of another form, or importance that
            leaves a family without any.
    """
    names = [task.name for task in tasks]
    quantities = [*names, *FAMILIES]
    constraints = [parse_constraint(text, quantities=quantities) for text in config.subject_to]
    if config.maximize not in quantities:
        raise ConfigError(f"maximize: {config.maximize!r} is not one of {quantities}")
    unknown = sorted(config.importance.keys() - set(names))
    if unknown:
        raise ConfigError(f"importance: {unknown} are no tasks of the schema")
    family_importance(tasks, given=config.importance, today=today.weights)
    return constraints


def _vector(today: ScoreWeights, weighable: Sequence[TaskSpec]) -> FloatArray:
    names = [task.name for task in weighable]
    lost = [name for name, weight in today.weights.items() if weight > 0 and name not in names]
    if lost:
        raise ConfigError(
            f"score weights: {lost} weigh something today but have no predictions (predicted: "
            f"{names}); {MANY_WEIGHTS}"
        )
    return np.array([today.weights.get(name, 0.0) for name in names], dtype=np.float64)


def _terms(
    rows: TuningRows, today: ScoreWeights, tasks: Sequence[TaskSpec], weighable: Sequence[TaskSpec]
) -> FloatArray:
    try:
        return score_terms(
            rows.predictions, today=today, tasks=tasks, weighable=weighable, lists=rows.lists
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _require_judged(named: Sequence[str], left_out: Mapping[str, str]) -> None:
    for name in named:
        if name in left_out:
            raise DataError(
                f"{name}: too few labels to judge an order by: {left_out[name]}; take more "
                "windows (--from, --before), or another quantity"
            )


def _space(
    today: FloatArray, weighable: Sequence[TaskSpec], judged: Judged, config: TuneConfig
) -> SearchSpace:
    free = np.array([task in judged.tasks for task in weighable])
    if free.sum() < 2:
        names = [task.name for task, is_free in zip(weighable, free, strict=True) if is_free]
        raise DataError(
            f"weights can be tuned of tasks with predictions and labels enough; of these there "
            f"are {names}, and two are needed: predict more tasks or take more windows"
        )
    return SearchSpace(today=today, free=free, spread=config.spread)


def _search(
    choice: OrderJudge, space: SearchSpace, constraints: Sequence[Constraint], config: TuneConfig
) -> _Search:
    names = choice.judged.quantities
    wanted = names.index(config.maximize)
    bounded = [names.index(constraint.quantity) for constraint in constraints]
    objectives = list(dict.fromkeys([wanted, *bounded, *map(names.index, FAMILIES)]))
    drawn = _candidates(choice, space, objectives, config)
    weights = np.concatenate([space.today[np.newaxis], drawn])
    changes, lows = choice.changes_with_lower_ends(weights, confidence=config.confidence)
    held = lows if config.constraints_hold_by == "lower_bound" else changes
    bounds = np.array([constraint.bound for constraint in constraints])
    feasible = (held[:, bounded] >= bounds).all(axis=1) & np.isfinite(changes[:, wanted])
    ranked = np.where(feasible, changes[:, wanted], -np.inf)
    return _Search(
        weights=weights,
        changes=changes,
        front=non_dominated(changes[:, [names.index(family) for family in FAMILIES]]),
        feasible=feasible,
        best=int(ranked.argmax()) if feasible.any() else None,  # of equals today's, the first
    )


def _candidates(
    choice: OrderJudge, space: SearchSpace, objectives: Sequence[int], config: TuneConfig
) -> FloatArray:
    match config.method:
        case "random":
            rng = np.random.default_rng([config.seed, 1])
            return draw_around(space, num_candidates=config.num_candidates, rng=rng)
        case "optuna":
            return evolve(
                space,
                lambda weights: choice.changes(weights)[:, objectives],
                num_candidates=config.num_candidates,
                seed=config.seed,
            )
        case _:
            assert_never(config.method)


def _points(
    named: Sequence[tuple[str, FloatArray]],
    choice: OrderJudge,
    report: OrderJudge,
    page: OrderJudge,
    weighable: Sequence[TaskSpec],
    config: TuneConfig,
) -> list[WeightPoint]:
    """Judge named weights on the users who report; the first are today's."""
    weights = np.stack([vector for _, vector in named])
    rng = np.random.default_rng([config.seed, 3])
    draws = draw_users(report.lists, num_replicates=config.num_replicates, rng=rng)
    estimates = report.estimates(weights, confidence=config.confidence, draws=draws)
    on_choice, on_page = choice.changes(weights), page.changes(weights)
    scores, quantities = report.scores(weights), report.judged.quantities
    return [
        WeightPoint(
            name=name,
            weights={t.name: float(w) for t, w in zip(weighable, vector, strict=True)},
            on_choice=_by_name(quantities, on_choice[n]),
            estimates=estimates[n],
            flips=rank_flips(scores[0], scores[n], report.lists, at=report.at),
            page_changes=_by_name(quantities, on_page[n]),
        )
        for n, (name, vector) in enumerate(named)
    ]


def _by_name(quantities: Sequence[str], values: FloatArray) -> dict[str, float | None]:
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(quantities, values, strict=True)
    }


def _check(constraint: Constraint, chosen: WeightPoint) -> ConstraintCheck:
    change = chosen.estimates.changes[constraint.quantity]
    return ConstraintCheck(
        constraint=constraint, change=change, verdict=_held(change, constraint.bound)
    )


def _held(change: Estimate, bound: float) -> Held:
    if change.ci_low is None or change.ci_high is None:
        return "cannot tell"
    if change.ci_low >= bound:
        return "holds"
    return "is broken" if change.ci_high < bound else "cannot tell"


def _cloud(search: _Search, page: OrderJudge, config: TuneConfig) -> FloatArray:
    """Both families' changes on the page's rows, of a sample of the candidates: [C', 2]."""
    rng = np.random.default_rng([config.seed, 4])
    size = min(MAX_CLOUD, len(search.weights))
    drawn = rng.choice(len(search.weights), size=size, replace=False)
    names = page.judged.quantities
    changes = page.changes(search.weights[drawn])[:, [names.index(family) for family in FAMILIES]]
    return changes[np.isfinite(changes).all(axis=1)]


def _part(lists: LoggedLists) -> Part:
    return Part(users=lists.num_users, lists=lists.num_lists, rows=lists.rows.size)
