import numpy as np
import pytest
from quality_calibration import fit_isotonic, fit_platt
from quality_choice import choose_calibration
from scipy.special import expit, logit

from ranker.evaluation.rows import EvaluationRows

TASKS = ("click", "long_view", "like")


def make_rows(labels):
    users = np.zeros(labels.size, dtype=np.int64)
    return EvaluationRows(
        start=0, stop=labels.size, labels=dict.fromkeys(TASKS, labels), users=users, lists=users
    )


def test_platt_undoes_a_line_in_log_odds():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(-1, 1.5, size=40_000)
    labels = (rng.random(40_000) < expit(log_odds)).astype(float)
    calibrate = fit_platt(labels, expit(2 * log_odds + 1))
    truth = np.array([0.02, 0.3, 0.9])
    np.testing.assert_allclose(calibrate(expit(2 * logit(truth) + 1)), truth, atol=0.015)


def test_isotonic_pools_what_falls():
    # adjacent violators by hand: 1, 0 -> one half; 0 and 1 at the ends stay half a row away
    predictions = np.array([0.1, 0.2, 0.3, 0.4])
    calibrate = fit_isotonic(np.array([0.0, 1.0, 0.0, 1.0]), predictions)
    np.testing.assert_allclose(calibrate(predictions), [0.125, 0.5, 0.5, 0.875])
    np.testing.assert_allclose(calibrate(np.array([0.0, 0.99])), [0.125, 0.875])


def test_a_day_of_few_rows_prefers_the_line():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.05, 0.6, size=5_000)
    labels = (rng.random(5_000) < truth).astype(float)
    predictions = dict.fromkeys(TASKS, truth)
    method, losses = choose_calibration(predictions, make_rows(labels), fit_rows=60)
    assert method == "platt"
    assert losses["platt"] < losses["isotonic"]


def test_a_step_in_the_truth_prefers_steps():
    rng = np.random.default_rng(2)
    values = rng.uniform(0, 1, size=9_000)
    labels = (rng.random(9_000) < np.where(values > 0.7, 0.8, 0.1)).astype(float)
    predictions = dict.fromkeys(TASKS, values)
    assert choose_calibration(predictions, make_rows(labels), fit_rows=5_000)[0] == "isotonic"


def test_only_the_first_rows_fit_a_calibration():
    rng = np.random.default_rng(4)
    values = rng.uniform(0.1, 0.9, size=2_000)
    labels = (rng.random(2_000) < values).astype(float)
    labels[700:] = 1 - labels[700:]  # the rest is the opposite: whoever had seen it would know
    _, losses = choose_calibration(dict.fromkeys(TASKS, values), make_rows(labels), fit_rows=700)
    assert min(losses.values()) > np.log(2)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_calibrated_values_are_probabilities_that_keep_the_order(fit):
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.random(701), [0.0, 1.0]])
    labels = (rng.random(703) < values**2).astype(float)
    calibrated = fit(labels, values)(np.sort(values))
    assert ((calibrated > 0) & (calibrated < 1)).all()
    assert (np.diff(calibrated) >= 0).all()
