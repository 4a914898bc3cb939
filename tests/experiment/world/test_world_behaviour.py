"""What users do: formulas against Monte Carlo, curves, conflict, propensities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from ranker.config import ConfigError, parse_config
from ranker.experiment.world.behaviour import (
    draw,
    expect,
    no_novelty,
    responses,
    unchanged_clicks,
)
from ranker.experiment.world.counterfactual import expected_outcomes, quiet_catalogue
from ranker.experiment.world.days import Arm, Treatment, show
from ranker.experiment.world.policies import (
    KnownPolicy,
    conditional_propensities,
    file_policy,
    random_policy,
    slate_orders,
)
from ranker.experiment.world.randomness import Source, uniforms
from ranker.experiment.world.sessions import draw_candidates, draw_requests
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.world import World, make_world


def small_world(**changes: object) -> World:
    values: dict[str, object] = {
        "seed": 4,
        "num_users": 700,
        "num_items": 310,
        "num_topics": 6,
        "num_days": 5,
        "slate_size": 9,
        "candidates": {"count": 33},
    }
    return make_world(parse_config(WorldSettings, values | changes, source="test"))


def random_slates(world: World) -> np.ndarray:
    """A random policy's clicks: [device, position] -> expected clicks per impression."""
    everyone = Treatment(
        arms=[Arm(policy=random_policy())],
        arm_of_user=np.zeros(world.settings.num_users, dtype=np.int64),
        novelty=[0.0],
    )
    catalogue = quiet_catalogue(world, day=2)
    shown = show(
        world,
        catalogue,
        chunk=0,
        takes_part=np.ones(world.settings.num_users),
        treatment=everyone,
    )
    return shown


def ctr_by_position(world: World, device: int) -> np.ndarray:
    shown = random_slates(world)
    clicks = expect(world, shown.responses).click
    return clicks[shown.requests.devices == device].mean(axis=0)


@pytest.mark.parametrize("conflict", [-0.8, -0.3, 0.0, 0.6])
def test_click_rates_and_ratings_of_items_correlate_as_asked(conflict: float) -> None:
    world = small_world(
        conflict=conflict, num_items=900, examination={"kind": "none"}, behaviour={"mood": 0.0}
    )
    catalogue = quiet_catalogue(world, day=4)
    requests = draw_requests(world, catalogue, chunk=0)
    first = np.unique(requests.users, return_index=True)[1]
    users = requests.where(np.isin(np.arange(len(requests.users)), first))  # a request each
    parts = [
        expected_outcomes(world, catalogue, users, np.tile(items, (len(users.ids), 1)))
        for items in np.arange(900).reshape(100, 9)
    ]
    clicks = np.concatenate([part.click.mean(axis=0) for part in parts])
    ratings = np.concatenate([part.rating.mean(axis=0) for part in parts])
    assert np.corrcoef(clicks, ratings)[0, 1] == pytest.approx(conflict, abs=0.03)


def test_an_unreachable_conflict_is_refused() -> None:
    with pytest.raises(ValueError, match=r"conflict 0\.999: .* can correlate by -0\.\d+ to 0\.\d+"):
        small_world(conflict=0.999)


@pytest.mark.parametrize("novelty", [0.0, 0.7])
def test_formula_equals_monte_carlo(novelty: float) -> None:
    world = small_world(behaviour={"survey_rate": 0.3})
    shown = random_slates(world)
    rng = np.random.default_rng(8)
    catalogue = quiet_catalogue(world, day=2)
    requests, items = shown.requests.where(np.arange(len(shown.items)) < 20), shown.items[:20]
    given = responses(
        world,
        catalogue,
        requests,
        items,
        novelty=no_novelty(requests) + novelty,
        click_factor=0.8 * unchanged_clicks(requests),
    )
    expected = expect(world, given)
    draws = [draw(world, given, rng=rng) for _ in range(2_000)]
    # E[X²] of a log-normal with location m and spread σ is exp(2m + 2σ²); of 0 or 1 it is the mean.
    square = np.exp(2 * given.watch_location + 2 * world.settings.behaviour.watch_spread**2)
    for name in ("click", "watch_time_s", "like", "dismissed", "surveyed"):
        mean = getattr(expected, name)
        second_moment = expected.click * square if name == "watch_time_s" else mean
        drawn = np.mean([getattr(one, name) for one in draws], axis=0)
        z = (drawn - mean) / np.sqrt((second_moment - mean**2) / len(draws))
        assert z.size == 180
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
        assert 0.75 < z.std() < 1.3
    ratings = np.array([one.rating for one in draws])
    asked = np.isfinite(ratings).sum(axis=0)
    z = (np.nanmean(ratings, axis=0) - expected.rating) / (
        np.nanstd(ratings, axis=0) / np.sqrt(asked)
    )
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert 0.75 < z.std() < 1.3


def test_outcomes_respect_what_they_need() -> None:
    world = small_world(behaviour={"click_rate": 0.4, "survey_rate": 0.2})
    shown = random_slates(world)
    drawn = draw(world, shown.responses, rng=np.random.default_rng(1))
    assert drawn.click.sum() > 0 and drawn.like.sum() > 0
    assert np.all(drawn.click[drawn.like > 0] == 1)
    assert np.array_equal(drawn.watch_time_s > 0, drawn.click > 0)
    assert np.array_equal(np.isfinite(drawn.rating), drawn.surveyed > 0)
    assert set(np.unique(drawn.rating[drawn.surveyed > 0])) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_without_position_bias_a_random_order_gives_flat_click_rates() -> None:
    curve = ctr_by_position(small_world(examination={"kind": "none"}), device=0)
    # positions differ only by which random items stand there
    assert curve == pytest.approx(np.full(9, curve.mean()), rel=0.1)
    biased = ctr_by_position(small_world(), device=0)
    assert biased[-1] < 0.4 * biased[0]


FIG_6 = np.array([3.55, 1.2, 1.1, 0.8, 0.6, 0.5, 0.4, 0.35, 0.3])
FIG_7 = np.array([-1.0, -1.25, -1.48, -1.7, -1.8, -1.88, -1.92, -1.95, -1.98])


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("fig6", FIG_6 / FIG_6[0]),
        ("fig7", (1 + np.exp(-FIG_7[0])) / (1 + np.exp(-FIG_7))),
    ],
)
def test_a_random_order_shows_the_papers_curves(preset: str, expected: np.ndarray) -> None:
    world = small_world(examination={"kind": preset})
    flat = small_world(examination={"kind": "none"})
    # the same random slates in both worlds: what differs is examination alone
    for device, decay in enumerate([1.0, 0.8, 0.5]):
        ratio = ctr_by_position(world, device) / ctr_by_position(flat, device)
        assert ratio == pytest.approx(expected**decay, rel=1e-9)


def test_later_positions_are_as_the_last_of_a_preset() -> None:
    world = small_world(slate_size=12, examination={"kind": "fig6"})
    assert world.examination[0, 8:] == pytest.approx(np.full(4, 0.3 / 3.55))
    power = small_world(slate_size=12, examination={"kind": "power", "eta": 0.5})
    assert power.examination[0] == pytest.approx(np.arange(1, 13) ** -0.5)


def test_propensities_are_those_of_plackett_luce() -> None:
    scores = np.array([[0.3, -1.0, 1.2, 0.0, 0.7]])
    strength = np.exp(scores[0] / 0.5)
    orders = np.array([[2, 4, 0, 3, 1]])
    got = conditional_propensities(scores, orders=orders, temperature=0.5, slate_size=3)
    by_hand = [
        strength[2] / strength.sum(),
        strength[4] / (strength.sum() - strength[2]),
        strength[0] / (strength.sum() - strength[2] - strength[4]),
    ]
    assert got[0] == pytest.approx(by_hand, rel=1e-12)
    # an extreme temperature neither underflows nor exceeds 1
    cold = conditional_propensities(scores, orders=orders, temperature=1e-3, slate_size=3)
    assert cold[0] == pytest.approx([1, 1, 1])


def test_slates_come_as_often_as_their_propensities_say() -> None:
    world = small_world()
    requests = draw_requests(world, quiet_catalogue(world, day=1), chunk=0)
    num_draws = len(requests.ids)
    scores = np.tile([[0.5, 0.0, -0.4, 1.0]], (num_draws, 1))
    candidates = np.tile([[3, 11, 27, 40]], (num_draws, 1))
    policy = KnownPolicy(name="test", temperature=0.8)
    orders = slate_orders(world, policy, requests=requests, candidates=candidates, scores=scores)[
        :, :2
    ]
    propensities = conditional_propensities(
        scores,
        orders=slate_orders(world, policy, requests=requests, candidates=candidates, scores=scores),
        temperature=0.8,
        slate_size=2,
    )
    slates, first, counts = np.unique(
        orders[:, 0] * 4 + orders[:, 1], return_index=True, return_counts=True
    )
    expected = propensities[first].prod(axis=1)  # of each slate of two
    assert len(slates) == 12
    assert expected.sum() == pytest.approx(1)
    assert chisquare(counts, num_draws * expected).pvalue > 1e-4


def test_hashed_numbers_look_uniform_and_depend_on_everything() -> None:
    requests, items = np.arange(700) * 64, np.arange(33)[None, :]
    numbers = uniforms(3, Source.SLATES, requests=requests, items=items)
    counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
    assert chisquare(counts).pvalue > 1e-4
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.15
    for other in (
        uniforms(4, Source.SLATES, requests=requests, items=items),
        uniforms(3, Source.CANDIDATES, requests=requests, items=items),
    ):
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.03
    # no request needs the others
    alone = uniforms(3, Source.SLATES, requests=requests[500:501], items=items)
    assert np.array_equal(alone[0], numbers[500])


def test_candidates_are_distinct_published_and_never_the_query_item() -> None:
    world = small_world()
    for day in (0, 4):
        catalogue = quiet_catalogue(world, day=day)
        requests = draw_requests(world, catalogue, chunk=0)
        candidates = draw_candidates(world, catalogue, requests)
        assert candidates.shape == (len(requests.ids), 33)
        assert np.all(np.diff(np.sort(candidates, axis=1), axis=1) > 0)
        assert not np.any(candidates == requests.query_items[:, None])
        assert np.all(world.items.published_day[candidates] <= day)
        assert len(np.unique(requests.ids)) == len(requests.ids)


def test_candidates_match_the_query_items_topic() -> None:
    shares = []
    for topic_match in (0.0, 2.5):
        world = small_world(candidates={"count": 33, "topic_match": topic_match})
        catalogue = quiet_catalogue(world, day=1)
        requests = draw_requests(world, catalogue, chunk=0)
        candidates = draw_candidates(world, catalogue, requests)
        shares.append(np.mean(world.items.topic[candidates] == requests.query_topics[:, None]))
    assert shares[0] == pytest.approx(1 / 6, abs=0.05)
    assert shares[1] > 1.5 * shares[0]


def test_a_later_day_has_more_items_and_unknown_days_are_refused() -> None:
    world = small_world()
    sizes = [quiet_catalogue(world, day=day).order.shape[1] for day in range(5)]
    assert sizes == sorted(sizes) and sizes[0] >= 186 and sizes[-1] == 310
    with pytest.raises(ValueError, match=r"day must be in 0\.\.4, got 5"):
        quiet_catalogue(world, day=5)


def test_a_file_ranks_as_it_says() -> None:
    world = small_world(num_users=40)
    catalogue = quiet_catalogue(world, day=3)
    requests = draw_requests(world, catalogue, chunk=0)
    candidates = draw_candidates(world, catalogue, requests)
    rng = np.random.default_rng(2)
    ranks = rng.permuted(np.tile(np.arange(1.0, 34), (len(candidates), 1)), axis=1)
    order = rng.permutation(candidates.size)
    policy = file_policy(
        "theirs",
        requests=np.repeat(requests.ids, 33)[order],
        items=candidates.ravel()[order],
        scores=-ranks.ravel()[order],
        num_items=310,
    )
    scores = policy.scores(world, catalogue, requests, candidates)
    orders = slate_orders(world, policy, requests=requests, candidates=candidates, scores=scores)
    assert np.array_equal(
        np.take_along_axis(ranks, orders, axis=1)[:, :3], np.tile([1, 2, 3], (len(ranks), 1))
    )


def test_a_bad_file_is_refused() -> None:
    world = small_world(num_users=40)
    catalogue = quiet_catalogue(world, day=3)
    requests = draw_requests(world, catalogue, chunk=0)
    candidates = draw_candidates(world, catalogue, requests)
    rows = {
        "requests": np.repeat(requests.ids, 33),
        "items": candidates.ravel(),
        "scores": np.ones(candidates.size),
    }
    short = file_policy("short", **{k: v[:5] for k, v in rows.items()}, num_items=310)
    with pytest.raises(ValueError, match="has scores for 5 of its candidates, a slate shows 9"):
        short.scores(world, catalogue, requests, candidates)
    with pytest.raises(ValueError, match="not finite"):
        file_policy("nan", **(rows | {"scores": np.full(candidates.size, np.nan)}), num_items=310)
    with pytest.raises(ValueError, match=r"items must be in 0\.\.9"):
        file_policy("unknown", **rows, num_items=10)
    with pytest.raises(ValueError, match="repeat an item"):
        file_policy("twice", **{k: np.tile(v, 2) for k, v in rows.items()}, num_items=310)
    with pytest.raises(ValueError, match="at least one"):
        file_policy("empty", **{k: v[:0] for k, v in rows.items()}, num_items=310)


def test_slates_that_cannot_be_are_refused() -> None:
    world = small_world(num_users=20)
    catalogue = quiet_catalogue(world, day=1)
    requests = draw_requests(world, catalogue, chunk=0)
    num_requests = len(requests.ids)
    for slates, message in [
        (np.zeros((num_requests, 2), dtype=np.int64), "twice in a slate"),
        (np.full((num_requests, 1), 309), "items of day 1 are"),
        (np.tile(np.arange(10), (num_requests, 1)), "at most 9 positions"),
        (np.zeros((num_requests + 1, 1), dtype=np.int64), "rows, got shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            expected_outcomes(world, catalogue, requests, slates)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slate_size": 70}, "slate_size 70 needs"),
        ({"num_items": 90}, "num_items 90: 54 exist"),
        ({"conflict": 1.5}, "conflict"),
        ({"devices": [{"name": "tv", "share": 1}, {"name": "tv", "share": 2}]}, "must differ"),
        ({"examination": {"kind": "given", "probabilities": [0.5]}}, "must be 1 at the top"),
    ],
)
def test_a_world_that_cannot_be_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(WorldSettings, values, source="test")
