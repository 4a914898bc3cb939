"""Answers to given slates, against the world's exact expectations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_world_behaviour import small_world

from ranker.experiment.world.answers import GivenSlates, answer_slates
from ranker.experiment.world.counterfactual import expected_outcomes, quiet_catalogue
from ranker.experiment.world.days import active_at_start
from ranker.experiment.world.log import candidate_table, request_table
from ranker.experiment.world.sessions import draw_requests
from ranker.experiment.world.world import World

DAY = 2


def slates_of(world: World, length: int) -> tuple[pd.DataFrame, GivenSlates]:
    """Each request's first candidates by id."""
    lists = candidate_table(world, day=DAY).to_pandas()
    lists["rank"] = lists.groupby("request_id").cumcount() + 1
    shown = lists[lists["rank"] <= length]
    return shown, GivenSlates(
        requests=shown["request_id"].to_numpy(),
        items=shown["item_id"].to_numpy(),
        ranks=shown["rank"].to_numpy(),
    )


def everybody(world: World) -> np.ndarray:
    return np.ones(world.settings.num_users)


def test_mean_answers_are_the_expected_outcomes() -> None:
    world = small_world()
    shown, given = slates_of(world, 7)
    requests = draw_requests(world, quiet_catalogue(world, day=DAY), chunk=0)
    items = shown.sort_values(["request_id", "rank"])["item_id"].to_numpy().reshape(-1, 7)
    assert requests.ids.tolist() == sorted(shown["request_id"].unique())
    truth = expected_outcomes(world, quiet_catalogue(world, day=DAY), requests, items)
    drawn = pd.concat(
        answer_slates(world, given, day=DAY, active=everybody(world), seed=s).outcomes.to_pandas()
        for s in range(40)
    )
    for name in ("click", "like", "dismissed"):
        expected = getattr(truth, name)
        error = np.sqrt((expected * (1 - expected)).sum() / 40) / expected.size
        assert abs(drawn[name].mean() - expected.mean()) < 4 * error, name
    assert drawn["rating"].notna().mean() == pytest.approx(truth.surveyed.mean(), rel=0.1)


def test_only_users_who_came_answer() -> None:
    world = small_world()
    shown, given = slates_of(world, 4)
    active = active_at_start(world, seed=1)
    answers = answer_slates(world, given, day=DAY, active=active, seed=3)
    came = shown[active[shown["user_id"]] > 0]
    got = answers.outcomes.to_pandas()
    assert set(zip(got["request_id"], got["item_id"], strict=True)) == set(
        zip(came["request_id"], came["item_id"], strict=True)
    )
    assert len(got) == len(came)
    times = got.merge(came, on=["request_id", "item_id"])
    delay_s = (times["answered_ms"] - times["time_ms"]) / 1000
    np.testing.assert_allclose(delay_s, times["watch_time_s"], atol=2e-3)
    assert set(answers.active) == {0.0, 1.0}


def test_answers_depend_on_the_slates_not_on_their_rows() -> None:
    world = small_world()
    _, given = slates_of(world, 5)
    rows = np.random.default_rng(0).permutation(len(given.items))
    shuffled = GivenSlates(
        requests=given.requests[rows], items=given.items[rows], ranks=given.ranks[rows]
    )
    first, second = (
        answer_slates(world, slates, day=DAY, active=everybody(world), seed=3)
        for slates in (given, shuffled)
    )
    assert first.outcomes.equals(second.outcomes)
    assert first.active.tolist() == second.active.tolist()


def test_slates_of_different_lengths() -> None:
    """One slate is shorter: nobody looks past its end."""
    world = small_world()
    _, given = slates_of(world, 5)
    short = given.requests[0]
    kept = (given.requests != short) | (given.ranks <= 2)
    cut = GivenSlates(
        requests=given.requests[kept], items=given.items[kept], ranks=given.ranks[kept]
    )
    outcomes = answer_slates(world, cut, day=DAY, active=everybody(world), seed=3).outcomes
    lengths = outcomes.to_pandas().groupby("request_id").size()
    assert lengths[short] == 2
    assert set(lengths.drop(short)) == {5}


def test_the_requests_are_those_of_the_candidate_lists() -> None:
    world = small_world()
    requests = request_table(world, day=DAY).to_pandas()
    lists = candidate_table(world, day=DAY).to_pandas().drop(columns="item_id").drop_duplicates()
    pd.testing.assert_frame_equal(requests, lists.reset_index(drop=True))


def test_wrong_slates_are_refused() -> None:
    world = small_world()
    _, given = slates_of(world, 3)

    def refused(message: str, **changes: np.ndarray) -> None:
        with pytest.raises(ValueError, match=message):
            wrong = replace(given, **changes)
            answer_slates(world, wrong, day=DAY, active=everybody(world), seed=0)

    refused("are none of day 2's", requests=given.requests + 10**7)
    refused("items of day 2 are 0", items=given.items + 10**4)
    refused("ranks of day 2 are 1..9", ranks=given.ranks - 1)
    refused("have gaps", ranks=given.ranks + 1)
    refused("an item is twice", items=np.full(len(given.items), 5))
