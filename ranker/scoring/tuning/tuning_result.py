"""What `ranker.scoring.tuning.tuning` is given and what it finds.

Shapes: `N` rows, `C` candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ranker.evaluation.intervals import Estimate
from ranker.evaluation.metrics import FloatArray, IntArray
from ranker.schema import TaskSpec
from ranker.scoring.tuning.constraint import Constraint
from ranker.scoring.tuning.logged_lists import LoggedLists, RankFlips
from ranker.scoring.tuning.order_value import Judged, OrderEstimates

Held = Literal["holds", "is broken", "cannot tell"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningRows:
    """Logged impressions with predictions: [N] each.

    Attributes:
        predictions: by task, unconditional ones as they are, conditional ones still conditional.
        labels: by task, NaN where not observed.
        users, lists: codes; a list belongs to one user.
        items: numbers in the order of the item ids, which break ties.
    """

    predictions: Mapping[str, FloatArray]
    labels: Mapping[str, FloatArray]
    users: IntArray
    lists: IntArray
    items: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the users: how many, with how many lists of two rows or more, and their rows."""

    users: int
    lists: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPoint:
    """One vector of score weights.

    Attributes:
        name: what it is: today, chosen, front, or e.g. "only like".
        on_choice: changes by quantity where it was chosen; flattered if it was.
        estimates: values and changes on the users who report.
        flips: against today's order, on the users who report.
        page_changes: changes by quantity on the rows that the page holds.
    """

    name: str
    weights: Mapping[str, float]
    on_choice: Mapping[str, float | None]
    estimates: OrderEstimates
    flips: RankFlips
    page_changes: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintCheck:
    """Whether the chosen weights keep a constraint on the users who report."""

    constraint: Constraint
    change: Estimate
    verdict: Held


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuning:
    """What was found.

    Attributes:
        tasks: those with predictions, which can be weighed.
        judged: the tasks that count.
        left_out: task -> why it doesn't count.
        checks: of the chosen weights, on the users who report; empty where none were chosen.
        chosen: None where no candidate keeps the constraints.
        front: no candidate is better in both families' changes on the users who choose.
        landmarks: every task alone, and today's weights without one.
        num_feasible: candidates that keep the constraints on the users who choose.
        cloud: page changes [C', 2] of a sample of the candidates, for the chart.
        page: the lists that the page holds: those of users who report, all or a sample.
    """

    tasks: tuple[TaskSpec, ...]
    combination: str
    judged: Judged
    left_out: Mapping[str, str]
    choice: Part
    report: Part
    maximize: str
    constraints: tuple[Constraint, ...]
    checks: tuple[ConstraintCheck, ...]
    today: WeightPoint
    chosen: WeightPoint | None
    front: tuple[WeightPoint, ...]
    landmarks: tuple[WeightPoint, ...]
    num_candidates: int
    num_feasible: int
    cloud: FloatArray
    page: LoggedLists
