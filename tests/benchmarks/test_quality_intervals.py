import numpy as np
import pytest
from quality_intervals import (
    JudgedTask,
    Predicted,
    Sample,
    SeedSamples,
    average_over_seeds,
    difference,
    sample_metrics,
)
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

NUM_REPLICATES = 300


@pytest.fixture
def judged():
    rng = np.random.default_rng(3)
    users = rng.integers(0, 61, size=1_301) * 7  # codes with gaps
    return JudgedTask(
        labels=(rng.random(1_301) < 0.3).astype(float),
        users=users,
        lists=users * 4 + rng.integers(0, 3, size=1_301),
    )


def predict(judged, *, noise, seed):
    rng = np.random.default_rng(seed)
    return 1 / (1 + np.exp(1 - judged.labels - noise * rng.normal(size=judged.labels.size)))


def sample(judged, by_arm):
    alike = {arm: [Predicted(one, one) for one in by_seed] for arm, by_seed in by_arm.items()}
    return sample_metrics(
        judged, alike, num_replicates=NUM_REPLICATES, rng=np.random.default_rng(0)
    )


def mean(samples, metric):
    return average_over_seeds(samples[metric], metric=metric, rng=np.random.default_rng(0))


def test_values_are_the_seeds_mean_of_scikit_learn_s(judged):
    by_seed = [predict(judged, noise=noise, seed=seed) for seed, noise in enumerate((0.5, 2.0))]
    samples = sample(judged, {"arm": by_seed})["arm"]
    auc = np.mean([roc_auc_score(judged.labels, values) for values in by_seed])
    assert mean(samples, "auc").value == pytest.approx(auc, abs=1e-12)
    rate = judged.labels.mean()
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    loss = np.mean([log_loss(judged.labels, values) for values in by_seed])
    assert mean(samples, "normalised_entropy").value == pytest.approx(loss / entropy, rel=1e-9)
    ndcgs = []
    for values in by_seed:
        by_list = [judged.lists == code for code in np.unique(judged.lists)]
        ndcgs.append(
            np.mean(
                [
                    ndcg_score([judged.labels[one]], [values[one]], k=5) if one.sum() > 1 else 1.0
                    for one in by_list
                    if judged.labels[one].any()
                ]
            )
        )
    assert mean(samples, "ndcg@5").value == pytest.approx(np.mean(ndcgs), abs=1e-12)


def test_replicates_draw_whole_users_the_same_for_all_arms(judged):
    good, poor = (predict(judged, noise=noise, seed=1) for noise in (0.5, 3.0))
    samples = sample(judged, {"a": [good], "again": [good], "b": [poor]})
    same = difference(mean(samples["a"], "auc"), mean(samples["again"], "auc"))
    assert (same.value, same.ci_low, same.ci_high) == (0.0, 0.0, 0.0)
    # replicate 0 by hand: every user's rows as often as the user was drawn
    users, codes = np.unique(judged.users, return_inverse=True)
    drawn = np.random.default_rng(0).integers(users.size, size=users.size)
    weights = np.bincount(drawn, minlength=users.size)[codes]
    expected = roc_auc_score(judged.labels, poor, sample_weight=weights)
    assert samples["b"]["auc"].replicates[0, 0] == pytest.approx(expected, abs=1e-12)


def test_seeds_are_drawn_with_replacement():
    # no spread over users: what is left is that of a mean of five draws from five seeds
    values = np.array([0.1, 0.2, 0.3, 0.5, 0.9])
    samples = SeedSamples(values=values, replicates=np.tile(values, (20_000, 1)))
    found = average_over_seeds(samples, metric="auc", rng=np.random.default_rng(5))
    assert found.value == pytest.approx(0.4)
    assert found.replicates.mean() == pytest.approx(0.4, abs=0.005)
    assert found.replicates.std() == pytest.approx(values.std() / np.sqrt(5), rel=0.03)


def test_one_seed_adds_no_spread():
    replicates = np.linspace(0.2, 0.8, 11)[:, None]
    samples = SeedSamples(values=np.array([0.5]), replicates=replicates)
    found = average_over_seeds(samples, metric="auc", rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.replicates, replicates[:, 0])


def test_intervals_of_equally_good_arms_cover_zero():
    # two arms whose seeds differ by chance alone, judged on few users: A/A
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        users = rng.normal(0, 0.02, size=400)[:, None]  # replicates share the users' part
        arms = [rng.normal(0.7, 0.01, size=5) for _ in range(2)]
        means = [
            average_over_seeds(
                SeedSamples(values=seeds, replicates=seeds + users), metric="auc", rng=rng
            )
            for seeds in arms
        ]
        figure = difference(*means)
        covered += figure.ci_low <= 0 <= figure.ci_high
    assert 0.84 <= covered / 200 <= 0.99  # five seeds a side: the bootstrap is a little narrow


def test_ece_s_replicates_lie_about_its_value():
    replicates = np.random.default_rng(0).normal(0.03, 0.002, size=(997, 3))
    samples = SeedSamples(values=np.array([0.01, 0.02, 0.03]), replicates=replicates)
    found = average_over_seeds(samples, metric="ece", rng=np.random.default_rng(0))
    assert found.value == pytest.approx(0.02)
    assert found.replicates.mean() == pytest.approx(0.02)


def test_a_figure_has_the_percentiles_of_its_replicates():
    figure = Sample(value=0.5, replicates=np.arange(1001) / 1000).figure()
    assert (figure.ci_low, figure.ci_high) == pytest.approx((0.025, 0.975))
