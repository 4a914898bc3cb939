import json
import re

import numpy as np
import pytest

from ranker.experiment.lift import ArmMeans, MetricVerdict, estimate_lift
from ranker.schema import TaskSpec

CLICK = TaskSpec(name="click", label="c", family="engagement", kind="binary")
HATE = TaskSpec(name="hate", label="h", family="satisfaction", kind="binary", direction="negative")


def arm(point, replicates=(1.0, 1.2, 1.1), num_users=5):
    return ArmMeans(point=point, replicates=np.array(replicates), num_users=num_users)


def test_interval_by_hand():
    # Ratio 1.5; deviations (T_b - 1.5 C_b) / 2 = 0, .25, -.25: SD .25; t(.975, 2) = 4.302653.
    lift = estimate_lift(
        CLICK,
        control=arm(2.0, (2.0, 1.0, 3.0), num_users=11),
        treatment=arm(3.0, (3.0, 2.0, 4.0), num_users=13),
        confidence=0.95,
    )
    assert lift.lift == pytest.approx(0.5)
    assert lift.ci_low == pytest.approx(0.5 - 4.302653 * 0.25, abs=1e-6)
    assert lift.ci_high == pytest.approx(0.5 + 4.302653 * 0.25, abs=1e-6)
    assert (lift.num_users_control, lift.num_users_treatment) == (11, 13)
    assert lift.verdict is MetricVerdict.CANNOT_TELL


def test_interval_agrees_with_the_spread_of_replicate_lifts():
    rng = np.random.default_rng(5)
    control, treatment = rng.normal(10, 0.1, 4_000), rng.normal(11, 0.1, 4_000)
    lift = estimate_lift(
        CLICK, control=arm(10.0, control), treatment=arm(11.0, treatment), confidence=0.9
    )
    spread = np.std(treatment / control - 1)
    assert lift.ci_high - lift.ci_low == pytest.approx(2 * 1.6449 * spread, rel=0.01)


@pytest.mark.parametrize(
    ("task", "treatment_point", "verdict"),
    [(CLICK, 3.0, "better"), (CLICK, 1.0, "worse"), (HATE, 3.0, "worse"), (HATE, 1.0, "better")],
)
def test_verdict_follows_the_metrics_direction(task, treatment_point, verdict):
    lift = estimate_lift(
        task,
        control=arm(2.0, (1.99, 2.0, 2.01)),
        treatment=arm(treatment_point, np.array((1.01, 1.0, 0.99)) * treatment_point),
        confidence=0.95,
    )
    assert str(lift.verdict) == verdict


def test_same_slates_are_no_verdict():
    lift = estimate_lift(CLICK, control=arm(2.0), treatment=arm(2.0), confidence=0.95)
    assert (lift.lift, lift.ci_low, lift.ci_high) == (0.0, 0.0, 0.0)
    assert lift.verdict is MetricVerdict.CANNOT_TELL


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        (arm(0.0), arm(2.0), "control mean is 0"),
        (arm(-1.0), arm(2.0), "control mean is -1"),
        (arm(2.0, num_users=1), arm(2.0), r"1 user\(s\) in control"),
        (arm(2.0), arm(np.nan, num_users=0), r"0 user\(s\) in treatment"),
        (arm(np.nan), arm(2.0), "can't be predicted"),
        (arm(2.0), arm(2.0, (1.0, np.nan, 2.0)), "in some refits"),
        (arm(2.0, (1.0,)), arm(2.0, (1.0,)), r"1 replicate\(s\)"),
        (arm(2.0), arm(0.0, (0.0, 0.0, 0.0)), "nothing happened in treatment"),
        (arm(2.0, (2.0, 2.0)), arm(0.0, (1.0, 1.0)), "2 replicates don't differ"),
    ],
)
def test_no_lift_without_a_reason(control, treatment, reason):
    lift = estimate_lift(CLICK, control=control, treatment=treatment, confidence=0.95)
    assert lift.lift is lift.ci_low is lift.ci_high is None
    assert lift.verdict is MetricVerdict.CANNOT_TELL
    assert re.search(reason, lift.reason)


def test_json_is_strict_and_complete():
    lift = estimate_lift(HATE, control=arm(np.nan), treatment=arm(2.0), confidence=0.95)
    text = json.dumps(lift.to_json(), allow_nan=False)
    values = json.loads(text)
    assert values["control_mean"] is None
    assert values["treatment_mean"] == 2.0
    assert (values["metric"], values["family"], values["direction"], values["verdict"]) == (
        "hate", "satisfaction", "negative", "cannot tell",
    )  # fmt: skip
