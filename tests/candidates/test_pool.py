import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.candidates.pool import WatchedItems, pool
from ranker.candidates.protocol import UNKNOWN_TIME_MS, Candidates, Interactions, Requests


def proposed(items_by_request: dict[int, list[int]], *, top_score: float = 1.0) -> Candidates:
    request = [r for r, items in items_by_request.items() for _ in items]
    rank = [i + 1 for items in items_by_request.values() for i in range(len(items))]
    return Candidates(
        request=np.array(request, dtype=np.int64),
        item_index=np.array([i for items in items_by_request.values() for i in items], np.int64),
        rank=np.array(rank, dtype=np.int32),
        score=np.array([top_score / r for r in rank], dtype=np.float32),
    )


def test_sources_take_turns_and_keep_their_ranks_and_scores() -> None:
    lists = pool(
        {
            "popularity": proposed({0: [9, 4, 6, 8], 2: [9, 4]}),
            "covisitation": proposed({0: [5, 9, 7], 1: [3]}, top_score=6.0),
        },
        num_candidates=5,
    )
    assert lists.request.tolist() == [0, 0, 0, 0, 0, 1, 2, 2]
    # turns in request 0: 9, 5; 4 (9 is there already); 6, 7; 8 is one too many
    assert lists.item_index.tolist() == [9, 5, 4, 6, 7, 3, 9, 4]
    assert lists.rank_by_source["popularity"].tolist() == [1, 0, 2, 3, 0, 0, 1, 2]
    assert lists.rank_by_source["covisitation"].tolist() == [2, 1, 0, 0, 3, 1, 0, 0]
    nan = np.nan
    np.testing.assert_allclose(
        lists.score_by_source["covisitation"], [3, 6, nan, nan, 2, 6, nan, nan]
    )
    np.testing.assert_allclose(
        lists.score_by_source["popularity"], [1, nan, 1 / 2, 1 / 3, nan, nan, 1, 1 / 2], rtol=1e-6
    )


def test_arrow_columns_are_null_where_a_source_was_silent() -> None:
    table = pool(
        {"popularity": proposed({0: [9]}), "covisitation": proposed({0: [5], 1: [5]})},
        num_candidates=3,
    ).to_arrow()
    assert table.to_pydict() == {
        "request": [0, 0, 1],
        "item_index": [9, 5, 5],
        "popularity_rank": [1, None, None],
        "popularity_score": [1.0, None, None],
        "covisitation_rank": [None, 1, 1],
        "covisitation_score": [None, 1.0, 1.0],
    }
    assert table.schema.field("popularity_rank").type == "int32"
    assert table.schema.field("popularity_score").type == "float"


def test_watched_items_are_not_proposed_again() -> None:
    exclude = WatchedItems(
        requests=Requests(
            user_index=np.array([7, 8, 0]),
            query_item_index=np.zeros(3, dtype=np.int64),
            time_ms=np.array([100, 100, 100]),
        ),
        interactions=Interactions(
            user_index=np.array([7, 7, 7, 8, 8, 0, 7]),
            item_index=np.array([4, 4, 6, 9, 12, 5, 0]),
            # 4 was watched twice, first before the request; 6 at its time, so not before it
            time_ms=np.array([200, 50, 100, UNKNOWN_TIME_MS, 99, 10, 10]),
            order=np.array([3, 1, 2, 0, 1, 0, 0]),
            weight=np.ones(7, dtype=np.float32),
        ),
    )
    source = proposed({0: [4, 5, 6, 9], 1: [4, 9, 6], 2: [5, 4]})
    lists = pool({"popularity": source}, num_candidates=2, exclude=exclude)
    assert lists.request.tolist() == [0, 0, 1, 1, 2, 2]
    assert lists.item_index.tolist() == [5, 6, 4, 6, 5, 4]
    assert lists.rank_by_source["popularity"].tolist() == [2, 3, 1, 3, 1, 2]  # as the source said


def test_nothing_watched_excludes_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    one = np.array([3], dtype=np.int64)
    exclude = WatchedItems(
        requests=Requests(user_index=one, query_item_index=one, time_ms=one),
        interactions=Interactions(
            user_index=none,
            item_index=none,
            time_ms=none,
            order=none,
            weight=np.empty(0, dtype=np.float32),
        ),
    )
    lists = pool({"popularity": proposed({0: [2, 1]})}, num_candidates=9, exclude=exclude)
    assert lists.item_index.tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"candidates for request 1, but .* are 0\.\.0"):
        pool({"popularity": proposed({1: [2]})}, num_candidates=9, exclude=exclude)


def test_no_candidates_make_empty_lists_with_all_columns() -> None:
    lists = pool({"popularity": proposed({}), "covisitation": proposed({})}, num_candidates=4)
    assert lists.num_rows == 0
    assert lists.to_arrow().column_names == [
        "request",
        "item_index",
        "popularity_rank",
        "popularity_score",
        "covisitation_rank",
        "covisitation_score",
    ]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        pool({}, num_candidates=4)
    with pytest.raises(ValueError, match="num_candidates must be >= 1, got 0"):
        pool({"popularity": proposed({0: [1]})}, num_candidates=0)
    with pytest.raises(ValueError, match=r"'popularity' proposes item 5 more than once.*request 3"):
        pool({"popularity": proposed({1: [5], 3: [5, 2, 5]})}, num_candidates=4)


items_by_request = st.dictionaries(
    st.integers(0, 3), st.lists(st.integers(1, 9), unique=True, max_size=6), max_size=4
).map(lambda lists: dict(sorted(lists.items())))


@settings(max_examples=80, deadline=None)
@given(
    lists=st.tuples(items_by_request, items_by_request, items_by_request), kept=st.integers(1, 9)
)
def test_equals_picking_in_turns(lists: tuple[dict[int, list[int]], ...], kept: int) -> None:
    sources = dict(zip(("one", "two", "three"), lists, strict=True))
    pooled = pool({name: proposed(of) for name, of in sources.items()}, num_candidates=kept)
    for request in range(4):
        turns = [
            of[request][turn]
            for turn in range(6)
            for of in lists
            if turn < len(of.get(request, []))
        ]
        expected = list(dict.fromkeys(turns))[:kept]
        rows = np.flatnonzero(pooled.request == request)
        assert pooled.item_index[rows].tolist() == expected
        for name, of in sources.items():
            own = of.get(request, [])
            ranks = [own.index(item) + 1 if item in own else 0 for item in expected]
            assert pooled.rank_by_source[name][rows].tolist() == ranks
            missing = np.isnan(pooled.score_by_source[name][rows])
            assert missing.tolist() == [rank == 0 for rank in ranks]
