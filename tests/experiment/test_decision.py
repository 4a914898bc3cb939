"""The rule of the decision, case by case, on effects of known size and noise."""

import pytest

from ranker.experiment.assignment import check_arm_counts
from ranker.experiment.decision import Verdict, decide
from ranker.experiment.effect import ArmEstimate, compare_arms
from ranker.experiment.metric import MetricSpec
from ranker.experiment.metric_result import MetricPower, MetricResult
from ranker.experiment.power import UsersNeeded

AS_PLANNED = check_arm_counts(
    {"control": 5000, "treatment": 5000}, share_by_arm={"control": 1, "treatment": 1}
)
MEASURE = {"kind": "mean", "column": "x"}


def result(lift, se, *, role="primary", direction="positive", margin=None, need=20_000):
    """A metric whose lift is ``lift`` with standard error ``se``; its margin or worthwhile 1 %."""
    metric = MetricSpec(
        name=f"{role} metric", measure=MEASURE, role=role, direction=direction, margin=margin
    )
    control = ArmEstimate(value=100.0, squared_se=(100 * se) ** 2 / 2, num_users=5000)
    treatment = ArmEstimate(value=100 * (1 + lift), squared_se=(100 * se) ** 2 / 2, num_users=5000)
    effect = compare_arms(control, treatment, method="mean", confidence=0.95)
    return MetricResult(
        metric=metric,
        treatment="treatment",
        plain=effect,
        adjusted=None,
        p_adjusted=effect.p_value,
        adjustment="Holm",
        course=None,
        decides_by_course=False,
        alpha=0.05,
        power=MetricPower(
            target_lift=metric.target_lift,
            users_needed=UsersNeeded(control=need, treatment=need),
        ),
    )


def guardrail(lift, se, *, direction="positive", margin=0.02):
    return result(lift, se, role="guardrail", direction=direction, margin=margin)


def decided(*results, sample_ratio=AS_PLANNED):
    return decide(results, treatment="treatment", sample_ratio=sample_ratio, num_days=7)


FINE = guardrail(0.0, 0.005)
CASES = {
    # the interval of a lift is about lift ± 2 se
    "better, guardrail held": ([result(0.03, 0.01), FINE], Verdict.SHIP),
    "better, no guardrail": ([result(0.03, 0.01)], Verdict.SHIP),
    "less of a bad thing": ([result(-0.03, 0.01, direction="negative")], Verdict.SHIP),
    "worse": ([result(-0.03, 0.01), FINE], Verdict.DONT_SHIP),
    "more of a bad thing": ([result(0.03, 0.01, direction="negative")], Verdict.DONT_SHIP),
    "one better, one worse": ([result(0.03, 0.01), result(-0.03, 0.01)], Verdict.DONT_SHIP),
    "one better, one open": ([result(0.03, 0.01), result(0.0, 0.02)], Verdict.SHIP),
    "no worthwhile gain": ([result(0.0, 0.003), FINE], Verdict.DONT_SHIP),
    "cannot tell": ([result(0.005, 0.02), FINE], Verdict.NOT_ENOUGH_DATA),
    "guardrail open": ([result(0.03, 0.01), guardrail(0.0, 0.02)], Verdict.NOT_ENOUGH_DATA),
    "guardrail beyond": ([result(0.03, 0.01), guardrail(-0.05, 0.01)], Verdict.DONT_SHIP),
    "guardrail worse but within": ([result(0.03, 0.01), guardrail(-0.01, 0.003)], Verdict.SHIP),
    "guardrail worse, may be beyond": (
        [result(0.03, 0.01), guardrail(-0.02, 0.005)],
        Verdict.DONT_SHIP,
    ),
    "guardrail of a bad thing": (
        [result(0.03, 0.01), guardrail(0.05, 0.01, direction="negative")],
        Verdict.DONT_SHIP,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rule(name):
    results, verdict = CASES[name]
    assert decided(*results).verdict is verdict


def test_a_broken_split_comes_before_everything():
    counts = {"control": 5000, "treatment": 5600}
    broken = check_arm_counts(counts, share_by_arm={"control": 1, "treatment": 1})
    found = decided(result(0.03, 0.01), FINE, sample_ratio=broken)
    assert found.verdict is Verdict.REFUSED
    (reason,) = found.reasons
    assert "control 5,000 instead of about 5,300, treatment 5,600 instead of" in reason
    assert found.headline.startswith("No verdict on treatment. The users are not split as planned")


def test_the_deciding_reason_comes_first():
    found = decided(result(0.03, 0.01), guardrail(-0.05, 0.01))
    assert found.reasons[0].startswith("guardrail metric fell by 5.00%")
    assert found.reasons[0].endswith("worse, and not within its margin of 2.00%.")
    assert found.headline.startswith("Don't ship treatment. guardrail metric fell by 5.00%")


def test_not_enough_data_names_users_and_days():
    (reason,) = decided(result(0.005, 0.02, need=20_000)).reasons
    # 5,000 users an arm in 7 days: 20,000 take 4 times as many, 28 days
    assert "about 20,000 users in control and 20,000 in treatment, 4.0 times as many" in reason
    assert "28 days if users kept arriving as so far" in reason


def test_enough_users_and_still_open():
    (reason,) = decided(result(0.005, 0.004, need=4000)).reasons
    assert "There are users enough to see 1.00%" in reason


def test_a_gain_out_of_reach_is_said():
    (reason,) = decided(result(-0.001, 0.003)).reasons
    assert "a gain of at most 0.49%, less than the 1.00% that would be worthwhile" in reason


def test_a_metric_without_a_value():
    control = ArmEstimate(value=0.0, squared_se=0.0, num_users=5000)
    effect = compare_arms(control, control, method="mean", confidence=0.95)
    base = guardrail(0.0, 0.005)
    empty = MetricResult(
        **{name: getattr(base, name) for name in base.__slots__} | {"plain": effect}
    )
    found = decided(result(0.03, 0.01), empty)
    assert found.verdict is Verdict.NOT_ENOUGH_DATA
    assert "its margin of 2.00% cannot be checked" in found.reasons[0]
