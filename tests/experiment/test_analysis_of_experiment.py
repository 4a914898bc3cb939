"""`analyse`: against pandas with scipy and statsmodels, and where there is nothing to analyse."""

import json
import math

import numpy as np
import pytest
from outcomes_tables import START, as_table, make_frame, settings
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ranker.experiment.analysis import analyse
from ranker.experiment.covariates import CovariateSample, cuped_effect
from ranker.experiment.decision import Verdict
from ranker.experiment.outcomes_reading import outcomes_of
from ranker.experiment.ratios import RatioSample, ratio_effect


def analysed(frame, **changes):
    chosen = settings(**changes)
    return analyse(outcomes_of(as_table(frame), chosen), chosen)


def by_user(frame, column):
    """Sums by arm, users in the order of their ids."""
    sums = frame.groupby(["arm", "user"])[column].sum()
    return sums["control"].to_numpy(), sums["treatment"].to_numpy()


@pytest.fixture(scope="module")
def frame():
    return make_frame(num_users=731, lift=0.1)


@pytest.fixture(scope="module")
def analysis(frame):
    return analysed(frame, slices=("device",))


def result_of(analysis, name, treatment="treatment"):
    return next(one for one in analysis.results_of(treatment) if one.metric.name == name)


def test_a_mean_is_welchs_test_on_sums_by_user(frame, analysis):
    control, treatment = by_user(frame[frame.day >= START], "watch_s")
    truth = stats.ttest_ind(treatment, control, equal_var=False)
    plain = result_of(analysis, "watch").plain
    low, high = truth.confidence_interval(0.95)
    assert plain.p_value == pytest.approx(truth.pvalue, rel=1e-9)
    assert (plain.difference_ci_low, plain.difference_ci_high) == pytest.approx((low, high))


def test_the_headline_is_cuped_on_the_pre_period(frame, analysis):
    now = by_user(frame[frame.day >= START], "watch_s")
    past = by_user(frame[frame.day < START], "watch_s")
    samples = [CovariateSample(outcome=y, covariate=x) for y, x in zip(now, past, strict=True)]
    truth = cuped_effect(*samples, confidence=0.95)
    found = result_of(analysis, "watch")
    assert found.headline.lift == pytest.approx(truth.lift, rel=1e-9)
    assert found.headline.p_value == pytest.approx(truth.p_value, rel=1e-6)
    assert found.headline.difference_se < 0.8 * found.plain.difference_se


def test_ratio_and_quantile(frame, analysis):
    current = frame[frame.day >= START]
    arms = zip(by_user(current, "clicks"), by_user(current, "shown"), strict=True)
    samples = [RatioSample(numerator=n, denominator=d) for n, d in arms]
    truth = ratio_effect(*samples, confidence=0.95)
    assert result_of(analysis, "ctr").plain.difference_se == pytest.approx(truth.difference_se)
    quantile = result_of(analysis, "p75").plain
    expected = current.groupby("arm").watch_s.quantile(0.75)
    assert (quantile.control, quantile.treatment) == pytest.approx(tuple(expected))


def test_slices_are_experiments_of_their_own(frame, analysis):
    device = frame.groupby("user").device.first()
    parts = {part.value: part.effect for part in result_of(analysis, "watch").slices}
    assert set(parts) == {"ios", "web"}
    for value, effect in parts.items():
        members = frame[frame.user.map(device) == value]
        alone = result_of(analysed(members), "watch").headline
        assert effect.lift == pytest.approx(alone.lift, rel=1e-9)
        assert effect.num_users_control == alone.num_users_control


def test_the_last_day_of_the_course_is_the_experiment(analysis):
    for name in ("watch", "ctr"):
        one = result_of(analysis, name)
        assert one.course.lifts[-1] == pytest.approx(one.headline.lift, rel=1e-12)
        assert one.course.fixed_lows[-1] == pytest.approx(one.headline.lift_ci_low, rel=1e-12)
        assert (one.course.lows < one.course.fixed_lows).all()
        assert (one.course.highs > one.course.fixed_highs).all()


def test_a_longer_table_continues_the_same_course(frame):
    early = frame[frame.day < frame.day.max()]
    short, whole = (result_of(analysed(f, peeking=True), "watch").course for f in (early, frame))
    np.testing.assert_allclose(short.lows, whole.lows[:-1], rtol=1e-12)
    np.testing.assert_allclose(short.highs, whole.highs[:-1], rtol=1e-12)


def test_p_values_are_adjusted_over_metrics_and_treatments():
    frame = make_frame(num_users=907, lift=0.04, arms=("control", "a", "b"), seed=8)
    names = ("watch_s", "clicks", "shown")
    metrics = [
        {"name": f"{role} {name}", "measure": {"kind": "mean", "column": name}, "role": role}
        for role in ("primary", "secondary")
        for name in names
    ]
    found = analysed(frame, metrics=metrics, share_by_arm={"control": 1, "a": 1, "b": 1})
    assert [decision.treatment for decision in found.decisions] == ["a", "b"]
    for role, method in (("primary", "holm"), ("secondary", "fdr_bh")):
        chosen = [one for one in found.results if one.metric.role == role]
        p_values = [one.headline.p_value for one in chosen]
        assert len(p_values) == 6
        truth = multipletests(p_values, method=method)[1]
        assert [one.p_adjusted for one in chosen] == pytest.approx(truth.tolist())


def test_winsorised_at_a_quantile_of_both_arms(frame):
    measure = {"kind": "mean", "column": "watch_s", "winsorise_quantile": 0.875}
    metric = {"name": "w", "measure": measure, "role": "primary"}
    control, treatment = by_user(frame[frame.day >= START], "watch_s")
    both = np.concatenate([control, treatment])
    low = np.quantile(both, 0.125, method="lower")
    high = np.quantile(both, 0.875, method="higher")
    found = result_of(analysed(frame, metrics=[metric]), "w").plain
    assert found.control == pytest.approx(np.clip(control, low, high).mean())
    assert found.treatment == pytest.approx(np.clip(treatment, low, high).mean())


def test_the_order_of_rows_and_the_names_of_users_dont_matter(frame, analysis):
    shuffled = frame.sample(frac=1, random_state=5)
    named = shuffled.assign(user="u" + shuffled.user.astype(str))
    for one, truth in zip(analysed(named).results, analysis.results, strict=True):
        assert one.headline.lift == pytest.approx(truth.headline.lift, rel=1e-9)
        assert one.headline.p_value == pytest.approx(truth.headline.p_value, rel=1e-6)


def test_the_bootstrap_agrees_and_comes_again_with_its_seed(frame):
    found, again = (analysed(frame, bootstrap_replicates=120, seed=4) for _ in range(2))
    for one in found.results:
        ratio = one.bootstrap.difference_se / one.headline.difference_se
        assert 0.75 < ratio < 1.3, one.metric.name
    assert json.dumps(found.to_json()) == json.dumps(again.to_json())
    other = analysed(frame, bootstrap_replicates=120, seed=5)
    assert result_of(other, "watch").bootstrap != result_of(found, "watch").bootstrap


def test_a_broken_split_refuses_a_verdict(frame):
    in_control = frame.arm == "control"
    lost = frame[~in_control | (frame.user % 3 != 0)]
    found = analysed(lost)
    num_users = lost.groupby("arm").user.nunique()
    truth = stats.chisquare(num_users)
    assert found.sample_ratio.p_value == pytest.approx(truth.pvalue)
    assert found.decisions[0].verdict is Verdict.REFUSED
    assert "not split as planned" in found.decisions[0].reasons[0]


def test_no_pre_period_no_cuped(frame):
    found = analysed(frame[frame.day >= START])
    assert not found.has_pre_period
    assert all(one.adjusted is None for one in found.results)
    assert result_of(found, "watch").power.detectable_lift_before is None


SMALL = {"share_by_arm": {"control": 1, "treatment": 40}}


def test_one_user_in_an_arm():
    frame = make_frame(num_users=41)
    first = frame.user.min()
    frame["arm"] = np.where(frame.user == first, "control", "treatment")
    found = analysed(frame, **SMALL)
    for one in found.results:
        assert one.headline.reason == "1 user(s) in control; an interval needs at least 2"
        assert math.isnan(one.headline.p_value)
    assert found.decisions[0].verdict is Verdict.NOT_ENOUGH_DATA


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (3.0, "the metric doesn't vary between users in either arm: no standard error"),
        (None, "0 user(s) in control; an interval needs at least 2"),
    ],
    ids=["zero variance", "all null"],
)
def test_a_metric_that_says_nothing(values, reason):
    frame = make_frame(num_users=53)
    frame["watch_s"] = np.nan if values is None else values
    found = analysed(frame, metrics=settings().metrics[:1], peeking=True)
    (one,) = found.results
    assert one.headline.reason == reason
    assert one.lift_interval is None
    assert found.decisions[0].verdict is Verdict.NOT_ENOUGH_DATA
    json.dumps(found.to_json(), allow_nan=False)


def test_three_empty_days_are_no_looks():
    frame = make_frame(num_users=53, num_days=9)
    days = sorted(day for day in frame.day.unique() if day >= START)
    course = result_of(analysed(frame[~frame.day.isin(days[3:6])]), "watch").course
    assert len(course.day_labels) == len(course.lows) == 6
    assert np.isfinite(course.lows).all()


@pytest.mark.slow
def test_without_an_effect_peeking_rarely_ships():
    # 400 experiments of 7 looks without any effect; at most 5 % may ever see one, so 99.9 % of
    # such trials see fewer than 36 (binomial)
    alarms = 0
    for seed in range(400):
        found = analysed(make_frame(num_users=300, num_days=7, seed=seed), peeking=True)
        course = result_of(found, "watch").course
        alarms += bool(((course.lows > 0) | (course.highs < 0)).any())
    assert alarms <= stats.binom.ppf(0.999, 400, 0.05)


def test_arms_that_differed_before_get_no_verdict():
    frame = make_frame(num_users=211)
    alike = analyse(outcomes_of(as_table(frame), settings()), settings())
    before = alike.results_of("treatment")[0].before
    past = frame[frame.day < START].groupby(["arm", "user"]).watch_s.sum()
    expected = stats.ttest_ind(past["treatment"], past["control"], equal_var=False)
    assert before.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert alike.decisions[0].verdict is not Verdict.REFUSED
    frame.loc[(frame.day < START) & (frame.arm == "control"), "watch_s"] = 0.0
    apart = analyse(outcomes_of(as_table(frame), settings()), settings())
    assert apart.decisions[0].verdict is Verdict.REFUSED
    assert "already differed" in apart.decisions[0].reasons[0]
