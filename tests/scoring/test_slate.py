import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.scoring.slates.slate import top_k


def test_best_first_ties_by_item() -> None:
    request = np.array([4, 1, 4, 4, 1, 4, 6])
    item = np.array([30, 8, 10, 20, 9, 40, 2])
    score = np.array([0.5, -1.0, 0.5, 0.9, 3.0, 0.1, 0.0])
    slates = top_k(request, item, score, k=3)
    assert slates.row_index.tolist() == [4, 1, 3, 2, 0, 6]
    assert slates.rank.tolist() == [1, 2, 1, 2, 3, 1]
    assert item[slates.row_index].tolist() == [9, 8, 20, 10, 30, 2]
    assert slates.row_index.dtype == np.int64
    assert slates.rank.dtype == np.int32


@pytest.mark.parametrize("dtype", [object, "U7", np.dtypes.StringDType()])
def test_string_items_tie_by_code_point(dtype: object) -> None:
    item = np.array(["b", "a10", "a9", "é", "B"], dtype=dtype)
    slates = top_k(np.zeros(5, dtype=np.int64), item, np.ones(5), k=11)
    assert item[slates.row_index].tolist() == ["B", "a10", "a9", "b", "é"]


def test_k_larger_than_the_list_keeps_all() -> None:
    slates = top_k(np.array([0, 0, 2]), np.array([5, 6, 7]), np.array([1.0, 2.0, 3.0]), k=100)
    assert slates.row_index.tolist() == [1, 0, 2]


def test_no_and_one_candidate() -> None:
    none = np.empty(0, dtype=np.int64)
    assert top_k(none, none, np.empty(0), k=3).row_index.tolist() == []
    one = top_k(np.array([9]), np.array([2]), np.array([-np.inf]), k=3)
    assert (one.row_index.tolist(), one.rank.tolist()) == ([0], [1])


def test_bad_input_is_named() -> None:
    request, item = np.array([3, 8, 8]), np.array([1, 1, 2])
    with pytest.raises(ValueError, match=r"request 8 .* NaN \(such rows: 1"):
        top_k(request, item, np.array([0.1, 0.2, np.nan]), k=2)
    with pytest.raises(ValueError, match="equal lengths, got 3, 3, 2"):
        top_k(request, item, np.zeros(2), k=2)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        top_k(request, item, np.zeros(3), k=0)
    with pytest.raises(ValueError, match="integers or strings"):
        top_k(request, np.array(["a", None, "b"], dtype=object), np.zeros(3), k=2)
    with pytest.raises(ValueError, match="integers or strings, got float64"):
        top_k(request, item.astype(np.float64), np.zeros(3), k=2)


rows_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12), st.sampled_from([-1.5, 0.0, -0.0, 0.25, 7.0])),
    unique_by=lambda row: row[:2],
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rows=rows_strategy, k=st.integers(1, 15), seed=st.integers(0, 1000))
def test_equals_sorting_each_list_and_ignores_row_order(
    rows: list[tuple[int, int, float]], k: int, seed: int
) -> None:
    request = np.array([row[0] for row in rows], dtype=np.int64)
    item = np.array([row[1] for row in rows], dtype=np.int64)
    score = np.array([row[2] for row in rows], dtype=np.float64)
    expected = [
        (r, rank, own)
        for r in sorted(set(request.tolist()))
        for rank, (_, own) in enumerate(
            sorted((-s, i) for of, i, s in rows if of == r)[:k], start=1
        )
    ]
    shuffle = np.random.default_rng(seed).permutation(len(rows))
    for order in (np.arange(len(rows)), shuffle):
        slates = top_k(request[order], item[order], score[order], k=k)
        kept = order[slates.row_index]
        got = zip(request[kept].tolist(), slates.rank.tolist(), item[kept].tolist(), strict=True)
        assert list(got) == expected
