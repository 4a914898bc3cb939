"""Slates under constraints and by chance, against enumeration, plain loops and scipy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import exp, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ranker.config import parse_config
from ranker.data.row_hash import mixed_bits
from ranker.scoring.slates.candidate_lists import SlateCandidates
from ranker.scoring.slates.slate import SlateRows, make_slates, top_k
from ranker.scoring.slates.slate_config import SlateConfig

SCORES = (2.0, 1.1, 0.9, 0.4, 0.3)
AUTHORS = (7, 7, 7, 4, -1)  # -1: without one
TOPICS = (0, 1, 1, 0, 1)
NUM_DRAWS = 100_000
EVERY_CAP = {"author": AUTHORS, "topic": TOPICS}


def config_of(**values: Any) -> SlateConfig:
    return parse_config(SlateConfig, values, source="test")


def candidates_of(
    request: Sequence[int], item: Sequence[Any], caps: Mapping[str, Sequence[int]] | None = None
) -> SlateCandidates:
    codes = np.array(request, dtype=np.int64)
    ids = np.array(item)
    numbers = ids.astype(np.uint64) if ids.dtype.kind in "iu" else None
    return SlateCandidates(
        request=codes,
        item=ids,
        cap_codes={k: np.array(v, dtype=np.int64) for k, v in (caps or {}).items()},
        request_hash=mixed_bits(codes.astype(np.uint64)),
        item_hash=None if numbers is None else mixed_bits(numbers + np.uint64(1)),
    )


def make(
    candidates: SlateCandidates, scores: Sequence[float], *, seed: int = 0, **config: Any
) -> SlateRows:
    score = np.array(scores, dtype=np.float64)
    return make_slates(candidates, score, logits=score, config=config_of(**config), seed=seed)


def left_after(slate: Sequence[int], max_per: Mapping[str, int]) -> list[int]:
    """What may still be shown, straight from the definition."""

    def may(item: int) -> bool:
        return item not in slate and all(
            EVERY_CAP[name][item] == -1
            or sum(EVERY_CAP[name][other] == EVERY_CAP[name][item] for other in slate) < most
            for name, most in max_per.items()
        )

    return [item for item in range(len(SCORES)) if may(item)]


def plackett_luce(temperature: float) -> Callable[[int, list[int]], float]:
    def chance(item: int, left: list[int]) -> float:
        return exp(SCORES[item] / temperature) / sum(exp(SCORES[i] / temperature) for i in left)

    return chance


def mixed(epsilon: float) -> Callable[[int, list[int]], float]:
    return lambda item, left: epsilon / len(left) + (1 - epsilon) * (item == min(left))


def every_slate(
    size: int, max_per: Mapping[str, int], chance: Callable[[int, list[int]], float]
) -> dict[tuple[int, ...], list[float]]:
    """Each possible slate -> the conditional probability of each rank."""
    slates: dict[tuple[int, ...], list[float]] = {(): []}
    for _ in range(size):
        grown = {}
        for slate, so_far in slates.items():
            left = left_after(slate, max_per)
            if not left:
                grown[slate] = so_far
            for item in left:
                grown[(*slate, item)] = [*so_far, chance(item, left)]
        slates = grown
    return slates


CASES = [
    pytest.param(
        {"kind": "plackett_luce", "temperature": 0.7}, plackett_luce(0.7), {}, 3, id="plackett"
    ),
    pytest.param(
        {"kind": "plackett_luce", "temperature": 0.7},
        plackett_luce(0.7),
        {"author": 1},
        3,
        id="plackett-one-cap",
    ),
    pytest.param(
        {"kind": "plackett_luce", "temperature": 1.9},
        plackett_luce(1.9),
        {"author": 2, "topic": 1},
        4,  # the topics leave two
        id="plackett-two-caps",
    ),
    pytest.param({"kind": "epsilon", "epsilon": 0.35}, mixed(0.35), {}, 3, id="epsilon"),
    pytest.param(
        {"kind": "epsilon", "epsilon": 0.35}, mixed(0.35), {"author": 1}, 3, id="epsilon-one-cap"
    ),
    pytest.param(
        {"kind": "epsilon", "epsilon": 1.0},
        mixed(1.0),
        {"author": 2, "topic": 2},
        4,
        id="uniform-two-caps",
    ),
]


@pytest.mark.parametrize(("exploration", "chance", "max_per", "size"), CASES)
def test_frequencies_are_the_logged_propensities(
    exploration: dict[str, Any],
    chance: Callable[[int, list[int]], float],
    max_per: dict[str, int],
    size: int,
) -> None:
    """Chi-square over 100 k draws; the conditionals' product is each slate's probability."""
    expected = every_slate(size, max_per, chance)
    assert sum(prod(each) for each in expected.values()) == pytest.approx(1, abs=1e-12)
    num_items = len(SCORES)
    candidates = candidates_of(
        np.repeat(np.arange(NUM_DRAWS), num_items).tolist(),
        np.tile(np.arange(num_items), NUM_DRAWS).tolist(),
        {name: np.tile(EVERY_CAP[name], NUM_DRAWS).tolist() for name in max_per},
    )
    made = make(
        candidates,
        np.tile(SCORES, NUM_DRAWS).tolist(),
        seed=5,
        size=size,
        max_per=max_per,
        exploration=exploration,
    )
    items = candidates.item[made.row_index]
    firsts = np.append(np.flatnonzero(made.rank == 1), len(items))
    assert len(firsts) == NUM_DRAWS + 1
    counts = dict.fromkeys(expected, 0)
    for start, stop in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
        slate = tuple(items[start:stop].tolist())
        counts[slate] += 1
        if counts[slate] == 1:  # its propensities are the same each time
            np.testing.assert_allclose(
                made.propensity[start:stop], expected[slate], rtol=1e-12, atol=0
            )
    of_slate = np.multiply.reduceat(made.propensity, firsts[:-1])
    likely = np.array([prod(each) for each in expected.values()])
    assert np.isin(np.round(of_slate, 12), np.round(likely, 12)).all()
    found = chisquare(list(counts.values()), likely * NUM_DRAWS / likely.sum())
    assert found.pvalue > 1e-3, found


def test_the_coldest_draw_is_the_best_first_and_the_hottest_any_order() -> None:
    rng = np.random.default_rng(3)
    request, item = np.repeat(np.arange(40), 11), np.tile(np.arange(11), 40)
    scores = rng.normal(size=440)
    candidates = candidates_of(request.tolist(), item.tolist())
    cold = make(
        candidates,
        scores.tolist(),
        size=4,
        exploration={"kind": "plackett_luce", "temperature": 1e-6},
    )
    best = top_k(request, item, scores, k=4)
    assert cold.row_index.tolist() == best.row_index.tolist()
    np.testing.assert_allclose(cold.propensity, 1, rtol=1e-9)
    greedy = make(
        candidates, scores.tolist(), size=4, exploration={"kind": "epsilon", "epsilon": 0}
    )
    assert greedy.row_index.tolist() == best.row_index.tolist()
    assert greedy.propensity.tolist() == [1.0] * 160
    hot = make(
        candidates,
        scores.tolist(),
        size=4,
        exploration={"kind": "plackett_luce", "temperature": 1e9},
    )
    np.testing.assert_allclose(hot.propensity, 1 / (12.0 - hot.rank), rtol=1e-8)


def test_scaling_logits_and_temperature_alike_changes_nothing() -> None:
    candidates = candidates_of([3] * 5 + [8] * 5, [*range(5)] * 2)
    cool, warm = (
        make(
            candidates,
            [4 * s * factor for s in (*SCORES, *SCORES)],
            size=3,
            exploration={"kind": "plackett_luce", "temperature": 0.5 * factor},
        )
        for factor in (1, 64)
    )
    assert cool.row_index.tolist() == warm.row_index.tolist()
    assert cool.propensity.tolist() == warm.propensity.tolist()


def test_far_apart_logits_keep_their_propensities() -> None:
    """The rest is e^-900 of the top: a sum over all would leave it nothing."""
    scores = [1000.0, 100.0, 99.0, 98.0]
    made = make(
        candidates_of([1] * 4, [10, 20, 30, 40]),
        scores,
        size=4,
        exploration={"kind": "plackett_luce", "temperature": 1.0},
    )
    order = [scores[row] for row in made.row_index]
    by_hand = [
        1 / sum(exp(other - order[place]) for other in order[place:] if other - order[place] < 700)
        for place in range(4)
    ]
    np.testing.assert_allclose(made.propensity, by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    "exploration",
    [{"kind": "plackett_luce", "temperature": 0.8}, {"kind": "epsilon", "epsilon": 0.5}],
)
def test_a_draw_depends_on_seed_request_and_item_alone(exploration: dict[str, Any]) -> None:
    """Neither on the shard nor on the rows' order."""
    rng = np.random.default_rng(0)
    num_requests, num_items = 17, 9
    request = np.repeat(np.arange(num_requests), num_items)
    item = np.tile(np.arange(num_items), num_requests)
    scores = rng.normal(size=len(request))
    caps = item % 4

    def slates(rows: np.ndarray[Any, np.dtype[np.int64]], seed: int) -> list[tuple[float, ...]]:
        made = make(
            candidates_of(request[rows].tolist(), item[rows].tolist(), {"kind": caps[rows]}),
            scores[rows].tolist(),
            size=5,
            seed=seed,
            max_per={"kind": 1},
            exploration=exploration,
        )
        own = rows[made.row_index]
        return list(
            zip(
                request[own].tolist(),
                made.rank.tolist(),
                item[own].tolist(),
                np.round(made.propensity, 12).tolist(),
                strict=True,
            )
        )

    whole = slates(np.arange(len(request)), 1)
    assert slates(rng.permutation(len(request)), 1) == whole
    shards = [np.flatnonzero(request % 3 == shard) for shard in range(3)]
    assert sorted(row for shard in shards for row in slates(shard, 1)) == whole
    assert slates(np.arange(len(request)), 2) != whole


def test_caps_by_hand() -> None:
    """Authors 7 7 7 4 -: two of 7, then whoever comes; two caps at once; none left."""
    candidates = candidates_of([5] * 5, [*range(5)], EVERY_CAP)
    assert make(candidates, SCORES, size=4, max_per={"author": 2}).row_index.tolist() == [
        0,
        1,
        3,
        4,
    ]
    assert make(candidates, SCORES, size=4, max_per={"author": 1}).row_index.tolist() == [0, 3, 4]
    both = make(candidates, SCORES, size=4, max_per={"author": 1, "topic": 1})
    assert both.row_index.tolist() == [0, 4]  # 3 shares the topic of 0; without author is no author
    assert both.propensity.tolist() == [1.0, 1.0]


def test_what_may_not_be_shown_is_not() -> None:
    candidates = SlateCandidates(
        request=np.array([2, 2, 2, 1, 1]),
        item=np.array(["a", "b", "c", "a", "b"], dtype=object),
        may_be_shown=np.array([True, False, True, False, False]),
        cap_codes={},
    )
    made = make(candidates, [0.1, 9.0, 0.5, 1.0, 2.0], size=2)
    assert made.row_index.tolist() == [2, 0]  # request 1 has nothing left
    assert made.rank.tolist() == [1, 2]


@pytest.mark.parametrize(
    "exploration",
    [
        {"kind": "none"},
        {"kind": "plackett_luce", "temperature": 2.0},
        {"kind": "epsilon", "epsilon": 0.1},
    ],
)
@pytest.mark.parametrize("max_per", [{}, {"author": 1}, {"author": 1, "topic": 2}])
def test_no_candidates(exploration: dict[str, Any], max_per: dict[str, int]) -> None:
    none = candidates_of([], np.zeros(0, dtype=np.int64).tolist(), {"author": [], "topic": []})
    none = SlateCandidates(
        request=none.request,
        item=np.zeros(0, dtype=np.int64),
        cap_codes=none.cap_codes,
        request_hash=np.zeros(0, dtype=np.uint64),
        item_hash=np.zeros(0, dtype=np.uint64),
    )
    made = make(none, [], size=3, max_per=max_per, exploration=exploration)
    assert (len(made.row_index), len(made.rank), len(made.propensity)) == (0, 0, 0)


def test_bad_temperature_logits_and_caps_are_named() -> None:
    candidates = candidates_of([1, 1], [1, 2])
    cold = {"kind": "plackett_luce", "temperature": 1e-12}
    with pytest.raises(ValueError, match="at temperature 1e-12; raise it"):
        make(candidates, [1.0, 2.0], size=2, exploration=cold)
    with pytest.raises(ValueError, match="finite logits"):
        make(candidates, [-np.inf, 2.0], size=2, exploration={**cold, "temperature": 1})
    with pytest.raises(ValueError, match=r"caps \['author'\], whose codes the candidates lack"):
        make(candidates, [1.0, 2.0], size=2, max_per={"author": 1})
    with pytest.raises(ValueError, match=r"NaN \(such rows: 1"):
        make(candidates, [1.0, np.nan], size=2)


def slowly(rows: list[tuple[int, int, float, int, int]], caps: dict[str, int], size: int) -> Any:
    """Each request by itself, item after item."""
    found = []
    for request in sorted({row[0] for row in rows}):
        shown: list[tuple[int, int, float, int, int]] = []
        for row in sorted((r for r in rows if r[0] == request), key=lambda r: (-r[2], r[1])):
            place = {"author": 3, "topic": 4}
            fits = all(
                row[place[name]] < 0
                or sum(other[place[name]] == row[place[name]] for other in shown) < most
                for name, most in caps.items()
            )
            if fits and len(shown) < size:
                shown.append(row)
        found += [(request, rank, row[1]) for rank, row in enumerate(shown, start=1)]
    return found


rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 60),
        st.sampled_from([-1.5, 0.0, 0.25, 7.0]),
        st.integers(-1, 2),
        st.integers(-1, 1),
    ),
    unique_by=lambda row: row[:2],
    max_size=90,
)


@settings(max_examples=120, deadline=None)
@given(
    rows=rows_strategy,
    size=st.integers(1, 9),
    caps=st.dictionaries(st.sampled_from(["author", "topic"]), st.integers(1, 3)),
)
def test_equals_filling_each_slate_by_hand(
    rows: list[tuple[int, int, float, int, int]], size: int, caps: dict[str, int]
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []]
    candidates = SlateCandidates(
        request=np.array(columns[0], dtype=np.int64),
        item=np.array(columns[1], dtype=np.int64),
        cap_codes={
            "author": np.array(columns[3], dtype=np.int64),
            "topic": np.array(columns[4], dtype=np.int64),
        },
        request_hash=np.array(columns[0], dtype=np.uint64),
        item_hash=np.array(columns[1], dtype=np.uint64),
    )
    expected = slowly(rows, caps, size)
    for exploration in ({"kind": "none"}, {"kind": "epsilon", "epsilon": 0}):
        made = make(candidates, columns[2], size=size, max_per=caps, exploration=exploration)
        got = zip(
            candidates.request[made.row_index].tolist(),
            made.rank.tolist(),
            candidates.item[made.row_index].tolist(),
            strict=True,
        )
        assert list(got) == expected
        assert made.propensity.tolist() == [1.0] * len(expected)
    drawn = make(
        candidates,
        columns[2],
        size=size,
        max_per=caps,
        exploration={"kind": "plackett_luce", "temperature": 3.0},
    )
    assert ((drawn.propensity > 0) & (drawn.propensity <= 1 + 1e-12)).all()
    picked = {(rows[row][0], rows[row][1]) for row in drawn.row_index}
    kept = [row for row in rows if (row[0], row[1]) in picked]
    assert sorted(x[::2] for x in slowly(kept, caps, size)) == sorted(
        (rows[row][0], rows[row][1]) for row in drawn.row_index
    )


def test_many_rows_of_full_groups_are_passed_over() -> None:
    """A list whose head is one author: the queue is cleared, nothing is lost."""
    num_items = 997
    item = np.arange(num_items)
    author = np.where(item < 900, 1, item)
    topic = np.where(item < 950, 2, -1)
    candidates = candidates_of(
        [4] * num_items, item.tolist(), {"author": author.tolist(), "topic": topic.tolist()}
    )
    made = make(
        candidates,
        (-1.0 * item).tolist(),
        size=7,
        max_per={"author": 3, "topic": 5},
        exploration={"kind": "epsilon", "epsilon": 0},
    )
    assert made.row_index.tolist() == [0, 1, 2, 900, 901, 950, 951]


@pytest.mark.parametrize(
    "exploration",
    [
        {"kind": "none"},
        {"kind": "plackett_luce", "temperature": 0.8},
        {"kind": "epsilon", "epsilon": 0.4},
    ],
)
@pytest.mark.parametrize("max_per", [{}, {"author": 1}, {"author": 2, "topic": 2}])
def test_sorting_only_the_beginning_changes_nothing(
    exploration: dict[str, Any], max_per: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    lengths = rng.integers(1, 40, size=50)
    request = np.repeat(np.arange(50), lengths)
    item = np.concatenate([rng.permutation(40)[:length] for length in lengths])
    caps = {"author": rng.integers(-1, 4, len(item)), "topic": rng.integers(0, 3, len(item))}
    candidates = candidates_of(
        request.tolist(), item.tolist(), {name: codes.tolist() for name, codes in caps.items()}
    )
    scores = np.round(rng.normal(size=len(item)), 1).tolist()  # with ties
    found = []
    for depth in (1, 2, 1000):
        monkeypatch.setattr("ranker.scoring.slates.slate.FIRST_DEPTH", depth)
        made = make(candidates, scores, size=3, max_per=max_per, exploration=exploration)
        found.append((made.row_index.tolist(), made.rank.tolist(), made.propensity.tolist()))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0][2])) > 1 or exploration["kind"] == "none"


def test_every_order_of_a_small_list_has_its_probability() -> None:
    """Summed over all permutations, the products of the conditionals are 1."""
    whole = every_slate(5, {}, plackett_luce(0.4))
    assert set(whole) == set(permutations(range(5)))
    assert sum(prod(each) for each in whole.values()) == pytest.approx(1, abs=1e-12)
