"""What holds for every candidate generator. A new one adds a line to FITTERS."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.candidates.covisitation import CovisitationGenerator
from ranker.candidates.popularity import PopularityGenerator
from ranker.candidates.protocol import (
    UNKNOWN_TIME_MS,
    CandidateGenerator,
    Candidates,
    Interactions,
    Requests,
    rank_within,
)

AS_OF_MS = 1_000_000
NUM_USERS, NUM_ITEMS = 13, 29


def fit_popularity(interactions: Interactions, as_of_ms: int) -> CandidateGenerator:
    return PopularityGenerator.fit(
        interactions, as_of_ms=as_of_ms, half_life_days=3.0, unknown_age_days=30.0
    )


def fit_covisitation(interactions: Interactions, as_of_ms: int) -> CandidateGenerator:
    return CovisitationGenerator.fit(
        interactions,
        as_of_ms=as_of_ms,
        max_gap=3,
        max_gap_s=500.0,
        distance_decay=0.5,
        shrinkage=1.0,
        num_neighbours=11,
    )


FITTERS = {"popularity": fit_popularity, "covisitation": fit_covisitation}
each_generator = pytest.mark.parametrize("fit", FITTERS.values(), ids=FITTERS.keys())
Fit = Callable[[Interactions, int], CandidateGenerator]


def random_interactions(num_rows: int, *, seed: int) -> Interactions:
    rng = np.random.default_rng(seed)
    time_ms = np.sort(rng.integers(0, AS_OF_MS, num_rows))
    time_ms[: num_rows // 5] = UNKNOWN_TIME_MS
    return Interactions(
        user_index=rng.integers(0, NUM_USERS + 1, num_rows),
        item_index=rng.integers(0, NUM_ITEMS + 1, num_rows),
        time_ms=time_ms,
        order=np.arange(num_rows),
        weight=rng.integers(0, 3, num_rows).astype(np.float32),
    )


def requests_for(query_item_index: list[int], *, time_ms: int = AS_OF_MS) -> Requests:
    num_requests = len(query_item_index)
    return Requests(
        user_index=np.arange(num_requests) % NUM_USERS,
        query_item_index=np.array(query_item_index, dtype=np.int64),
        time_ms=np.full(num_requests, time_ms, dtype=np.int64),
    )


@each_generator
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_rows=st.integers(0, 60),
    queries=st.lists(st.integers(0, NUM_ITEMS + 20), max_size=7),
    num_candidates=st.integers(1, 40),
)
def test_candidates_are_well_formed(
    fit: Fit, seed: int, num_rows: int, queries: list[int], num_candidates: int
) -> None:
    interactions = random_interactions(num_rows, seed=seed)
    candidates = fit(interactions, AS_OF_MS).generate(
        requests_for(queries), num_candidates=num_candidates
    )
    known_items = set(interactions.item_index.tolist()) - {0}
    assert set(candidates.item_index.tolist()) <= known_items
    assert set(candidates.request.tolist()) <= set(range(len(queries)))
    assert np.isfinite(candidates.score).all()
    for request in range(len(queries)):
        rows = candidates.request == request
        assert rows.sum() <= num_candidates
        assert candidates.rank[rows].tolist() == list(range(1, rows.sum() + 1))
        assert len(set(candidates.item_index[rows].tolist())) == rows.sum()
        scores, items = candidates.score[rows], candidates.item_index[rows]
        in_order = sorted(zip(-scores, items, strict=True))
        assert in_order == list(zip(-scores, items, strict=True))
    assert (np.diff(candidates.request) >= 0).all()


@each_generator
def test_same_input_gives_same_bytes_and_leaves_it_alone(fit: Fit) -> None:
    interactions = random_interactions(211, seed=5)
    before = [getattr(interactions, name).copy() for name in Interactions.__slots__]
    requests = requests_for([3, 0, 7, 28, 400])
    first = fit(interactions, AS_OF_MS).generate(requests, num_candidates=9)
    second = fit(interactions, AS_OF_MS).generate(requests, num_candidates=9)
    assert first.num_rows > 9
    for name in Candidates.__slots__:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    for name, values in zip(Interactions.__slots__, before, strict=True):
        np.testing.assert_array_equal(getattr(interactions, name), values)


@each_generator
def test_row_order_does_not_matter(fit: Fit) -> None:
    interactions = random_interactions(211, seed=6)  # weights are whole numbers: exact sums
    shuffled = interactions.take(np.random.default_rng(1).permutation(interactions.num_rows))
    requests = requests_for([3, 0, 7, 28, 400])
    one = fit(interactions, AS_OF_MS).generate(requests, num_candidates=9)
    other = fit(shuffled, AS_OF_MS).generate(requests, num_candidates=9)
    np.testing.assert_array_equal(one.item_index, other.item_index)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-6)


@each_generator
def test_fewer_candidates_are_a_prefix(fit: Fit) -> None:
    generator = fit(random_interactions(211, seed=7), AS_OF_MS)
    many = generator.generate(requests_for([3, 7, 12]), num_candidates=8)
    few = generator.generate(requests_for([3, 7, 12]), num_candidates=5)
    np.testing.assert_array_equal(few.item_index, many.item_index[many.rank <= 5])


@each_generator
def test_interactions_at_or_after_as_of_are_rejected(fit: Fit) -> None:
    interactions = random_interactions(17, seed=8)
    latest = int(interactions.time_ms.max())
    with pytest.raises(ValueError, match=f"state newer than its as_of.*< {latest}, got {latest}"):
        fit(interactions, latest)
    fit(interactions, latest + 1)


@each_generator
def test_requests_older_than_the_state_are_rejected(fit: Fit) -> None:
    generator = fit(random_interactions(17, seed=9), AS_OF_MS)
    with pytest.raises(ValueError, match="state newer than the request"):
        generator.generate(requests_for([1], time_ms=AS_OF_MS - 1), num_candidates=5)


@each_generator
def test_nothing_known_gives_no_candidates(fit: Fit) -> None:
    empty = random_interactions(0, seed=1)
    rows = random_interactions(67, seed=1)
    unknown = rows.take((rows.user_index == 0) | (rows.item_index == 0))
    assert unknown.num_rows > 0
    for interactions in (empty, unknown):
        generator = fit(interactions, AS_OF_MS)
        assert generator.generate(requests_for([0, 5]), num_candidates=5).num_rows == 0
    busy = fit(random_interactions(50, seed=2), AS_OF_MS)
    assert busy.generate(requests_for([]), num_candidates=5).num_rows == 0


@each_generator
def test_unknown_users_and_items_are_left_out(fit: Fit) -> None:
    interactions = random_interactions(97, seed=10)
    known = interactions.take((interactions.user_index > 0) & (interactions.item_index > 0))
    assert known.num_rows < interactions.num_rows
    requests = requests_for([4, 5, 6])
    one = fit(interactions, AS_OF_MS).generate(requests, num_candidates=7)
    other = fit(known, AS_OF_MS).generate(requests, num_candidates=7)
    for name in Candidates.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@each_generator
def test_at_least_one_candidate_must_be_asked_for(fit: Fit) -> None:
    generator = fit(random_interactions(17, seed=11), AS_OF_MS)
    with pytest.raises(ValueError, match="num_candidates must be >= 1, got 0"):
        generator.generate(requests_for([1]), num_candidates=0)


@each_generator
def test_the_name_is_the_source(fit: Fit) -> None:
    assert fit(random_interactions(3, seed=1), AS_OF_MS).name in FITTERS


def test_rank_within_counts_from_one_in_each_request() -> None:
    request = np.array([2, 2, 2, 5, 9, 9])
    assert rank_within(request).tolist() == [1, 2, 3, 1, 1, 2]
    assert rank_within(request[:0]).tolist() == []


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("weight", np.array([1.0, np.nan, 2.0], dtype=np.float32), "'weight'.*nan in row 1"),
        ("weight", np.array([1.0, 2.0, -1.0], dtype=np.float32), "'weight'.*-1.0 in row 2"),
        ("weight", np.ones(3), "'weight' must be a flat array of float32, got float64"),
        ("item_index", np.array([1, 2, -3]), "'item_index' must be >= 0, got -3 in row 2"),
        ("item_index", np.array([1.0, 2.0, 3.0]), "'item_index' must be a flat array of int64"),
        ("order", np.arange(4), "equal lengths"),
        ("user_index", np.ones((3, 1), dtype=np.int64), r"of shape \(3, 1\)"),
    ],
)
def test_bad_interactions_are_named(column: str, values: np.ndarray, message: str) -> None:
    columns = {
        "user_index": np.array([1, 1, 2]),
        "item_index": np.array([1, 2, 3]),
        "time_ms": np.array([10, 20, 30]),
        "order": np.arange(3),
        "weight": np.ones(3, dtype=np.float32),
    }
    with pytest.raises(ValueError, match=message):
        Interactions(**{**columns, column: values})


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("request", np.array([1, 0, 0]), "sorted by request"),
        ("rank", np.array([1, 3, 1], dtype=np.int32), "ranks 1, 2"),
        ("item_index", np.array([4, 0, 4]), "'item_index' must be >= 1, got 0 in row 1"),
        ("score", np.zeros(2, dtype=np.float32), "equal lengths"),
    ],
)
def test_bad_candidates_are_named(column: str, values: np.ndarray, message: str) -> None:
    columns = {
        "request": np.array([0, 0, 1]),
        "item_index": np.array([4, 5, 4]),
        "rank": np.array([1, 2, 1], dtype=np.int32),
        "score": np.zeros(3, dtype=np.float32),
    }
    Candidates(**columns)
    with pytest.raises(ValueError, match=message):
        Candidates(**{**columns, column: values})


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match="'query_item_index' must be >= 0, got -1 in row 0"):
        requests_for([-1])
