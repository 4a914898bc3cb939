import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ranker.experiment.interleaving import interleave_by_team_draft, preference


def rankings(sizes, *, seed):
    """Requests with lists of ``sizes``, each ranked twice at random."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    control, treatment = (
        np.concatenate([rng.permutation(size) + 1 for size in sizes]) for _ in range(2)
    )
    return codes, control, treatment


def draft(control, treatment, *, slate_size, treatment_first):
    """Plain form of one request: lists of candidates best first, a coin for each round."""
    slate, teams = [], []
    for turn in range(min(slate_size, len(control))):
        by_treatment = treatment_first[turn // 2] ^ (turn % 2 == 1)
        order = treatment if by_treatment else control
        slate.append(next(one for one in order if one not in slate))
        teams.append(by_treatment)
    return slate, teams


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    slate_size=st.integers(1, 8),
    seed=st.integers(0, 2**20),
)
def test_slates_are_drafted_as_by_hand(sizes, slate_size, seed):
    codes, control, treatment = rankings(sizes, seed=seed)
    shown = interleave_by_team_draft(
        codes,
        control_ranks=control,
        treatment_ranks=treatment,
        slate_size=slate_size,
        rng=np.random.default_rng(seed),
    )
    coins_rng = np.random.default_rng(seed)
    coins = [coins_rng.random(len(sizes)) < 0.5 for _ in range((slate_size + 1) // 2)]
    requests = codes[shown.candidates]
    assert (np.diff(requests) >= 0).all()
    for request in range(len(sizes)):
        rows = np.flatnonzero(codes == request)
        slate, teams = draft(
            rows[np.argsort(control[rows])].tolist(),
            rows[np.argsort(treatment[rows])].tolist(),
            slate_size=slate_size,
            treatment_first=[round_coins[request] for round_coins in coins],
        )
        mine = requests == request
        assert shown.candidates[mine].tolist() == slate
        assert shown.by_treatment[mine].tolist() == teams
        assert shown.ranks[mine].tolist() == list(range(1, len(slate) + 1))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    slate_size=st.integers(1, 6),
    seed=st.integers(0, 2**20),
)
def test_no_item_twice_and_all_above_a_picked_item_are_shown_above_it(sizes, slate_size, seed):
    codes, control, treatment = rankings(sizes, seed=seed)
    shown = interleave_by_team_draft(
        codes,
        control_ranks=control,
        treatment_ranks=treatment,
        slate_size=slate_size,
        rng=np.random.default_rng(seed),
    )
    assert len(set(shown.candidates.tolist())) == len(shown.candidates)
    rank_shown = np.full(len(codes), 10**6)
    rank_shown[shown.candidates] = shown.ranks
    for candidate, by_treatment in zip(shown.candidates, shown.by_treatment, strict=True):
        ranks = treatment if by_treatment else control
        better = (codes == codes[candidate]) & (ranks < ranks[candidate])
        assert (rank_shown[better] < rank_shown[candidate]).all()
    for request, size in enumerate(sizes):
        teams = shown.by_treatment[codes[shown.candidates] == request]
        assert len(teams) == min(slate_size, size)
        assert abs(2 * np.count_nonzero(teams) - len(teams)) <= 1


def test_with_equal_rankings_every_item_is_of_either_team_by_a_fair_coin():
    num_requests, size = 20_000, 5
    codes = np.repeat(np.arange(num_requests), size)
    ranks = np.tile(np.array([3, 1, 5, 2, 4]), num_requests)
    shown = interleave_by_team_draft(
        codes,
        control_ranks=ranks,
        treatment_ranks=ranks,
        slate_size=3,
        rng=np.random.default_rng(6),
    )
    assert (ranks[shown.candidates] == shown.ranks).all()  # the ranking itself is shown
    for rank in (1, 2, 3):
        share = shown.by_treatment[shown.ranks == rank].mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(num_requests)
    first, second, third = (shown.by_treatment[shown.ranks == rank] for rank in (1, 2, 3))
    assert (first != second).all()
    assert abs(np.corrcoef(first, third)[0, 1]) < 4 / np.sqrt(num_requests)


def test_preference_by_hand():
    # users 3, 8, 9 give treatment 2, 0, 1 of 3, 1, 1 credits: 3 of 5
    verdict = preference(
        user_codes=np.array([8, 3, 3, 9, 3, 8, 9]),
        by_treatment=np.array([False, True, False, True, True, True, False]),
        credits=np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
        confidence=0.8,
    )
    residuals = np.array([2 - 0.6 * 3, 0 - 0.6 * 1, 1 - 0.6 * 1])
    se = np.sqrt(np.sum(residuals**2) / 2 / 3) / (5 / 3)
    assert verdict.share_treatment == pytest.approx(0.6)
    assert verdict.share_se == pytest.approx(se)
    assert verdict.num_users == 3
    assert (verdict.ci_low, verdict.ci_high) == pytest.approx(
        stats.t.interval(0.8, 2, loc=0.6, scale=se)
    )
    assert verdict.p_value == pytest.approx(2 * stats.t.sf(0.1 / se, 2))
    assert verdict.reason == ""


def test_clicks_of_one_user_are_not_independent():
    # 400 users of very different habits, without a preference: p-values must stay uniform
    rng, p_values = np.random.default_rng(7), []
    for _ in range(400):
        users = np.repeat(np.arange(100), rng.integers(1, 30, size=100))
        favours = rng.random(100) < 0.5  # each user clicks on one team's items only
        by_treatment = rng.random(len(users)) < 0.5
        credits = (by_treatment == favours[users]).astype(float)
        p_values.append(
            preference(
                user_codes=users, by_treatment=by_treatment, credits=credits, confidence=0.95
            ).p_value
        )
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("users", "by_treatment", "credits", "reason"),
    [
        ([], [], [], "0 user"),
        ([4, 4], [True, False], [1.0, 0.0], "1 user"),
        ([4, 5], [True, False], [0.0, 0.0], "nobody clicked"),
        ([4, 5], [True, True], [1.0, 2.0], "alike"),
    ],
)
def test_without_an_interval_there_is_a_reason(users, by_treatment, credits, reason):
    verdict = preference(
        user_codes=np.array(users, dtype=np.int64),
        by_treatment=np.array(by_treatment, dtype=bool),
        credits=np.array(credits),
        confidence=0.95,
    )
    assert reason in verdict.reason
    assert np.isnan([verdict.ci_low, verdict.ci_high, verdict.p_value]).all()


def test_no_requests_no_slates():
    none = np.zeros(0, dtype=np.int64)
    shown = interleave_by_team_draft(
        none,
        control_ranks=none,
        treatment_ranks=none,
        slate_size=4,
        rng=np.random.default_rng(0),
    )
    assert len(shown.candidates) == len(shown.by_treatment) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_codes": np.array([0, 1, 0])}, "must not decrease"),
        ({"control_ranks": np.array([1, 1, 1])}, "control_ranks must be used once"),
        ({"treatment_ranks": np.array([0, 1, 1])}, "treatment_ranks are 1-based"),
        ({"treatment_ranks": np.array([1, 2])}, "expected 3 treatment_ranks"),
        ({"slate_size": 0}, "slate_size"),
    ],
)
def test_bad_candidates_are_named(changes, message):
    arguments = {
        "request_codes": np.array([0, 0, 1]),
        "control_ranks": np.array([1, 2, 1]),
        "treatment_ranks": np.array([2, 1, 1]),
        "slate_size": 2,
        **changes,
    }
    codes = arguments.pop("request_codes")
    with pytest.raises(ValueError, match=message):
        interleave_by_team_draft(codes, rng=np.random.default_rng(0), **arguments)


@pytest.mark.parametrize(
    ("credits", "message"),
    [
        ([1.0, -1.0], "must not be negative"),
        ([1.0], "one user, team and credit"),
        ([1.0, np.nan], "finite"),
    ],
)
def test_bad_credits_are_named(credits, message):
    with pytest.raises(ValueError, match=message):
        preference(
            user_codes=np.array([1, 2]),
            by_treatment=np.array([True, False]),
            credits=np.array(credits),
            confidence=0.95,
        )
