"""Which users choose score weights, which report, and which tasks both of them can judge.

`N` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.data.parquet import DataError
from ranker.evaluation.evaluate import MIN_LABELS
from ranker.evaluation.intervals import MIN_USERS
from ranker.evaluation.metrics import FloatArray
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.tuning.logged_lists import LoggedLists, arrange_lists
from ranker.scoring.tuning.order_value import FAMILIES, Judged, family_importance
from ranker.scoring.tuning.tuning_result import TuningRows
from ranker.scoring.tuning.tuning_settings import TuneConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserParts:
    """The lists of the users who choose, of those who report, and what the page holds of these."""

    choice: LoggedLists
    report: LoggedLists
    page: LoggedLists


def split_users(rows: TuningRows, config: TuneConfig) -> UserParts:
    """Whole users choose or report, drawn by the seed among all users of the windows.

    Raises:
        DataError: too few users in a part.
    """
    users, codes = np.unique(rows.users, return_inverse=True)
    place = np.random.default_rng([config.seed, 0]).permutation(users.size)[codes]  # [N]
    num_choice = round(config.choice_share * users.size)
    choice, report = (
        arrange_lists(users=rows.users, lists=rows.lists, items=rows.items, kept=kept)
        for kept in (place < num_choice, place >= num_choice)
    )
    for name, lists in (("choose", choice), ("report", report)):
        if lists.num_users < MIN_USERS:
            raise DataError(
                f"only {lists.num_users} users who {name} have a list of two impressions or more; "
                f"{MIN_USERS} are needed: take more windows (--from, --before)"
            )
    kept_users = _first_users(place[report.rows], config.page_rows)
    page = arrange_lists(
        users=rows.users,
        lists=rows.lists,
        items=rows.items,
        kept=np.isin(place, kept_users) & (place >= num_choice),
    )
    return UserParts(choice=choice, report=report, page=page)


def _first_users(place: npt.NDArray[np.int64], max_rows: int) -> npt.NDArray[np.int64]:
    """The places that come first and together have at most ``max_rows`` rows, but at least one."""
    places, num_rows = np.unique(place, return_counts=True)
    return np.asarray(places[: max(1, int((np.cumsum(num_rows) <= max_rows).sum()))])


def judged_tasks(
    rows: TuningRows,
    parts: UserParts,
    tasks: Sequence[TaskSpec],
    today: ScoreWeights,
    config: TuneConfig,
) -> tuple[Judged, dict[str, str]]:
    """The tasks with labels enough in both parts, and why the others have not.

    Raises:
        DataError: none of a family.
        ConfigError: see `family_importance`.
    """
    left_out: dict[str, str] = {}
    for task in tasks:
        for name, lists in (("choose", parts.choice), ("report", parts.report)):
            reason = _too_few(task, rows.labels[task.name][lists.rows])
            if reason:
                left_out.setdefault(task.name, f"{reason} among the users who {name}")
    kept = tuple(task for task in tasks if task.name not in left_out)
    for family in FAMILIES:
        if not any(task.family == family for task in kept):
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise DataError(
                f"no {family} task has labels enough to judge an order by ({why or 'none exists'})"
                "; take more windows (--from, --before)"
            )
    importance = family_importance(kept, given=config.importance, today=today.weights)
    return Judged(tasks=kept, importance=importance), left_out


def _too_few(task: TaskSpec, labels: FloatArray) -> str:
    observed = labels[~np.isnan(labels)]
    if task.kind == "regression":
        return f"{observed.size} labels (of {MIN_LABELS})" if observed.size < MIN_LABELS else ""
    positives = int(observed.sum())
    fewer = min(positives, observed.size - positives)
    which = "positives" if positives == fewer else "negatives"
    return f"{fewer} {which} (of {MIN_LABELS})" if fewer < MIN_LABELS else ""
