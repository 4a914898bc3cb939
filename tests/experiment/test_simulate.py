import json
import math

import numpy as np
import pytest

from ranker.experiment.outcomes import full_examination, power_examination
from ranker.experiment.policy import JudgedCandidates, ScoredArm
from ranker.experiment.response import LoggedImpressions, ResponseSettings
from ranker.experiment.simulate import simulate
from ranker.experiment.simulation_result import SimulationSettings
from ranker.schema import TaskSpec

CLICK = TaskSpec(name="click", label="c", family="engagement", kind="binary")
WATCH = TaskSpec(name="watch_s", label="w", family="engagement", kind="regression")
HATE = TaskSpec(name="hate", label="h", family="satisfaction", kind="binary", direction="negative")
TASKS = (CLICK, WATCH, HATE)
TEST_START_MS = 1_000_000
RESPONSE = ResponseSettings(max_iter=12, learning_rate=0.3, max_leaf_nodes=7)
NAMES = ("taste", "noise")


def click_probability(features):
    return 1 / (1 + np.exp(0.5 - 1.5 * features[:, 0]))


def make_log(*, num_users=211, rows_each=7, seed=1):
    """Taste brings clicks and watch time, its lack brings hates; noise brings nothing."""
    rng = np.random.default_rng(seed)
    num_rows = num_users * rows_each
    features = rng.normal(size=(num_rows, 2)).astype(np.float32)
    labels = {
        "click": (rng.random(num_rows) < click_probability(features)).astype(float),
        "watch_s": np.exp(0.7 * features[:, 0]) * rng.gamma(1.5, 8, num_rows),
        "hate": (rng.random(num_rows) < 0.3 / (1 + np.exp(2 * features[:, 0]))).astype(float),
    }
    return LoggedImpressions(
        features=features,
        feature_names=NAMES,
        labels=labels,
        users=np.repeat(np.arange(num_users), rows_each),
        times_ms=rng.integers(0, TEST_START_MS, num_rows),
    )


def make_candidates(*, num_users=307, num_candidates=9, seed=2):
    rng = np.random.default_rng(seed)
    num_rows = num_users * num_candidates
    return JudgedCandidates(
        requests=np.repeat(np.arange(num_users), num_candidates),
        users=np.repeat(100 + np.arange(num_users), num_candidates),
        items=np.tile(np.arange(num_candidates), num_users),
        features=rng.normal(size=(num_rows, 2)).astype(np.float32),
        feature_names=NAMES,
    )


def run(candidates=None, log=None, *, control, treatment, tasks=TASKS, **changes):
    candidates = make_candidates() if candidates is None else candidates
    arms = {"taste": candidates.features[:, 0], "noise": candidates.features[:, 1]}
    examination = changes.pop("examination", full_examination(num_ranks=4))
    values = {"slate_size": 4, "num_refits": 6, "response": RESPONSE}
    return simulate(
        candidates=candidates,
        control=ScoredArm(name=control, scores=arms[control].astype(float)),
        treatment=ScoredArm(name=treatment, scores=arms[treatment].astype(float)),
        log=make_log() if log is None else log,
        tasks=tasks,
        test_start_ms=TEST_START_MS,
        examination=examination,
        settings=SimulationSettings(**{**values, **changes}),
    )


def by_metric(lifts):
    return {lift.metric: lift for lift in lifts}


def test_the_better_arm_wins_on_every_metric():
    result = run(control="noise", treatment="taste")
    assert {lift.metric: str(lift.verdict) for lift in result.lifts} == {
        "click": "better", "watch_s": "better", "hate": "better",
    }  # fmt: skip
    assert by_metric(result.lifts)["hate"].lift < 0 < by_metric(result.lifts)["click"].lift
    assert {str(lift.verdict) for lift in result.expected_lifts} == {"better"}
    back = run(control="taste", treatment="noise")
    assert {str(lift.verdict) for lift in back.expected_lifts} == {"worse"}


def test_expected_lift_is_near_the_truth_and_narrower():
    candidates = make_candidates()
    result = run(candidates, control="noise", treatment="taste", tasks=(CLICK,))
    truth = click_probability(candidates.features).reshape(307, 9)
    means = []
    for column in (1, 0):
        scores = candidates.features[:, column].reshape(307, 9)
        means.append(np.take_along_axis(truth, np.argsort(-scores)[:, :4], axis=1).sum() / 307)
    (expected,), (drawn,) = result.expected_lifts, result.lifts
    assert expected.control_mean == pytest.approx(means[0], rel=0.1)
    assert expected.treatment_mean == pytest.approx(means[1], rel=0.1)
    assert expected.ci_high - expected.ci_low < drawn.ci_high - drawn.ci_low
    assert expected.num_users_control == expected.num_users_treatment == 307
    assert drawn.num_users_control + drawn.num_users_treatment == 307


def test_same_scores_are_no_verdict():
    result = run(control="taste", treatment="taste")
    assert {str(lift.verdict) for lift in result.lifts + result.expected_lifts} == {"cannot tell"}
    assert {(one.lift, one.ci_low, one.ci_high) for one in result.expected_lifts} == {(0, 0, 0)}
    assert all(lift.ci_low < 0 < lift.ci_high for lift in result.lifts)
    assert result.slate_overlap == 1


@pytest.mark.slow
def test_same_scores_cover_zero_95_times_in_100():
    log, candidates, num_runs = make_log(), make_candidates(), 120
    covered = 0
    for seed in range(num_runs):
        result = run(
            candidates, log, control="taste", treatment="taste", tasks=(CLICK,),
            seed=seed, salt=f"split-{seed}", num_refits=8,
        )  # fmt: skip
        covered += result.lifts[0].ci_low <= 0 <= result.lifts[0].ci_high
    standard_error = math.sqrt(0.95 * 0.05 / num_runs)
    assert abs(covered / num_runs - 0.95) < 3 * standard_error


@pytest.mark.slow
def test_intervals_cover_the_truth_of_a_known_world():
    # The truth: the arms' expected clicks on many more requests than any experiment has.
    features = make_candidates(num_users=60_000, seed=99).features.reshape(-1, 9, 2)
    taste, noise = (
        np.take_along_axis(
            click_probability(features.reshape(-1, 2)).reshape(-1, 9),
            np.argsort(-features[:, :, column])[:, :4],
            axis=1,
        ).mean()
        for column in (0, 1)
    )
    truth, num_runs = taste / noise - 1, 80
    covered = {"drawn": 0, "expected": 0}
    for seed in range(num_runs):
        result = run(
            make_candidates(seed=1_000 + seed), make_log(seed=5_000 + seed),
            control="noise", treatment="taste", tasks=(CLICK,),
            seed=seed, salt=f"split-{seed}", num_refits=8,
        )  # fmt: skip
        covered["drawn"] += result.lifts[0].ci_low <= truth <= result.lifts[0].ci_high
        (expected,) = result.expected_lifts
        covered["expected"] += expected.ci_low <= truth <= expected.ci_high
    # Fresh users and a fresh log each time: without refits the intervals would be too short.
    standard_error = math.sqrt(0.95 * 0.05 / num_runs)
    assert covered["drawn"] / num_runs > 0.95 - 3 * standard_error
    assert covered["expected"] / num_runs > 0.95 - 3 * standard_error


def test_examination_scales_what_ranks_bring():
    # Two ranks, examined with 1 and 1/4, against the top rank alone: the expected means are linear.
    top, half, full = (
        run(control="noise", treatment="taste", tasks=(WATCH,), slate_size=2, examination=curve)
        .expected_lifts[0]
        .treatment_mean
        for curve in (
            power_examination(eta=200, num_ranks=2),
            power_examination(eta=2, num_ranks=2),
            full_examination(num_ranks=2),
        )
    )
    assert top < half < full
    assert half == pytest.approx(top + (full - top) / 4)


def test_same_seed_same_result():
    first, second = (run(control="noise", treatment="taste", tasks=(WATCH,)) for _ in range(2))
    assert first.to_json() == second.to_json()
    other = run(control="noise", treatment="taste", tasks=(WATCH,), seed=1)
    assert other.lifts != first.lifts
    assert other.expected_lifts[0].lift == first.expected_lifts[0].lift


def test_rows_of_the_test_window_are_refused():
    log = make_log()
    times_ms = log.times_ms.copy()
    times_ms[[3, 5]] = TEST_START_MS, TEST_START_MS + 7
    late = LoggedImpressions(
        features=log.features,
        feature_names=NAMES,
        labels=log.labels,
        users=log.users,
        times_ms=times_ms,
    )
    with pytest.raises(ValueError, match=r"2 of 1477 rows are in the test window.*1000007"):
        run(log=late, control="noise", treatment="taste")


def test_inputs_that_do_not_fit_are_named():
    log = make_log()
    with pytest.raises(ValueError, match="no impressions before the test window"):
        run(log=log.take(np.array([], dtype=np.int64)), control="noise", treatment="taste")
    renamed = LoggedImpressions(
        features=log.features,
        feature_names=("noise", "taste"),
        labels=log.labels,
        users=log.users,
        times_ms=log.times_ms,
    )
    with pytest.raises(ValueError, match="expected the same in the same order"):
        run(log=renamed, control="noise", treatment="taste")
    with pytest.raises(ValueError, match="expected at least one, each once"):
        run(control="noise", treatment="taste", tasks=(CLICK, CLICK))
    rating = TaskSpec(
        name="rating", label="r", family="satisfaction", kind="regression", conditional_on="click"
    )
    with pytest.raises(ValueError, match="'rating' is conditional on 'click'; add that task"):
        run(control="noise", treatment="taste", tasks=(rating,))
    with pytest.raises(ValueError, match="no labels for task 'rating'"):
        run(control="noise", treatment="taste", tasks=(rating, CLICK))
    with pytest.raises(ValueError, match="covers ranks 1 to 3"):
        run(control="noise", treatment="taste", examination=full_examination(num_ranks=3))


@pytest.mark.parametrize("options", [{"slate_size": 0}, {"num_refits": 1}, {"confidence": 1.0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SimulationSettings(**options)


def test_conditional_tasks_may_come_first():
    log = make_log()
    rating = TaskSpec(
        name="watch_s", label="w", family="satisfaction", kind="regression", conditional_on="click"
    )
    both = run(log=log, control="noise", treatment="taste", tasks=(rating, CLICK))
    assert [lift.metric for lift in both.lifts] == ["watch_s", "click"]
    alone = run(log=log, control="noise", treatment="taste", tasks=(WATCH,))
    assert both.lifts[0].control_mean < alone.lifts[0].control_mean


def test_a_task_without_events_gets_means_but_no_lift():
    log = make_log()
    silent = LoggedImpressions(
        features=log.features,
        feature_names=NAMES,
        labels={**log.labels, "hate": np.zeros(1_477), "watch_s": np.full(1_477, np.nan)},
        users=log.users,
        times_ms=log.times_ms,
    )
    result = run(log=silent, control="noise", treatment="taste")
    lifts = by_metric(result.lifts)
    assert lifts["hate"].lift is None
    assert lifts["hate"].control_mean == 0
    assert lifts["watch_s"].control_mean is None
    assert lifts["click"].lift > 0
    assert any(note.startswith("hate: base rate only") for note in result.notes)
    json.dumps(result.to_json(), allow_nan=False)


def test_one_user_is_no_experiment():
    result = run(make_candidates(num_users=1), control="noise", treatment="taste", tasks=(CLICK,))
    assert "an interval needs at least 2" in result.lifts[0].reason
    assert "an interval needs at least 2" in result.expected_lifts[0].reason


def test_result_says_what_it_is():
    curve = power_examination(eta=0.5, num_ranks=4)
    result = run(control="noise", treatment="taste", tasks=(CLICK,), examination=curve)
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert values["label"] == "semi-synthetic"
    assert any("power(eta=0.5)" in sentence for sentence in values["assumptions"])
    assert values["examination"]["probabilities"][3] == 0.5
    assert (values["num_requests"], values["num_log_rows"]) == (307, 1_477)
    assert values["sample_ratio_p_value"] > 1e-3
    assert 0 < values["slate_overlap"] < 1
