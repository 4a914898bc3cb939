from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ranker.data.period_statistics import OwnerHalves, find_period_statistics, middle_ms

HALF_MS = 1_000
NUM_OWNERS, ROWS_PER_OWNER = 211, 50


class Simulated:
    """Owners with a stable quality; binary and skewed labels around it."""

    def __init__(self, seed: int, *, num_owners: int = NUM_OWNERS) -> None:
        self.rng = np.random.default_rng(seed)
        self.num_owners = num_owners
        self.logit = -1 + 0.7 * self.rng.normal(size=num_owners)
        popularity = self.rng.gamma(5, 1 / 5, size=num_owners)
        self.log = self.draw(self.rng.poisson(ROWS_PER_OWNER * popularity))
        self.before = self.draw(np.full(num_owners, 300))
        self.halves = OwnerHalves(["click", "watch"], split_ms=HALF_MS)
        labels = {name: self.log[name].to_numpy() for name in ("click", "watch")}
        self.halves.add(self.log.owner.to_numpy(), self.log.time_ms.to_numpy(), labels)

    def draw(self, counts: np.ndarray) -> pd.DataFrame:
        owner = np.repeat(np.arange(self.num_owners), counts)
        clicked = self.rng.random(len(owner)) < expit(self.logit[owner])
        watch = np.exp(3 + 0.3 * self.logit[owner] + self.rng.normal(size=len(owner)))
        return pd.DataFrame(
            {
                "owner": owner,
                "time_ms": self.rng.integers(2 * HALF_MS, size=len(owner)),
                "click": clicked.astype(float),
                "watch": np.minimum(watch, 300) * clicked,
            }
        )

    def mean(self, rows: pd.DataFrame, label: str) -> np.ndarray:
        means = rows.groupby("owner")[label].mean()
        return means.reindex(range(self.num_owners)).to_numpy()

    def suspects(self, **features: np.ndarray) -> dict[str, str]:
        found = find_period_statistics(self.halves, features)
        return {suspect.feature: suspect.against for suspect in found}


@pytest.mark.parametrize("seed", range(20))
def test_statistics_of_the_whole_period_are_found(seed: int) -> None:
    simulated = Simulated(seed)
    groups = simulated.log.groupby("owner")
    count = groups.size().reindex(range(NUM_OWNERS), fill_value=0).to_numpy().astype(float)
    click = np.nan_to_num(simulated.mean(simulated.log, "click"))
    late = simulated.log[simulated.log.time_ms >= HALF_MS]
    assert simulated.suspects(
        click_rate=click,
        smoothed=(click * count + 20 * 0.3) / (count + 20),
        log_rate=np.log(click + 0.01),
        rounded=np.round(click, 2),
        late_rate=simulated.mean(late, "click"),
        watch=simulated.mean(simulated.log, "watch"),
        shown=count,
        log_shown=np.log1p(count),
    ) == {
        "click_rate": "click",
        "smoothed": "click",
        "log_rate": "click",
        "rounded": "click",
        "late_rate": "click",
        "watch": "watch",
        "shown": "impressions",
        "log_shown": "impressions",
    }


@pytest.mark.parametrize("seed", range(20))
def test_what_the_past_can_know_is_never_suspected(seed: int) -> None:
    simulated = Simulated(seed)
    early = simulated.log[simulated.log.time_ms < HALF_MS]
    counts = early.groupby("owner").size().reindex(range(NUM_OWNERS), fill_value=0).to_numpy()
    truth = expit(simulated.logit)
    before = simulated.mean(simulated.before, "click")
    assert np.corrcoef(before, simulated.mean(simulated.log, "click"))[0, 1] > 0.7  # a good one
    assert (
        simulated.suspects(
            early_click=simulated.mean(early, "click"),
            early_watch=simulated.mean(early, "watch"),
            early_count=counts.astype(float),
            before=before,
            before_watch=simulated.mean(simulated.before, "watch"),
            truth=truth,  # the best any past could tell
            noise=simulated.rng.normal(size=NUM_OWNERS),
            constant=np.ones(NUM_OWNERS),
        )
        == {}
    )


def test_a_label_that_owners_repeat_is_no_leak() -> None:
    # Nearly the same rating in every row of an owner: its past foretells it, no feature is needed.
    simulated = Simulated(0)
    rng = np.random.default_rng(1)
    rating = np.round(rng.normal(size=NUM_OWNERS), 1)
    for noise in (0.0, 0.1):
        log = simulated.log.assign(rating=rating[simulated.log.owner])
        log["rating"] += noise * rng.normal(size=len(log))
        halves = OwnerHalves(["rating"], split_ms=HALF_MS)
        halves.add(log.owner.to_numpy(), log.time_ms.to_numpy(), {"rating": log.rating.to_numpy()})
        assert find_period_statistics(halves, {"rating": rating}) == []


def test_one_click_in_every_slate_is_no_leak() -> None:
    # Rows that repel each other scatter less than independent ones, with any feature.
    owner = np.repeat(np.arange(NUM_OWNERS), 60)
    click = np.tile([1.0, 0.0, 0.0], len(owner) // 3)
    time_ms = np.tile(np.arange(60) * HALF_MS // 30, NUM_OWNERS)
    click[::307] = 1 - click[::307]
    halves = OwnerHalves(["click"], split_ms=HALF_MS)
    halves.add(owner, time_ms, {"click": click})
    features = {f"x{i}": np.random.default_rng(i).normal(size=NUM_OWNERS) for i in range(7)}
    assert find_period_statistics(halves, features) == []


def test_few_owners_decide_nothing() -> None:
    for num_owners, found in ((71, {"click_rate": "click"}), (43, {})):
        simulated = Simulated(2, num_owners=num_owners)
        assert simulated.suspects(click_rate=simulated.mean(simulated.log, "click")) == found, (
            num_owners
        )


def test_the_sums_are_those_of_pandas_in_any_batches() -> None:
    log = Simulated(7).log.sample(frac=1, random_state=1)
    log["watch"] = log.watch.where(log.click == 1)  # null where not clicked
    halves = OwnerHalves(["watch"], split_ms=HALF_MS)
    for start in range(0, len(log), 997):
        rows = log.iloc[start : start + 997]
        halves.add(rows.owner.to_numpy(), rows.time_ms.to_numpy(), {"watch": rows.watch.to_numpy()})
    means = halves.mean_by_task["watch"]
    for half, rows, mean in (
        (log.time_ms < HALF_MS, means.early_rows, means.early_mean),
        (log.time_ms >= HALF_MS, means.late_rows, means.late_mean),
    ):
        expected = log[half].groupby("owner").watch.agg(["count", "mean"]).reindex(range(len(rows)))
        np.testing.assert_array_equal(rows, expected["count"].fillna(0))
        np.testing.assert_allclose(mean[rows > 0], expected["mean"][rows > 0])
    variance = log[log.time_ms >= HALF_MS].groupby("owner").watch.var().reindex(range(len(rows)))
    several = means.late_rows > 1
    np.testing.assert_allclose(means.late_variance[several], variance[several])
    np.testing.assert_array_equal(sum(halves.impressions), np.bincount(log.owner))


def test_the_middle_is_the_hour_that_halves_the_rows() -> None:
    # Before hour 12 lie 5 of 19 rows, before hour 15 8, before hour 16 15.
    assert middle_ms({16: 4, 10: 5, 12: 3, 15: 7}) == 15 * 3_600_000
    assert middle_ms({11: 3}) == 11 * 3_600_000
    with pytest.raises(ValueError, match="at least one hour"):
        middle_ms({})


@settings(max_examples=30, deadline=None)
@given(
    num_rows=st.integers(0, 5_003),
    num_owners=st.integers(1, 83),
    null_share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_noise_is_judged_innocent(
    num_rows: int, num_owners: int, null_share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    halves = OwnerHalves(["like"], split_ms=HALF_MS)
    like = np.where(rng.random(num_rows) < null_share, np.nan, rng.random(num_rows) < 0.1)
    owner = rng.integers(num_owners, size=num_rows)
    halves.add(owner, rng.integers(2 * HALF_MS, size=num_rows), {"like": like})
    hidden = rng.random(num_owners) < null_share
    feature = np.where(hidden, np.nan, rng.lognormal(size=num_owners))
    assert find_period_statistics(halves, {"x": feature}) == []
