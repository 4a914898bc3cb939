import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from ranker.scoring.tuning.logged_lists import (
    LoggedLists,
    arrange_lists,
    discounts_of,
    rank_discounts,
    rank_flips,
)


def one_list(num_rows: int) -> LoggedLists:
    return arrange_lists(
        users=np.zeros(num_rows, dtype=np.int64),
        lists=np.zeros(num_rows, dtype=np.int64),
        items=np.arange(num_rows),
        kept=np.ones(num_rows, dtype=bool),
    )


def test_lists_are_sorted_and_those_of_one_row_left_out() -> None:
    users = np.array([7, 3, 7, 3, 7, 5, 3])
    lists = np.array([70, 31, 70, 30, 70, 50, 31])
    items = np.array([4, 9, 2, 1, 3, 6, 8])
    arranged = arrange_lists(users=users, lists=lists, items=items, kept=np.ones(7, dtype=bool))
    # user 3's list 31 by item, then user 7's; lists 30 and 50 have one row
    assert arranged.rows.tolist() == [6, 1, 2, 4, 0]
    assert arranged.list_starts.tolist() == [0, 2]
    assert arranged.user_starts.tolist() == [0, 2]
    assert [block.tolist() for block in arranged.blocks] == [[[0, 1]], [[2, 3, 4]]]
    assert (arranged.num_users, arranged.num_lists) == (2, 2)
    kept = np.array([True, False, True, True, True, True, True])
    assert arrange_lists(users=users, lists=lists, items=items, kept=kept).rows.tolist() == [
        2,
        4,
        0,
    ]


def test_nothing_to_arrange() -> None:
    empty = arrange_lists(
        users=np.arange(3), lists=np.arange(3), items=np.arange(3), kept=np.ones(3, dtype=bool)
    )
    assert (empty.num_users, empty.num_lists, empty.rows.size) == (0, 0, 0)


def test_discounts_by_hand() -> None:
    expected = [1, 1 / math.log2(3), 1 / 2, 0, 0]
    np.testing.assert_allclose(rank_discounts(num_ranks=5, at=3), expected)
    scores = np.array([[0.1, 0.9, 0.5, 0.7, 0.0], [2.0, 2.0, 2.0, 2.0, 3.0]])
    discounts = discounts_of(scores, one_list(5), at=3)
    d1, d2, d3 = expected[:3]
    # equal scores by item: the last row, then the first two
    np.testing.assert_allclose(discounts, [[0, d1, d3, d2, 0], [d2, d3, 0, 0, d1]])


def test_lists_of_several_lengths_keep_to_themselves() -> None:
    lists = np.array([0, 0, 0, 1, 1, 2, 2])
    arranged = arrange_lists(
        users=lists, lists=lists, items=np.arange(7), kept=np.ones(7, dtype=bool)
    )
    scores = np.array([[1.0, 2, 3, 9, 8, 5, 6]])
    d = rank_discounts(num_ranks=3, at=9)
    np.testing.assert_allclose(
        discounts_of(scores, arranged, at=9), [[d[2], d[1], d[0], d[0], d[1], d[1], d[0]]]
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), num_rows=st.integers(2, 30))
def test_swapped_pairs_are_kendalls(seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.permutation(num_rows).astype(float), rng.permutation(num_rows).astype(float)
    flips = rank_flips(before, after, one_list(num_rows), at=4)
    assert flips.pairs == pytest.approx((1 - kendalltau(before, after).statistic) / 2)
    top = set(np.argsort(-before)[:4].tolist())
    if num_rows > 4:
        left = top - set(np.argsort(-after)[:4].tolist())
        assert flips.top == pytest.approx(len(left) / 4)
    else:
        assert flips.top is None


def test_the_same_order_flips_nothing() -> None:
    scores = np.array([3.0, 1.0, 2.0])
    flips = rank_flips(scores, 10 * scores + 4, one_list(3), at=2)
    assert (flips.pairs, flips.top) == (0.0, 0.0)
    assert rank_flips(scores, -scores, one_list(3), at=2).pairs == 1.0
