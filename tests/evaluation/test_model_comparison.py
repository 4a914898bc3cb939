"""Headline comparisons over tasks, and the gate."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ranker.evaluation.compare import compare, is_worse
from ranker.evaluation.evaluate import evaluate_task
from ranker.evaluation.intervals import BootstrapSettings


@pytest.fixture
def evaluations():
    """Three tasks: a clear winner, a regression where it loses, one with too few labels."""
    rng = np.random.default_rng(0)
    users = rng.integers(53, size=701)
    truth = rng.normal(size=701)
    probability = 1 / (1 + np.exp(-truth))
    click = (rng.random(701) < probability).astype(float)
    survey = np.where(rng.random(701) < 0.02, click, np.nan)
    watch = truth + 5
    noise = 5 + rng.normal(size=701)
    tasks = {
        "click": ("binary", click, {"new": probability, "old": np.full(701, 0.5)}),
        "watch_time_s": ("regression", watch, {"new": noise, "old": watch + 0.1}),
        "survey": ("binary", survey, {"new": probability, "old": probability}),
    }
    return {
        task: evaluate_task(
            kind=kind,
            labels=labels,
            predictions_by_model=predictions,
            users=users,
            lists=users,
            rng=rng,
            settings=BootstrapSettings(num_replicates=100),
        )
        for task, (kind, labels, predictions) in tasks.items()
    }, roc_auc_score(click, probability)


def test_headlines_and_verdicts(evaluations):
    by_task, click_auc = evaluations
    comparisons = compare(by_task, a="new", b="old")
    assert [(c.task, c.metric, c.verdict) for c in comparisons] == [
        ("click", "auc", "better"),
        ("watch_time_s", "rmse", "worse"),
        ("watch_time_s", "xauc", "worse"),
        ("survey", "auc", "cannot tell"),
    ]
    click = comparisons[0]
    assert click.a.value == pytest.approx(click_auc)
    assert click.b.value == pytest.approx(0.5)
    assert click.difference.value == pytest.approx(click_auc - 0.5)
    assert "fewer than 20" in comparisons[-1].difference.reason


def test_the_gate_fails_on_any_worse_task_and_passes_what_it_cannot_tell(evaluations):
    comparisons = compare(evaluations[0], a="new", b="old")
    assert is_worse(comparisons)
    assert not is_worse([c for c in comparisons if c.task != "watch_time_s"])
    assert not is_worse(compare(evaluations[0], a="old", b="old"))
    assert not is_worse([])


def test_swapping_models_swaps_verdicts(evaluations):
    opposite = {"better": "worse", "worse": "better", "cannot tell": "cannot tell"}
    forward = compare(evaluations[0], a="new", b="old")
    backward = compare(evaluations[0], a="old", b="new")
    assert [opposite[c.verdict] for c in forward] == [c.verdict for c in backward]


def test_unknown_models_are_refused(evaluations):
    with pytest.raises(ValueError, match="'best' was not evaluated"):
        compare(evaluations[0], a="best", b="old")
