from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ranker.config import ConfigError
from ranker.data.parquet import DataError
from ranker.evaluation.calibration_counts import Counts, count_window, counts_table, read_counts
from ranker.evaluation.calibration_fit import (
    CalibrationConfig,
    fit_calibrators,
    fit_isotonic,
    fit_platt,
)
from ranker.evaluation.calibrators import (
    Calibrators,
    Evidence,
    Identity,
    Isotonic,
    Platt,
    Ratio,
    TaskCalibration,
    identity_calibrators,
    read_calibrators,
    undo_down_sampling,
)
from ranker.schema import TaskSpec

EVIDENCE = Evidence(windows=("2024-03-04",), rows=9, positives=4)


def task(name: str, kind: str, **fields: object) -> TaskSpec:
    values = {"name": name, "label": name, "family": "engagement", "kind": kind, **fields}
    return TaskSpec.model_validate(values)


CLICK = task("click", "binary")
WATCH = task("watch_time_s", "regression")
RATING = task("rating", "regression", minimum=1.0, maximum=5.0)


def overconfident(num_rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from sigmoid(0.6 z - 0.8), and the prediction sigmoid(z)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.0, 1.5, num_rows)
    labels = (rng.random(num_rows) < expit(0.6 * z - 0.8)).astype(np.float64)
    return labels, expit(z)


def counted(labels: np.ndarray, predictions: np.ndarray) -> Counts:
    return count_window({"click": labels}, {"click": predictions}, [CLICK])["click"]


def only(calibrator: object, **fields: object) -> Calibrators:
    return Calibrators.model_validate(
        {"tasks": {"click": {"calibrator": calibrator.model_dump(), **fields}}}  # type: ignore[attr-defined]
    )


def test_platt_is_logistic_regression_on_the_log_odds() -> None:
    labels, predictions = overconfident(23_000, seed=1)
    found = fit_platt(counted(labels, predictions), EVIDENCE)
    assert isinstance(found, Platt)
    reference = LogisticRegression(C=1e9, tol=1e-10).fit(logit(predictions)[:, None], labels)
    assert found.slope == pytest.approx(reference.coef_[0, 0], abs=2e-3)
    assert found.intercept == pytest.approx(reference.intercept_[0], abs=2e-3)
    expected = reference.predict_proba(logit(predictions)[:, None])[:, 1]
    applied = only(found).apply({"click": predictions})["click"]
    np.testing.assert_allclose(applied, expected, atol=1e-3)
    assert applied.mean() == pytest.approx(labels.mean(), rel=1e-3)


def test_isotonic_goes_through_the_steps_of_the_regression_and_makes_no_ties() -> None:
    rng = np.random.default_rng(2)
    levels = expit(np.linspace(-3.05, 2.05, 18))  # a bin each
    predictions = rng.choice(levels, 1_700)
    labels = (rng.random(1_700) < 0.2 + 0.6 * predictions**2).astype(np.float64)
    found = fit_isotonic(counted(labels, predictions), EVIDENCE)
    assert isinstance(found, Isotonic)
    reference = IsotonicRegression().fit(predictions, labels)
    steps = np.unique(reference.predict(levels))
    assert 3 < len(steps) < len(levels), "some levels were pooled"
    np.testing.assert_allclose(found.labels, steps, atol=1e-12)
    applied = only(found).apply({"click": levels})["click"]
    assert (np.diff(applied) > 0).all()
    assert (np.diff(reference.predict(levels)) == 0).any(), "the step function itself ties"


def test_isotonic_without_a_positive_at_the_lower_end_makes_nothing_impossible() -> None:
    labels = np.array([0.0] * 40 + [0, 1, 1, 1])
    predictions = np.linspace(0.01, 0.9, 44)
    found = fit_isotonic(counted(labels, predictions), EVIDENCE)
    applied = only(found).apply({"click": predictions})["click"]
    assert applied.min() > 0 and applied.max() < 1


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    predictions=probabilities,
    slope=st.floats(0.01, 20),
    intercept=st.floats(-20, 20),
    knots=st.lists(st.floats(0.001, 0.999), min_size=2, max_size=9, unique=True),
    kept=st.floats(0.001, 1),
)
def test_no_calibrator_reverses_an_order_or_leaves_the_probabilities(
    predictions: list[float], slope: float, intercept: float, knots: list[float], kept: float
) -> None:
    x = np.sort(np.array(predictions))
    rising = tuple(sorted(knots))
    for calibrator in (
        Platt(slope=slope, intercept=intercept, evidence=EVIDENCE),
        Isotonic(predictions=rising, labels=tuple(k**2 for k in rising), evidence=EVIDENCE),
        Identity(reason="none"),
    ):
        applied = only(calibrator, negatives_kept=kept).apply({"click": x})["click"]
        assert (np.diff(applied) >= 0).all()
        assert ((applied >= 0) & (applied <= 1)).all()


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.floats(0, 1)), min_size=1, max_size=60
    ),
    kind=st.sampled_from(["platt", "isotonic"]),
)
def test_any_labels_and_predictions_give_a_calibrator_that_keeps_the_order(
    rows: list[tuple[float, float]], kind: str
) -> None:
    labels, predictions = (np.array(column) for column in zip(*rows, strict=True))
    config = CalibrationConfig.model_validate({"kind": kind, "min_labels": 1})
    counts = {"2024-03-04": {"click": counted(labels, predictions)}}
    found = fit_calibrators(counts, [CLICK], config)
    x = np.linspace(0, 1, 23)
    applied = found.apply({"click": x})["click"]
    assert (np.diff(applied) >= 0).all()
    assert ((applied >= 0) & (applied <= 1)).all()
    assert Calibrators.model_validate(found.model_dump(mode="json")) == found


def test_down_sampled_negatives_are_corrected_to_the_whole_log() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(-2.5, 1.2, 400_000)
    truth = expit(z)
    clicks = (rng.random(len(z)) < truth).astype(np.float64)
    kept = (clicks == 1) | (rng.random(len(z)) < 0.1)
    # a model of the down-sampled log learns these odds, here with an error to be calibrated away
    raw = expit(0.7 * (z - np.log(0.1)) + 0.4)
    short = task("click", "binary", negatives_kept=0.1)
    counts = count_window({"click": clicks[kept]}, {"click": raw[kept]}, [short])
    calibrators = fit_calibrators({"2024-03-04": counts}, [short], CalibrationConfig())
    corrected = calibrators.apply({"click": raw})["click"]
    assert corrected.mean() == pytest.approx(clicks.mean(), rel=0.01)
    np.testing.assert_allclose(corrected, truth, rtol=0.06)
    in_log_unit = calibrators.apply_in_log_unit({"click": raw[kept]})["click"]
    assert in_log_unit.mean() == pytest.approx(clicks[kept].mean(), rel=0.01)
    assert clicks[kept].mean() > 4 * clicks.mean()
    assert calibrators.down_sampled == {"click": 0.1}


def test_undoing_down_sampling_by_hand() -> None:
    # of 1 positive and 9 negatives a third of the negatives is kept: 1 / 4 there, 1 / 10 in all
    found = undo_down_sampling(np.array([0.25, 0.0, 1.0]), negatives_kept=1 / 3)
    np.testing.assert_allclose(found, [0.1, 0.0, 1.0])


def test_the_correction_needs_no_calibrator() -> None:
    short = task("click", "binary", negatives_kept=0.5)
    found = identity_calibrators((short,), "why not").apply({"click": np.array([0.5])})
    np.testing.assert_allclose(found["click"], [1 / 3])


def window(num_rows: int, positives: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros(num_rows)
    labels[-positives:] = 1
    return labels, np.linspace(0.1, 0.9, num_rows)


def fit(*windows: tuple[np.ndarray, np.ndarray], **config: object) -> object:
    counts = {
        f"2024-03-{day:02}": {"click": counted(*one)} for day, one in enumerate(windows, start=4)
    }
    settings = CalibrationConfig.model_validate(config)
    return fit_calibrators(counts, [CLICK], settings).tasks["click"].calibrator


def test_a_window_short_of_positives_is_widened_and_then_left() -> None:
    enough = fit(window(90, 30), window(70, 25), min_labels=25)
    assert isinstance(enough, Platt)
    assert enough.evidence == Evidence(windows=("2024-03-05",), rows=70, positives=25)
    wider = fit(window(90, 30), window(70, 25), min_labels=26)
    assert isinstance(wider, Platt)
    assert wider.evidence.windows == ("2024-03-04", "2024-03-05")
    assert (wider.evidence.rows, wider.evidence.positives) == (160, 55)
    short = fit(window(90, 30), window(70, 25), min_labels=56)
    assert short == Identity(
        reason="the last 2 windows hold 55 positives and 105 negatives, fewer than 56"
    )
    # negatives count as much
    assert isinstance(fit(window(60, 55), min_labels=6), Identity)
    few = fit(window(90, 30), window(70, 25), min_labels=26, max_windows=1)
    assert few == Identity(
        reason="the last 1 windows hold 25 positives and 45 negatives, fewer than 26"
    )
    assert fit() == Identity(reason="no window was predicted before it was trained on")
    assert fit(window(90, 30), kind="none") == Identity(reason="the config asks for none")


def test_predictions_that_go_the_wrong_way_are_left_alone() -> None:
    labels, predictions = window(90, 30)
    found = fit((labels, predictions[::-1]), min_labels=20)
    assert isinstance(found, Identity)
    assert "must not reverse the order" in found.reason


def test_predictions_that_are_all_alike_get_the_base_rate() -> None:
    found = fit((np.repeat([0.0, 1.0], [630, 70]), np.full(700, 0.4)), min_labels=20)
    assert isinstance(found, Platt)
    applied = only(found).apply({"click": np.array([0.4])})["click"]
    assert applied[0] == pytest.approx(0.1, abs=2e-3)


def test_labels_that_were_not_observed_count_for_nothing() -> None:
    labels, predictions = overconfident(900, seed=5)
    some = np.concatenate([labels, np.full(50, np.nan)])
    more = np.concatenate([predictions, np.full(50, 0.99)])
    assert fit((some, more)) == fit((labels, predictions))


def test_a_ratio_brings_a_regression_to_its_mean() -> None:
    labels = {"watch_time_s": np.array([2.0, 6.0, np.nan]), "rating": np.array([2.0, 5.0, 2.0])}
    raw = {"watch_time_s": np.array([1.0, 4.0, 9.0]), "rating": np.array([3.0, 3.5, 4.0])}
    tasks = [WATCH, RATING]
    counts = {"2024-03-04": count_window(labels, raw, tasks)}
    found = fit_calibrators(counts, tasks, CalibrationConfig(min_rows=2))
    applied = found.apply(raw)
    np.testing.assert_allclose(applied["watch_time_s"], np.array([1.0, 4.0, 9.0]) * 8 / 5)
    # above its minimum of 1: labels 1 + 4 + 1 = 6, predictions 2 + 2.5 + 3 = 7.5
    np.testing.assert_allclose(applied["rating"], 1 + 0.8 * np.array([2.0, 2.5, 3.0]))
    few = fit_calibrators(counts, tasks, CalibrationConfig(min_rows=3)).tasks
    assert few["watch_time_s"].calibrator == Identity(
        reason="the last 1 windows hold 2 labels, fewer than 3"
    )
    assert few["rating"].calibrator.kind == "ratio"
    none = fit_calibrators(counts, tasks, CalibrationConfig(min_rows=2, regression="none"))
    assert {one.kind for one in (t.calibrator for t in none.tasks.values())} == {"identity"}
    dark = {"2024-03-04": count_window({**labels, "watch_time_s": np.zeros(3)}, raw, tasks)}
    calibrator = fit_calibrators(dark, tasks, CalibrationConfig(min_rows=2)).tasks["watch_time_s"]
    assert "not above the minimum" in calibrator.calibrator.reason  # type: ignore[union-attr]


def test_calibrators_and_counts_survive_a_round_trip(tmp_path: Path) -> None:
    labels, predictions = overconfident(700, seed=6)
    counts = {
        name: {"click": counted(labels[rows], predictions[rows])}
        for name, rows in (("2024-03-04", slice(300)), ("2024-03-05", slice(300, None)))
    }
    again = read_counts(counts_table(counts), [CLICK], "counts")
    assert list(again) == list(counts)
    for kind in ("platt", "isotonic"):
        config = CalibrationConfig.model_validate({"kind": kind, "min_labels": 150})
        found = fit_calibrators(counts, [CLICK], config)
        assert found == fit_calibrators(again, [CLICK], config)
        path = tmp_path / "calibrators.json"
        path.write_text(json.dumps(found.model_dump(mode="json")))
        assert read_calibrators(path, (CLICK,)) == found
    assert read_counts(counts_table({}), [CLICK], "counts") == {}
    with pytest.raises(DataError, match="counts: expected the columns"):
        read_counts(counts_table(counts).drop_columns("rows"), [CLICK], "counts")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "expected an object"),
        ('{"tasks": {}}', "expected the schema's tasks"),
        ('{"tasks": {"click": {"negatives_kept": 0.5, "calibrator": %s}}}', "shares of kept"),
        (
            '{"tasks": {"click": {"calibrator": {"kind": "platt", "slope": -1, "intercept": 0,'
            ' "evidence": {"windows": [], "rows": 0}}}}}',
            "slope.*greater than 0",
        ),
        (
            '{"tasks": {"click": {"calibrator": {"kind": "isotonic", "predictions": [0.4, 0.2],'
            ' "labels": [0.1, 0.2], "evidence": {"windows": [], "rows": 0}}}}}',
            "rise between 0 and 1",
        ),
    ],
)
def test_a_file_that_holds_no_calibrators_is_named(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "calibrators.json"
    path.write_text(content.replace("%s", '{"kind": "identity", "reason": ""}'))
    with pytest.raises(ConfigError, match=message):
        read_calibrators(path, (CLICK,))


def test_what_is_no_probability_is_named_and_the_callers_arrays_stay() -> None:
    calibrators = only(Platt(slope=2.0, intercept=0.0, evidence=EVIDENCE))
    for bad in (1.5, np.nan):
        with pytest.raises(ValueError, match=r"'click' must be probabilities.* in row 1"):
            calibrators.apply({"click": np.array([0.5, bad])})
    mine = {"click": np.array([0.5, 0.2], dtype=np.float32)}
    found = calibrators.apply(mine)["click"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(mine["click"], np.array([0.5, 0.2], dtype=np.float32))
    ratio = TaskCalibration(calibrator=Ratio(factor=2.0, minimum=1.0, evidence=EVIDENCE))
    assert Calibrators(tasks={"rating": ratio}).kind_by_task == {"rating": "ratio"}
