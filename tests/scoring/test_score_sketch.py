from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.scoring.job.score_sketch import ScoreSketch

scores_lists = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


@given(parts=st.lists(scores_lists, min_size=1, max_size=5))
def test_quartiles_are_those_of_all_scores(parts: list[list[float]]) -> None:
    sketch = ScoreSketch()
    for part in parts:
        sketch.add(ScoreSketch.from_json(json.loads(json.dumps(_of(part).to_json()))))
    found = sketch.summary()
    assert found is not None
    every = np.concatenate(parts)
    assert (found["min"], found["max"]) == (every.min(), every.max())
    assert found["mean"] == pytest.approx(every.mean(), rel=1e-9, abs=1e-6)
    for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        exact = np.quantile(every, share, method="inverted_cdf")
        # buckets hold 1/128 of an octave; below 1e-307 there are no more exponents
        assert found[name] == pytest.approx(exact, rel=1 / 256, abs=1e-306)


@given(parts=st.lists(scores_lists, min_size=2, max_size=5))
def test_the_order_of_parts_does_not_matter(parts: list[list[float]]) -> None:
    forth, back = ScoreSketch(), ScoreSketch()
    for part in parts:
        forth.add(_of(part))
    for part in reversed(parts):
        back.add(_of(part))
    assert forth.summary() == back.summary()


def test_no_scores_have_no_distribution() -> None:
    assert ScoreSketch().summary() is None
    assert ScoreSketch.from_json(_of([]).to_json()) == ScoreSketch()


def test_memory_is_bounded() -> None:
    scores = np.exp(np.random.default_rng(0).normal(size=200_000))
    assert len(ScoreSketch.of(scores).count_by_bucket) < 128 * 16


def _of(scores: list[float]) -> ScoreSketch:
    return ScoreSketch.of(np.array(scores, dtype=np.float64))
