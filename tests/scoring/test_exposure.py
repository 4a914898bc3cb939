"""The exposure log's columns, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ranker.config import parse_config
from ranker.data.row_hash import mixed_bits
from ranker.scoring.slates.candidate_lists import SlateCandidates
from ranker.scoring.slates.exposure import (
    PolicyDigests,
    SlateCounts,
    candidate_sets,
    count_slates,
    exposure_columns,
    score_logits,
)
from ranker.scoring.slates.slate import make_slates
from ranker.scoring.slates.slate_config import SlateConfig

POLICY = PolicyDigests(bundle="b" * 64, score_weights="w" * 12)
REQUEST = np.array([4, 4, 4, 9, 9, 2])
ITEM = np.array(["c", "a", "b", "a", "c", "a"], dtype=object)
SCORE = np.array([1.0, 2.0, 4.0, 0.5, 0.25, 8.0])
HASHES = mixed_bits(np.array([3, 1, 2, 1, 3, 1], dtype=np.uint64))


def lists(may_be_shown: list[bool] | None = None) -> SlateCandidates:
    return SlateCandidates(
        request=REQUEST,
        item=ITEM,
        may_be_shown=None if may_be_shown is None else np.array(may_be_shown),
        cap_codes={"author": np.array([0, 0, -1, 1, -1, 0])},
        request_hash=mixed_bits(REQUEST.astype(np.uint64)),
        item_hash=HASHES,
    )


def test_logits_are_logarithms_of_products_and_sums_themselves() -> None:
    np.testing.assert_allclose(
        score_logits(SCORE, "weighted_product"), [math.log(s) for s in SCORE]
    )
    assert score_logits(SCORE, "weighted_sum").tolist() == SCORE.tolist()
    assert score_logits(SCORE, "rank_normalised_sum").tolist() == SCORE.tolist()


def test_a_candidate_set_is_known_by_its_items_alone() -> None:
    digests = candidate_sets(REQUEST, HASHES)
    assert len(set(digests.tolist())) == 3
    assert digests[0] == digests[1] == digests[2]
    shuffled = np.array([2, 5, 1, 0, 4, 3])
    again = candidate_sets(REQUEST[shuffled], HASHES[shuffled])
    assert again.tolist() == digests[shuffled].tolist()
    # the same items under another request are the same set
    assert candidate_sets(REQUEST + 70, HASHES).tolist() == digests.tolist()
    assert candidate_sets(REQUEST[:0], HASHES[:0]).tolist() == []


@pytest.mark.parametrize(
    ("exploration", "temperature", "epsilon"),
    [
        ({"kind": "none"}, None, None),
        ({"kind": "plackett_luce", "temperature": 0.5}, 0.5, None),
        ({"kind": "epsilon", "epsilon": 0.25}, None, 0.25),
    ],
)
def test_columns_by_hand(
    exploration: dict[str, object], temperature: float | None, epsilon: float | None
) -> None:
    config = parse_config(
        SlateConfig,
        {"size": 2, "exploration": exploration, "log_candidates": True},
        source="test",
    )
    candidates = lists([True, True, False, True, True, True])
    logits = score_logits(SCORE, "weighted_product")
    slates = make_slates(candidates, SCORE, logits=logits, config=config, seed=1)
    assert REQUEST[slates.row_index].tolist() == [2, 4, 4, 9, 9]
    columns = exposure_columns(
        candidates, slates, logits=logits, item_hash=HASHES, config=config, policy=POLICY
    )
    assert columns["logit"].to_pylist() == logits[slates.row_index].tolist()
    assert columns["propensity"].to_pylist() == slates.propensity.tolist()
    assert columns["exploration"].to_pylist() == [exploration["kind"]] * 5
    assert columns["temperature"].to_pylist() == [temperature] * 5
    assert columns["epsilon"].to_pylist() == [epsilon] * 5
    assert columns["bundle"].to_pylist() == ["b" * 64] * 5
    assert columns["score_weights"].to_pylist() == ["w" * 12] * 5
    # the set is that of all candidates, the lists those that could be shown, by id
    assert columns["candidate_set"].to_pylist()[0] == candidate_sets(REQUEST, HASHES)[5]
    assert columns["candidate_items"].to_pylist() == [["a"], ["a", "c"], None, ["a", "c"], None]
    assert columns["candidate_logits"].to_pylist() == [
        [math.log(8)],
        [math.log(2), 0.0],
        None,
        [math.log(0.5), math.log(0.25)],
        None,
    ]


def test_logged_candidates_give_back_the_propensities() -> None:
    """What the log holds is enough to compute the policy's chances again, and another's."""
    config = parse_config(
        SlateConfig,
        {
            "size": 3,
            "exploration": {"kind": "plackett_luce", "temperature": 0.8},
            "log_candidates": True,
        },
        source="test",
    )
    candidates, logits = lists(), np.log(SCORE)
    slates = make_slates(candidates, SCORE, logits=logits, config=config, seed=2)
    columns = exposure_columns(
        candidates, slates, logits=logits, item_hash=HASHES, config=config, policy=POLICY
    )
    shown = [row for row in slates.row_index.tolist() if REQUEST[row] == 4]
    listed = next(
        dict(zip(items, values, strict=True))
        for items, values in zip(
            columns["candidate_items"].to_pylist(),
            columns["candidate_logits"].to_pylist(),
            strict=True,
        )
        if items is not None and len(items) == 3
    )
    weights = {item: math.exp(logit / 0.8) for item, logit in listed.items()}
    expected = []
    for row in shown:
        expected.append(weights[ITEM[row]] / sum(weights.values()))
        del weights[ITEM[row]]
    at = np.isin(slates.row_index, shown)
    np.testing.assert_allclose(slates.propensity[at], expected, rtol=1e-12)


def test_counts_by_hand_and_over_shards() -> None:
    candidates = lists([True, False, False, True, True, False])
    config = parse_config(SlateConfig, {"size": 2}, source="test")
    slates = make_slates(candidates, SCORE, logits=SCORE, config=config, seed=0)
    counts = count_slates(candidates, slates, size=2)
    assert counts == SlateCounts(
        requests=3,
        shown=3,
        short_slates=2,
        missing_items=3,
        empty_slates=1,
        hidden_by_freshness=3,
        without_value={"author": 2},
    )
    none = SlateCounts(without_value={})
    assert none + counts == counts
    assert (counts + counts).without_value == {"author": 4}
    assert (counts + counts).missing_items == 6
