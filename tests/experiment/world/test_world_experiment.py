"""Experiments in the world: the truth is found, novelty and interference show, workers don't."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from ranker.config import ConfigError, parse_config
from ranker.experiment.world.days import Arm
from ranker.experiment.world.experiment import (
    METRICS,
    ExperimentSettings,
    expect_experiment,
    run_experiment,
)
from ranker.experiment.world.policies import (
    KnownPolicy,
    engagement_oracle,
    logging_policy,
    random_policy,
    satisfaction_oracle,
)
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.truth import true_lift, true_means
from ranker.experiment.world.world import World, make_world

SETTINGS = ExperimentSettings(first_day=2, pre_period_days=2, num_days=3, seed=6)


def world_of(**changes: object) -> World:
    values: dict[str, object] = {
        "seed": 9,
        "num_users": 1_300,  # two chunks, the second one shorter
        "num_items": 310,
        "num_topics": 6,
        "num_days": 6,
        "slate_size": 5,
        "candidates": {"count": 23},
    }
    return make_world(parse_config(WorldSettings, values | changes, source="test"))


def against(treatment: KnownPolicy, **lift: float) -> dict[str, Arm]:
    return {"control": Arm(policy=random_policy()), "treatment": Arm(policy=treatment, **lift)}


def means_by_arm_and_day(table) -> pd.DataFrame:
    return table.to_pandas().groupby(["arm", "day"])[list(METRICS)].mean()


def test_any_number_of_workers_gives_the_same_table() -> None:
    world, arms = world_of(interference=0.4), against(engagement_oracle())
    one = run_experiment(world, arms, settings=SETTINGS, jobs=1)
    three = run_experiment(world, arms, settings=SETTINGS, jobs=3)
    assert one.equals(three)
    other = run_experiment(world, arms, settings=SETTINGS.model_copy(update={"seed": 7}), jobs=1)
    assert one.schema == other.schema and not one.equals(other)


def test_the_table_has_every_user_on_every_day() -> None:
    table = run_experiment(world_of(), against(engagement_oracle()), settings=SETTINGS).to_pandas()
    assert len(table) == 1_300 * 5
    assert table.groupby("day")["user"].nunique().eq(1_300).all()
    assert table["day"].min() == datetime.date(2024, 3, 4)
    assert table.groupby("user")["arm"].nunique().eq(1).all()
    away = table[table["active"] == 0]
    assert len(away) > 0 and not away[list(METRICS)].any(axis=None)
    there = table[table["active"] == 1]
    assert (there["requests"] >= 1).all()
    assert (there["impressions"] == 5 * there["requests"]).all()
    # who is active today was active yesterday and returned, or came back
    days = table.pivot_table(index="user", columns="day", values=["active", "returned"])
    for today, tomorrow in zip(
        days["active"].columns[:-1], days["active"].columns[1:], strict=True
    ):
        active_on_both = days["active"][today] * days["active"][tomorrow]
        assert active_on_both.equals(days["returned"][today])


def test_users_outside_the_experiment_are_left_out() -> None:
    settings = SETTINGS.model_copy(update={"share_by_arm": {"control": 0.3, "treatment": 0.2}})
    table = run_experiment(world_of(), against(engagement_oracle()), settings=settings).to_pandas()
    shares = table.groupby("arm")["user"].nunique() / 1_300
    assert shares["control"] == pytest.approx(0.3, abs=0.05)
    assert shares["treatment"] == pytest.approx(0.2, abs=0.05)


def test_drawn_experiments_scatter_around_the_expected_one() -> None:
    world, arms = world_of(num_users=300), against(satisfaction_oracle())
    expected = expect_experiment(world, arms, settings=SETTINGS).to_pandas()
    totals = [
        run_experiment(world, arms, settings=SETTINGS.model_copy(update={"seed": seed}))
        .to_pandas()
        .groupby("arm")[list(METRICS)]
        .sum()
        for seed in range(25)
    ]
    drawn = np.array(totals)  # [25, arms, metrics]
    error = drawn.mean(axis=0) - expected.groupby("arm")[list(METRICS)].sum().to_numpy()
    z = error / (drawn.std(axis=0, ddof=1) / np.sqrt(len(totals)))
    assert np.abs(z).max() < 4.5  # of Student's t with 24 degrees of freedom, 20 of them


def test_the_pre_period_knows_no_arms() -> None:
    world = world_of()
    tables = [
        run_experiment(world, against(policy), settings=SETTINGS).to_pandas()
        for policy in (engagement_oracle(), satisfaction_oracle())
    ]
    before = [table[table["day"] < datetime.date(2024, 3, 6)] for table in tables]
    pd.testing.assert_frame_equal(*before)
    assert not tables[0].equals(tables[1])


def test_the_better_policy_is_truly_better() -> None:
    world = world_of(conflict=-0.6)
    arms = {
        "control": Arm(policy=random_policy()),
        "engagement": Arm(policy=engagement_oracle()),
        "satisfaction": Arm(policy=satisfaction_oracle()),
        "noisy": Arm(policy=KnownPolicy(name="noisy", engagement=1.0, noise=1.0)),
    }
    shares = dict.fromkeys(arms, 0.25)
    settings = SETTINGS.model_copy(update={"share_by_arm": shares})
    means = true_means(world, arms, settings=settings)

    def lift(arm: str, metric: str, per: str | None = None) -> float:
        return true_lift(control=means["control"], treatment=means[arm], metric=metric, per=per)

    assert lift("engagement", "clicks") > lift("noisy", "clicks") > 0.1
    assert lift("satisfaction", "rating_sum", "surveys") > 0.1
    assert lift("engagement", "rating_sum", "surveys") < lift(
        "satisfaction", "rating_sum", "surveys"
    )
    # satisfied users come back
    assert lift("satisfaction", "returned", "active") > lift("engagement", "returned", "active")
    assert lift("satisfaction", "dismissals", "impressions") < 0


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_an_injected_lift_is_exact(share: float) -> None:
    world = world_of(behaviour={"click_rate": 0.5})
    arms = against(random_policy(), click_lift=share)
    means = true_means(world, arms, settings=SETTINGS)
    for metric, expected in [
        ("clicks", share),
        ("watch_time_s", share),
        ("likes", share),
        ("dismissals", 0.0),
        ("active", 0.0),
    ]:
        lift = true_lift(control=means["control"], treatment=means["treatment"], metric=metric)
        assert lift == pytest.approx(expected, abs=1e-12)


def test_equal_arms_have_no_true_lift() -> None:
    world = world_of()
    means = true_means(world, against(random_policy()), settings=SETTINGS)
    assert means["control"] == means["treatment"]


def daily_click_lifts(world: World) -> np.ndarray:
    """Expected lift of the same ranking on each day of the experiment, per active user."""
    table = expect_experiment(world, against(random_policy()), settings=SETTINGS)
    means = means_by_arm_and_day(table)
    rate = means["clicks"] / means["impressions"]
    return (rate["treatment"] / rate["control"]).to_numpy() - 1


def test_novelty_wears_off_and_is_absent_when_off() -> None:
    off = daily_click_lifts(world_of())
    on = daily_click_lifts(world_of(novelty={"size": 0.4, "half_life_days": 1.0})) - off
    assert on[:2] == pytest.approx([0, 0], abs=1e-12)  # the pre-period
    assert on[2] > 0.2
    # halved every day, nearly so on the scale of rates; crowds and returns hardly move
    assert on[3] / on[2] == pytest.approx(0.5, abs=0.08)
    assert on[4] / on[3] == pytest.approx(0.5, abs=0.08)


def control_clicks(world: World, *, share_treatment: float) -> pd.DataFrame:
    """Expected user-days of the users that are in control at either share."""
    shares = {"control": 0.1, "treatment": share_treatment}
    settings = SETTINGS.model_copy(update={"share_by_arm": shares, "num_days": 4})
    table = expect_experiment(world, against(engagement_oracle()), settings=settings).to_pandas()
    return table[table["arm"] == "control"].set_index(["user", "day"])[["clicks"]]


def test_interference_reaches_control_and_is_absent_when_off() -> None:
    quiet, crowded = world_of(), world_of(interference=0.5)
    pd.testing.assert_frame_equal(
        control_clicks(quiet, share_treatment=0.05), control_clicks(quiet, share_treatment=0.9)
    )
    few = control_clicks(crowded, share_treatment=0.05)["clicks"]
    many = control_clicks(crowded, share_treatment=0.9)["clicks"]
    # The others' favourites are crowded, and control's random slates hold them too.
    assert few.index.equals(many.index)
    assert abs(many.sum() / few.sum() - 1) > 0.01


def test_with_interference_a_split_misses_the_true_lift() -> None:
    gaps = []
    for interference in (0.0, 0.5):
        world, arms = world_of(interference=interference), against(engagement_oracle())
        means = true_means(world, arms, settings=SETTINGS)
        truth = true_lift(
            control=means["control"],
            treatment=means["treatment"],
            metric="clicks",
            per="impressions",
        )
        table = expect_experiment(world, arms, settings=SETTINGS).to_pandas()
        after = table[table["day"] >= datetime.date(2024, 3, 6)].groupby("arm")[list(METRICS)].sum()
        rate = after["clicks"] / after["impressions"]
        gaps.append(rate["treatment"] / rate["control"] - 1 - truth)
    assert abs(gaps[0]) < 0.1  # which users happen to be in which arm; the same in both worlds
    assert gaps[1] - gaps[0] > 0.02  # a split can't see that the favourites are crowded for all


def test_the_logging_policy_can_be_an_arm() -> None:
    world = world_of()
    arms = {"control": Arm(policy=logging_policy(world)), "treatment": Arm(policy=random_policy())}
    means = true_means(world, arms, settings=SETTINGS)
    assert true_lift(control=means["control"], treatment=means["treatment"], metric="clicks") < -0.1


def test_a_world_that_nobody_visits_gives_zeros() -> None:
    world = world_of(num_users=3, activity={"share_active": 0.0, "comeback_rate": 0.0})
    table = run_experiment(world, against(engagement_oracle()), settings=SETTINGS).to_pandas()
    assert len(table) == 3 * 5
    assert not table[list(METRICS)].any(axis=None)


def test_mistakes_are_named() -> None:
    world = world_of()
    with pytest.raises(ValueError, match="arms: expected"):
        run_experiment(world, {"control": Arm(policy=random_policy())}, settings=SETTINGS)
    late = SETTINGS.model_copy(update={"first_day": 5})
    with pytest.raises(ValueError, match=r"day must be in 0\.\.5, got 6"):
        run_experiment(world, against(random_policy()), settings=late)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        run_experiment(world, against(random_policy()), settings=SETTINGS, jobs=0)
    with pytest.raises(ConfigError, match="pre_period_days 9"):
        parse_config(ExperimentSettings, {"first_day": 3, "pre_period_days": 9}, source="test")
    with pytest.raises(ConfigError, match="is not among the arms"):
        parse_config(ExperimentSettings, {"control": "a"}, source="test")
    with pytest.raises(ValueError, match="must be above 0"):
        true_lift(control={"likes": 0.0}, treatment={"likes": 1.0}, metric="likes")
