import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ranker.experiment.resampling import RowsByUser, resample


def test_rows_of_picks_by_hand():
    rows = RowsByUser.of(np.array([2, 0, 2, 4, 0, 2, 1]), num_users=5)
    assert rows.rows_of(np.array([2, 3, 0, 2])).tolist() == [0, 2, 5, 1, 4, 0, 2, 5]
    assert rows.rows_of(np.array([], dtype=np.int64)).tolist() == []


@given(st.lists(st.integers(0, 4), max_size=13), st.lists(st.integers(0, 4), max_size=6))
def test_rows_of_picks_are_those_of_a_plain_loop(codes, picks):
    rows = RowsByUser.of(np.array(codes, dtype=np.int64), num_users=5)
    expected = [row for pick in picks for row, code in enumerate(codes) if code == pick]
    assert rows.rows_of(np.array(picks, dtype=np.int64)).tolist() == expected


def test_resample_draws_uniformly_with_replacement():
    codes = np.array([3, 7, 11])
    rng = np.random.default_rng(0)
    draws = np.concatenate([resample(codes, rng=rng) for _ in range(3_000)])
    counts = np.array([np.sum(draws == code) for code in codes])
    assert counts.sum() == 9_000
    assert np.abs(counts - 3_000).max() < 4 * (9_000 * 1 / 3 * 2 / 3) ** 0.5
    assert len(resample(codes[:0], rng=rng)) == 0
