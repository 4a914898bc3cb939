from typing import Any

import numpy as np
import pytest

from ranker.config import ConfigError, parse_config
from ranker.data.parquet import DataError
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.tuning.tuning import tune
from ranker.scoring.tuning.tuning_result import Tuning, TuningRows
from ranker.scoring.tuning.tuning_settings import TuneConfig


def task(name: str, kind: str, family: str, **fields: object) -> TaskSpec:
    values = {"name": name, "label": name, "kind": kind, "family": family, **fields}
    return TaskSpec.model_validate(values)


TASKS = (
    task("click", "binary", "engagement"),
    task("time_s", "regression", "engagement"),
    task("like", "binary", "satisfaction"),
    task("hate", "binary", "satisfaction", direction="negative"),
)
TODAY = ScoreWeights(weights={"click": 1.0, "time_s": 0.3, "like": 0.1, "hate": 0.1})


def make_rows(*, num_users: int = 211, seed: int = 3, num_hated: int = 10**6) -> TuningRows:
    """Clicks and likes have opposite causes, and the predictions are the truth."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rng.integers(3, 9, size=num_users))
    cause = rng.normal(size=users.size)
    p_click, p_like = 1 / (1 + np.exp(-cause)), 1 / (1 + np.exp(cause + 1))
    p_hate = np.full(users.size, 0.2)
    hate = (rng.random(users.size) < p_hate).astype(float)
    hate[np.flatnonzero(hate)[num_hated:]] = 0
    time_s = 10 * np.exp(cause / 2)
    return TuningRows(
        predictions={"click": p_click, "time_s": time_s, "like": p_like, "hate": p_hate},
        labels={
            "click": (rng.random(users.size) < p_click).astype(float),
            "time_s": time_s * rng.exponential(size=users.size),
            "like": (rng.random(users.size) < p_like).astype(float),
            "hate": hate,
        },
        users=users,
        lists=users,
        items=rng.permutation(users.size),
    )


def config(**values: Any) -> TuneConfig:
    few = {"num_candidates": 101, "num_replicates": 80}
    return parse_config(TuneConfig, {**few, **values}, source="test")


def run(rows: TuningRows, **values: Any) -> Tuning:
    return tune(rows, tasks=TASKS, today=TODAY, config=config(**values))


def test_the_truly_better_weights_are_found_and_confirmed() -> None:
    """Nothing but likes is asked for: they rise, on the users who had no say, and clicks fall."""
    found = run(make_rows(), maximize="like", subject_to=[])
    assert found.chosen is not None
    changes = found.chosen.estimates.changes
    assert changes["like"].ci_low > 0.1
    assert changes["click"].ci_high < 0
    assert found.chosen.weights["like"] > TODAY.weights["like"]
    assert found.chosen.flips.pairs > 0.5
    assert found.num_feasible == found.num_candidates == 102


def test_constraints_bind() -> None:
    free = run(make_rows(), maximize="like", subject_to=[])
    bound = run(make_rows(), maximize="like", subject_to=["click >= -3%"])
    assert free.chosen is not None
    assert bound.chosen is not None
    assert 0 < bound.num_feasible < bound.num_candidates
    assert bound.chosen.on_choice["click"] >= -0.03
    assert bound.chosen.on_choice["like"] < free.chosen.on_choice["like"]
    (check,) = bound.checks
    assert (check.constraint.quantity, check.constraint.bound) == ("click", -0.03)
    assert check.verdict in ("holds", "cannot tell", "is broken")
    assert check.change == bound.chosen.estimates.changes["click"]


def test_lower_bounds_are_stricter_than_points() -> None:
    by_point, by_bound = (
        run(make_rows(), subject_to=["click >= -5%"], constraints_hold_by=rule)
        for rule in ("point", "lower_bound")
    )
    assert by_bound.num_feasible < by_point.num_feasible


def test_an_infeasible_constraint_chooses_nothing() -> None:
    found = run(make_rows(), subject_to=["like >= 900%"])
    assert (found.chosen, found.checks, found.num_feasible) == (None, (), 0)
    assert found.front
    assert found.today.name == "today"


def test_users_choose_or_report_but_never_both() -> None:
    rows = make_rows()
    found = run(rows, choice_share=0.3, page_rows=250)
    assert found.choice.users == 63
    assert found.choice.users + found.report.users == 211
    assert found.choice.rows + found.report.rows == rows.users.size
    on_page = np.unique(rows.users[found.page.rows])
    assert 0 < found.page.rows.size <= 250
    # whole users: all of their rows
    assert found.page.rows.size == np.isin(rows.users, on_page).sum()


def test_the_front_trades_one_family_for_the_other() -> None:
    found = run(make_rows())
    engagement = [point.on_choice["engagement"] for point in found.front]
    satisfaction = [point.on_choice["satisfaction"] for point in found.front]
    assert len(found.front) > 3
    assert engagement == sorted(engagement, reverse=True)
    assert satisfaction == sorted(satisfaction)


def test_a_task_without_labels_enough_keeps_its_weight() -> None:
    found = run(make_rows(num_hated=15), maximize="like", subject_to=[])
    assert set(found.left_out) == {"hate"}
    assert found.left_out["hate"].endswith("positives (of 20) among the users who choose")
    assert found.chosen is not None
    assert found.chosen.weights["hate"] == TODAY.weights["hate"]
    assert "hate" not in found.chosen.estimates.changes
    assert all("hate" not in point.name for point in found.landmarks)


def test_the_seed_decides() -> None:
    once, again, other = (run(make_rows(), seed=seed) for seed in (5, 5, 6))
    assert once.chosen == again.chosen
    np.testing.assert_array_equal(once.cloud, again.cloud)
    assert once.choice != other.choice or once.chosen != other.chosen


def test_by_chance_alone_nothing_holds_up() -> None:
    """Predictions that know nothing: what looked best has an interval that covers 0 elsewhere."""
    rng = np.random.default_rng(17)
    covered = 0
    for seed in range(12):
        rows = make_rows(num_users=90, seed=seed)
        noise = {name: rng.random(rows.users.size) for name in rows.predictions}
        blind = TuningRows(
            predictions=noise,
            labels=rows.labels,
            users=rows.users,
            lists=rows.lists,
            items=rows.items,
        )
        found = run(blind, maximize="click", subject_to=[])
        assert found.chosen is not None
        assert found.chosen.on_choice["click"] > 0
        change = found.chosen.estimates.changes["click"]
        covered += change.ci_low <= 0 <= change.ci_high
    assert covered >= 9  # fewer would happen once in a thousand times at 95 %


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"maximize": "klick"}, ConfigError, "maximize: 'klick' is not one of"),
        ({"subject_to": ["likes >= 0"]}, ConfigError, "'likes' is not one of"),
        ({"importance": {"likes": 1}}, ConfigError, "importance: \\['likes'\\] are no tasks"),
        ({"maximize": "hate"}, DataError, "hate: too few labels to judge an order by: 7"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(make_rows(num_hated=15), **values)


def test_too_few_users_or_labels() -> None:
    with pytest.raises(DataError, match="only 8 users who choose"):
        run(make_rows(num_users=16))
    rows = make_rows()
    nothing = {**rows.labels, "like": rows.labels["like"] * np.nan, "hate": 0 * rows.labels["hate"]}
    unlabelled = TuningRows(
        predictions=rows.predictions,
        labels=nothing,
        users=rows.users,
        lists=rows.lists,
        items=rows.items,
    )
    with pytest.raises(DataError, match="no satisfaction task has labels enough"):
        run(unlabelled)


def test_weights_need_predictions() -> None:
    rows = make_rows()
    fewer = TuningRows(
        predictions={"click": rows.predictions["click"]},
        labels=rows.labels,
        users=rows.users,
        lists=rows.lists,
        items=rows.items,
    )
    with pytest.raises(ConfigError, match=r"\['time_s', 'like', 'hate'\] weigh something today"):
        run(fewer)
    with pytest.raises(DataError, match=r"of these there are \['click'\], and two are needed"):
        tune(fewer, tasks=TASKS, today=ScoreWeights(weights={"click": 1.0}), config=config())
