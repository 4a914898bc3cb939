import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.experiment.policy import JudgedCandidates, ScoredArm


def candidate_lists(**changes):
    values = {
        "requests": np.array([20, 10, 20, 10, 20, 30, 20]),
        "users": np.array(["b", "a", "b", "a", "b", "a", "b"], dtype=object),
        "items": np.array([4, 8, 2, 6, 9, 8, 1]),
        "features": np.zeros((7, 3), dtype=np.float32),
        "feature_names": ("x", "y", "z"),
    }
    return JudgedCandidates(**{**values, **changes})


def test_slates_by_hand():
    requests = np.array([1, 0, 1, 0, 1, 2, 1])
    items = np.array([4, 8, 2, 6, 9, 8, 1])
    scores = np.array([0.5, 0.1, 0.9, 0.7, 0.5, 0.2, 0.3])
    slates = ScoredArm(name="a", scores=scores).slates(requests=requests, items=items, slate_size=3)
    assert slates.requests.tolist() == [0, 0, 1, 1, 1, 2]
    assert slates.ranks.tolist() == [1, 2, 1, 2, 3, 1]
    # Items 4 and 9 of request 1 tie at 0.5: 4 goes first.
    assert items[slates.candidates].tolist() == [6, 8, 2, 4, 9, 8]
    assert slates.propensities.tolist() == [1.0] * 6


def test_string_items_tie_in_their_own_order():
    items = np.array(["b", "a", "c"], dtype=object)
    slates = ScoredArm(name="a", scores=np.zeros(3)).slates(
        requests=np.zeros(3, dtype=np.int64), items=items, slate_size=2
    )
    assert items[slates.candidates].tolist() == ["a", "b"]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=23),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_slates_are_those_of_a_plain_sort(requests_and_scores, slate_size, random):
    items = list(range(len(requests_and_scores)))
    random.shuffle(items)
    rows = [(request, -score, item) for (request, score), item in
            zip(requests_and_scores, items, strict=True)]  # fmt: skip
    expected = []
    for request in range(5):
        chosen = sorted(row for row in rows if row[0] == request)[:slate_size]
        expected += [(request, rank, row[2]) for rank, row in enumerate(chosen, start=1)]
    item_array = np.array(items, dtype=np.int64)
    slates = ScoredArm(name="a", scores=np.array([-row[1] for row in rows], dtype=float)).slates(
        requests=np.array([row[0] for row in rows], dtype=np.int64),
        items=item_array,
        slate_size=slate_size,
    )
    got = zip(slates.requests, slates.ranks, item_array[slates.candidates], strict=True)
    assert [tuple(map(int, row)) for row in got] == expected


def test_bad_scores_are_named():
    with pytest.raises(ValueError, match="'new': 2 of 3 scores are not finite"):
        ScoredArm(name="new", scores=np.array([np.nan, 1.0, np.inf]))
    arm = ScoredArm(name="new", scores=np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="2 scores and 3 items for 3 candidates"):
        arm.slates(requests=np.zeros(3, dtype=np.int64), items=np.arange(3), slate_size=2)
    with pytest.raises(ValueError, match="slate_size must be at least 1"):
        arm.slates(requests=np.zeros(2, dtype=np.int64), items=np.arange(2), slate_size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": np.array([4, 8, 2, 6, 9, 8, 2])}, "twice in one request"),
        ({"users": np.array(list("babbbab"), dtype=object)}, "candidates of two users"),
        ({"users": np.array(["a"], dtype=object)}, "1 users for 7 requests"),
        ({"requests": np.arange(7) / 2}, "candidates: requests: expected integers or strings"),
        ({"features": np.zeros((7, 2), dtype=np.float32)}, r"expected features of shape \(7, 3\)"),
        ({"features": np.array([[0, np.inf, 0]] * 7, dtype=np.float32)}, "'y' has infinite"),
        ({"requests": np.array([], dtype=np.int64)}, "at least one candidate"),
    ],
)
def test_bad_candidate_lists_are_named(changes, message):
    candidate_lists()
    with pytest.raises(ValueError, match=message):
        candidate_lists(**changes)
