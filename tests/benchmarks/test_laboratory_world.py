from concurrent.futures import ThreadPoolExecutor

import laboratory_world as proofs
import numpy as np
import pytest
from laboratory_sizes import QUICK
from laboratory_world_experiments import PowerCounts, blocks_of, effects_of, users_needed
from laboratory_world_plays import (
    CONTROL,
    TREATMENT,
    ExperimentSums,
    against,
    drawn_sums,
    interleave,
    play_world,
    settings_of,
    world_of,
)
from scipy import stats


def test_rates_by_position_are_held_against_the_curve():
    examination = np.array([[1.0, 0.5, 0.25], [1.0, 0.8, 0.6]])
    shown = np.array([[4_000.0] * 3, [1_000.0] * 3])
    exact = shown * examination * np.array([[0.2], [0.1]])
    assert proofs.compare_with_curve(exact, shown, examination) == pytest.approx((1.0, 0.0))
    flat = np.full((1, 3), 1.0)
    clicks = np.array([[230.0, 190.0, 180.0]])
    p_value, farthest = proofs.compare_with_curve(clicks, np.full((1, 3), 1_000.0), flat)
    table = np.array([clicks[0], 1_000 - clicks[0]])
    assert p_value == pytest.approx(stats.chi2_contingency(table).pvalue)
    assert farthest == pytest.approx(0.15)


def test_users_needed_are_those_of_the_power_curve():
    sizes = np.array([100.0, 200.0, 400.0, 800.0])
    noncentrality = (stats.norm.isf(0.025) + stats.norm.ppf(0.8)) * np.sqrt(sizes / 330)
    power = stats.norm.cdf(noncentrality - stats.norm.isf(0.025))
    tried = np.array([[700.0] * 4, [300.0] * 4])
    counts = PowerCounts(sizes=sizes, found=power * tried, tried=tried)
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 5.0]])
    assert users_needed(counts, worlds=weights) == pytest.approx([330] * 3, rel=0.01)


def test_effects_are_of_the_block_and_of_the_experiments_days():
    rng = np.random.default_rng(4)
    clicks, shown = rng.poisson(3.0, size=(2, 6, 70)).astype(float)
    treated = rng.random(70) < 0.4
    sums = ExperimentSums(in_treatment=treated, clicks=clicks, impressions=shown + 1)
    effects = effects_of(sums, slice(10, 60))
    own = clicks[3:, 10:60].sum(axis=0)
    arms = own[treated[10:60]], own[~treated[10:60]]
    assert effects["clicks_per_user"].p_value == pytest.approx(
        stats.ttest_ind(*arms, equal_var=False).pvalue
    )
    rates = [
        clicks[3:, 10:60][:, arm].sum() / (shown + 1)[3:, 10:60][:, arm].sum()
        for arm in (~treated[10:60], treated[10:60])
    ]
    assert effects["click_rate"].difference == pytest.approx(rates[1] - rates[0])


def test_interleaved_users_click_as_often_as_those_of_an_experiment():
    world = world_of({}, seed=6, num_users=1_500)
    sums = drawn_sums(world, against(CONTROL, TREATMENT), settings=settings_of(9))
    clicks = interleave(world, seed=7)
    both = clicks.control + clicks.treatment
    apart = sums.clicks[3:].sum(axis=0)
    assert both.mean() == pytest.approx(apart.mean(), rel=0.12)
    assert clicks.treatment.sum() > clicks.control.sum()
    # who clicks much, does so either way
    assert np.corrcoef(both, apart)[0, 1] > 0.2


def test_a_play_depends_on_its_seed_alone():
    one, again, other = (play_world(seed, 600) for seed in (31, 31, 32))
    assert np.array_equal(one.better.clicks, again.better.clicks)
    assert np.array_equal(one.interleaved.control, again.interleaved.control)
    assert not np.array_equal(one.better.clicks, other.better.clicks)
    assert one.click_lift == again.click_lift > 0
    assert [block.stop for block in blocks_of(one, 250)] == [250, 500]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(proofs.PROOFS))
def test_the_worlds_verdicts_hold_at_reduced_size(name):
    with ThreadPoolExecutor(2) as executor:
        proof = proofs.PROOFS[name](QUICK, executor)
    assert len(proof.verdicts) >= 2
    assert [one for one in proof.verdicts if not one.holds] == []
    if name == "world_experiments":
        gain = proof.figures["world_interleaving_times_fewer_users_than_clicks_per_user_cuped"]
        assert gain.ci_low > 2
