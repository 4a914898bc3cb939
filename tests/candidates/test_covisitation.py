import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.candidates.covisitation import CovisitationGenerator
from ranker.candidates.protocol import UNKNOWN_TIME_MS, Interactions, Requests

NOW_MS = 10_000_000
Row = tuple[int, int, int, float]


def watched(rows: list[Row]) -> Interactions:
    """Rows of (user, item, time, weight), in order."""
    columns = np.array([row[:3] for row in rows], dtype=np.int64).reshape(-1, 3)
    return Interactions(
        user_index=columns[:, 0].copy(),
        item_index=columns[:, 1].copy(),
        time_ms=columns[:, 2].copy(),
        order=np.arange(len(rows)),
        weight=np.array([row[3] for row in rows], dtype=np.float32),
    )


def fit(
    rows: list[Row],
    *,
    max_gap: int = 2,
    max_gap_s: float = math.inf,
    distance_decay: float = 0.5,
    shrinkage: float = 0.0,
    num_neighbours: int = 11,
) -> CovisitationGenerator:
    return CovisitationGenerator.fit(
        watched(rows),
        as_of_ms=NOW_MS,
        max_gap=max_gap,
        max_gap_s=max_gap_s,
        distance_decay=distance_decay,
        shrinkage=shrinkage,
        num_neighbours=num_neighbours,
    )


def neighbours(generator: CovisitationGenerator, query: int) -> dict[int, float]:
    request = Requests(
        user_index=np.array([1]),
        query_item_index=np.array([query]),
        time_ms=np.array([NOW_MS]),
    )
    found = generator.generate(request, num_candidates=1000)
    return dict(zip(found.item_index.tolist(), found.score.tolist(), strict=True))


def test_similarities_by_hand() -> None:
    rows = [(1, 5, 10, 1.0), (1, 3, 20, 4.0), (1, 7, 30, 1.0), (2, 3, 15, 4.0), (2, 5, 25, 1.0)]
    # 3-5: gap 1 twice, sqrt(1 * 4) each = 4; 3-7: gap 1, 2; 5-7: gap 2, 1 * 0.5
    # popularity: 3 -> 8, 5 -> 2, 7 -> 1
    generator = fit(rows, shrinkage=1.0)
    s35, s37, s57 = 4 / (4 + 1), 2 / (math.sqrt(8) + 1), 0.5 / (math.sqrt(2) + 1)
    assert neighbours(generator, 3) == pytest.approx({5: s35, 7: s37})
    assert neighbours(generator, 5) == pytest.approx({3: s35, 7: s57})
    assert neighbours(generator, 7) == pytest.approx({3: s37, 5: s57})
    assert list(neighbours(generator, 7)) == [3, 5]  # nearest first
    assert neighbours(generator, 0) == {}
    assert neighbours(generator, 4) == {}
    assert neighbours(generator, 8) == {}  # newer than the state


def test_users_and_rewatched_items_make_no_pairs() -> None:
    rows = [(1, 4, 10, 1.0), (2, 6, 11, 1.0), (2, 6, 12, 1.0), (3, 9, 13, 1.0)]
    assert len(fit(rows, max_gap=3).neighbour_index) == 0


def test_interactions_of_weight_zero_take_no_position() -> None:
    rows = [(1, 4, 10, 1.0), (1, 6, 20, 0.0), (1, 9, 30, 1.0)]
    generator = fit(rows, max_gap=1)
    assert neighbours(generator, 4) == {9: 1.0}
    assert neighbours(generator, 6) == {}


def test_time_gap_counts_where_known() -> None:
    rows = [
        (1, 2, UNKNOWN_TIME_MS, 1.0),
        (1, 4, UNKNOWN_TIME_MS, 1.0),
        (1, 6, 50_000, 1.0),
        (1, 8, 57_000, 1.0),
        (1, 9, 57_000 + 7_001, 1.0),
    ]
    generator = fit(rows, max_gap=1, max_gap_s=7.0)
    assert set(neighbours(generator, 4)) == {2, 6}
    assert set(neighbours(generator, 8)) == {6}
    assert set(neighbours(generator, 9)) == set()


def test_positions_beyond_the_gap_do_not_count() -> None:
    rows = [(1, item, item, 1.0) for item in (1, 2, 3, 4, 5)]
    assert set(neighbours(fit(rows, max_gap=1), 3)) == {2, 4}
    assert set(neighbours(fit(rows, max_gap=2), 3)) == {1, 2, 4, 5}


def test_only_the_nearest_neighbours_are_kept_ties_by_index() -> None:
    rows = [(1, item, step, 1.0) for step, item in enumerate((7, 5, 3, 4, 6))]
    generator = fit(rows, max_gap=2, num_neighbours=3)
    assert list(neighbours(generator, 3)) == [4, 5, 6]  # 4 and 5 at gap 1, 6 and 7 at gap 2


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 6),
            st.one_of(st.just(UNKNOWN_TIME_MS), st.integers(0, 60_000)),
            st.sampled_from([1.0, 2.0, 0.25]),
        ),
        max_size=25,
    ),
    max_gap=st.integers(1, 30),
    max_gap_s=st.sampled_from([0.0, 5.0, 30.0, math.inf]),
)
def test_equals_counting_pair_by_pair(rows: list[Row], max_gap: int, max_gap_s: float) -> None:
    rows = sorted(rows, key=lambda row: row[2])
    generator = fit(rows, max_gap=max_gap, max_gap_s=max_gap_s, distance_decay=0.8, shrinkage=0.5)
    popularity: dict[int, float] = defaultdict(float)
    count: dict[tuple[int, int], float] = defaultdict(float)
    for user in (1, 2, 3):
        own = [row for row in rows if row[0] == user]
        for i, (_, item, time_ms, weight) in enumerate(own):
            popularity[item] += weight
            for j in range(i + 1, len(own)):
                _, other, other_ms, other_weight = own[j]
                timed = UNKNOWN_TIME_MS not in (time_ms, other_ms)
                if j - i > max_gap or (timed and other_ms - time_ms > max_gap_s * 1000):
                    continue
                if item != other:
                    pair_weight = math.sqrt(weight * other_weight) * 0.8 ** (j - i - 1)
                    count[item, other] += pair_weight
                    count[other, item] += pair_weight
    for query in range(1, 8):
        expected = {
            other: value / (math.sqrt(popularity[query] * popularity[other]) + 0.5)
            for (item, other), value in count.items()
            if item == query
        }
        assert neighbours(generator, query) == pytest.approx(expected, rel=1e-6)


def test_order_against_time_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"'order' must ascend with time.*user_index 2.*unknown"):
        fit([(1, 4, 10, 1.0), (2, 4, 20, 1.0), (2, 6, 15, 1.0)])
    with pytest.raises(ValueError, match="'order' must ascend"):
        fit([(2, 4, 20, 1.0), (2, 6, UNKNOWN_TIME_MS, 1.0)])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_gap", 0),
        ("max_gap_s", -1.0),
        ("max_gap_s", math.nan),
        ("distance_decay", 0.0),
        ("distance_decay", 1.5),
        ("shrinkage", -0.1),
        ("shrinkage", math.inf),
        ("num_neighbours", 0),
    ],
)
def test_arguments_out_of_range_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"covisitation: {argument} must be"):
        fit([(1, 4, 10, 1.0)], **{argument: value})
