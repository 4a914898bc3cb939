import numpy as np
import pytest

from ranker.candidates.popularity import MS_PER_DAY, PopularityGenerator
from ranker.candidates.protocol import UNKNOWN_TIME_MS, Interactions, Requests

NOW_MS = 20 * MS_PER_DAY


def watched(*rows: tuple[int, int, float]) -> Interactions:
    """Rows of (item, time, weight), all by user 1."""
    item, time_ms, weight = zip(*rows, strict=True)
    return Interactions(
        user_index=np.ones(len(rows), dtype=np.int64),
        item_index=np.array(item),
        time_ms=np.array(time_ms),
        order=np.arange(len(rows)),
        weight=np.array(weight, dtype=np.float32),
    )


def fit(interactions: Interactions, *, half_life_days: float = 2.0) -> PopularityGenerator:
    return PopularityGenerator.fit(
        interactions, as_of_ms=NOW_MS, half_life_days=half_life_days, unknown_age_days=6.0
    )


def test_scores_are_decayed_sums() -> None:
    popularity = fit(
        watched(
            (5, NOW_MS - 2 * MS_PER_DAY, 1.0),  # one half-life: 1/2
            (5, NOW_MS - 4 * MS_PER_DAY, 2.0),  # two: 2/4, together 1
            (3, UNKNOWN_TIME_MS, 8.0),  # six days are three half-lives: 1
            (8, NOW_MS - 6 * MS_PER_DAY, 12.0),  # 12/8
            (2, NOW_MS - 2 * MS_PER_DAY, 0.0),  # counts nothing: left out
        )
    )
    requests = Requests(
        user_index=np.array([1, 7]),
        query_item_index=np.array([0, 5]),
        time_ms=np.array([NOW_MS, NOW_MS + 1]),
    )
    candidates = popularity.generate(requests, num_candidates=11)
    assert candidates.request.tolist() == [0, 0, 0, 1, 1, 1]
    assert candidates.item_index.tolist() == [8, 3, 5, 8, 3, 5]  # 3 and 5 tie: smaller index first
    assert candidates.rank.tolist() == [1, 2, 3, 1, 2, 3]
    np.testing.assert_allclose(candidates.score[:3], [1.5, 1.0, 1.0])
    assert popularity.generate(requests, num_candidates=2).item_index.tolist() == [8, 3, 8, 3]


def test_recent_items_win_with_a_short_half_life() -> None:
    log = watched(
        *[(4, NOW_MS - 10 * MS_PER_DAY, 1.0)] * 5,
        *[(9, NOW_MS - MS_PER_DAY, 1.0)] * 2,
    )
    assert fit(log, half_life_days=1000.0).item_index.tolist() == [4, 9]
    assert fit(log, half_life_days=1.0).item_index.tolist() == [9, 4]


def test_items_too_old_to_score_stay_last() -> None:
    log = watched((4, 0, 1.0), (9, NOW_MS - 1, 1.0))
    popularity = fit(log, half_life_days=1e-3)
    assert popularity.item_index.tolist() == [9, 4]
    assert popularity.score[1] == 0


@pytest.mark.parametrize("half_life_days", [0.0, -1.0, np.nan, np.inf])
def test_half_life_must_be_positive(half_life_days: float) -> None:
    with pytest.raises(ValueError, match="half_life_days must be positive and finite"):
        fit(watched((1, 5, 1.0)), half_life_days=half_life_days)


@pytest.mark.parametrize("unknown_age_days", [-1.0, np.nan, np.inf])
def test_assumed_age_must_be_an_age(unknown_age_days: float) -> None:
    with pytest.raises(ValueError, match="unknown_age_days must be finite and >= 0"):
        PopularityGenerator.fit(
            watched((1, 5, 1.0)),
            as_of_ms=NOW_MS,
            half_life_days=1.0,
            unknown_age_days=unknown_age_days,
        )
