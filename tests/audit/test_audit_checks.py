"""What the checks find in logs whose truth is known by construction."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.power import NormalIndPower

from ranker.audit.audit import Audit, audit_with_draft
from ranker.audit.label_checks import rate_of
from ranker.audit.leak_checks import later_auc
from ranker.audit.position_checks import position_overlap
from ranker.audit.row_checks import cold_share
from ranker.audit.sample import LogSample

NUM_ROWS, NUM_USERS, NUM_ITEMS = 4_001, 301, 53
START_S = 1_700_000_000


def log_columns(*, seed: int = 13) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "user_id": rng.integers(NUM_USERS, size=NUM_ROWS),
        "item_id": rng.integers(NUM_ITEMS, size=NUM_ROWS),
        "time_s": START_S + np.sort(rng.integers(9 * 86_400, size=NUM_ROWS)),
        "click": (rng.random(NUM_ROWS) < 0.3).astype(np.int8),
    }


def audit_of(columns: dict[str, object], *, share: float = 1.0) -> Audit:
    table = pa.table(columns)
    sample = LogSample(
        rows=table,
        num_rows_total=round(table.num_rows / share),
        num_files=1,
        share=share,
        by_user=True,
        absent={},
    )
    audit = audit_with_draft(sample, {}, name="made")
    json.dumps(audit.to_json(), allow_nan=False)
    return audit


def sentences(audit: Audit, topic: str, *levels: str) -> str:
    return "\n".join(
        f.sentence for f in audit.findings if f.topic == topic and (not levels or f.level in levels)
    )


def verdict(audit: Audit, word: str) -> str:
    return next(a.verdict for a in audit.answers if word in a.question)


def test_a_clean_log_has_no_problem() -> None:
    audit = audit_of(log_columns())
    assert [f.sentence for f in audit.findings if f.level == "problem"] == []
    assert verdict(audit, "engagement") == "yes"
    assert verdict(audit, "satisfaction") == "no"
    assert verdict(audit, "past against future") == "yes"
    assert verdict(audit, "position bias") == verdict(audit, "off-policy") == "no"


def test_duplicates_are_counted_and_dropped() -> None:
    columns = {name: np.concatenate([v, v[:37], v[:11]]) for name, v in log_columns().items()}
    different = len(set(zip(*(v.tolist() for v in columns.values()), strict=True)))
    audit = audit_of(columns)
    assert audit.num_rows == different
    found = next(f for f in audit.findings if "exact_duplicates" in f.numbers)
    assert found.numbers["exact_duplicates"] == len(columns["click"]) - different >= 48


def test_a_copy_of_the_label_is_a_problem() -> None:
    columns = log_columns()
    rng = np.random.default_rng(17)
    flipped = rng.random(NUM_ROWS) < 0.01
    columns["fb_flag"] = np.where(flipped, 1 - columns["click"], columns["click"])
    columns["noise"] = rng.normal(size=NUM_ROWS)
    audit = audit_of(columns)
    assert "fb_flag" in sentences(audit, "leaks", "problem")
    assert "noise" not in sentences(audit, "leaks", "problem")
    assert audit.strengths[0].feature == "fb_flag" and audit.strengths[0].auc > 0.97


def test_a_mean_over_the_whole_log_is_a_problem() -> None:
    rng = np.random.default_rng(19)
    num_rows, num_items = 20_011, 199
    item = rng.integers(num_items, size=num_rows)
    click = (rng.random(num_rows) < rng.beta(4, 9, size=num_items)[item]).astype(np.int8)
    item_mean = np.bincount(item, click) / np.bincount(item)
    audit = audit_of(
        {
            "user_id": rng.integers(997, size=num_rows),
            "item_id": item,
            "time_s": START_S + np.sort(rng.integers(9 * 86_400, size=num_rows)),
            "click": click,
            "item_ctr": item_mean[item],
        }
    )
    assert "item_ctr" in sentences(audit, "leaks", "problem")


def test_later_auc_equals_scikit_learn() -> None:
    rng = np.random.default_rng(23)
    bins = rng.integers(-1, 6, size=3_000)
    label = (rng.random(3_000) < 0.1 + 0.1 * (bins + 1)).astype(np.float64)
    label[rng.random(3_000) < 0.05] = np.nan
    early = np.arange(3_000) < 2_100
    fit = early & ~np.isnan(label)
    score = np.array(
        [
            (label[fit & (bins == b)].sum() + label[fit].mean()) / ((fit & (bins == b)).sum() + 1)
            for b in range(-1, 6)
        ]
    )
    late = ~early & ~np.isnan(label)
    expected = roc_auc_score(label[late], score[bins[late] + 1])
    assert later_auc(bins, label, early) == pytest.approx(expected, abs=1e-12)


def test_rates_are_clustered_by_user() -> None:
    rng = np.random.default_rng(29)
    user = np.repeat(np.arange(211), 19)
    label = np.repeat((rng.random(211) < 0.4).astype(np.float64), 19)  # all rows of a user agree
    rate = rate_of(label, user)
    assert rate is not None and rate.se is not None
    p = label[::19].mean()
    assert rate.value == pytest.approx(p)
    # nothing but 211 independent users: the binomial standard error of the users' mean
    assert rate.se == pytest.approx(np.sqrt(p * (1 - p) / 210), rel=1e-9)
    by_row = rate_of(label, None)
    assert by_row is not None and by_row.se is not None
    assert rate.se / by_row.se == pytest.approx(np.sqrt(19), rel=0.01)


def test_users_per_arm_equal_statsmodels() -> None:
    columns = log_columns()
    audit = audit_of(columns)
    size = next(s for s in audit.figures.sizes if s.metric == "per user")
    sums = np.bincount(columns["user_id"], columns["click"], minlength=NUM_USERS)
    sums = sums[np.bincount(columns["user_id"], minlength=NUM_USERS) > 0]
    effect = 0.01 * sums.mean() / sums.std(ddof=1)
    expected = NormalIndPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
    assert size.users_per_arm == pytest.approx(expected, rel=1e-4)
    assert size.users_in_log == len(sums)


def test_a_sample_is_scaled_up() -> None:
    whole, part = audit_of(log_columns()), audit_of(log_columns(), share=0.25)
    assert part.figures.sizes[0].users_in_log == 4 * whole.figures.sizes[0].users_in_log
    assert part.figures.sizes[0].users_per_arm == whole.figures.sizes[0].users_per_arm


def test_positions_that_never_move_can_not_be_told_from_items() -> None:
    columns = log_columns()
    fixed = audit_of({**columns, "position": columns["item_id"] % 5})
    rng = np.random.default_rng(31)
    moving = audit_of({**columns, "position": rng.integers(5, size=NUM_ROWS)})
    assert verdict(fixed, "position bias") == "no"
    assert verdict(moving, "position bias") == "yes"
    one_based = audit_of({**columns, "position": 1 + rng.integers(5, size=NUM_ROWS)})
    assert "begin at 1" in sentences(one_based, "positions", "look")
    assert "begin at 1" not in sentences(moving, "positions")


def test_position_overlap_by_hand() -> None:
    item = np.repeat([0, 1, 2], [10, 10, 3])
    positions = np.concatenate([np.repeat([0, 1], 5), np.repeat([0, 1], [6, 4]), [0, 1, 2]])
    # item 0 has five rows at each of two positions; item 1 only at one; item 2 at none
    assert position_overlap(item, positions) == pytest.approx(10 / 23)


@pytest.mark.parametrize(
    ("propensity", "expected"), [("uniform", "yes"), ("skewed", "partly"), ("zero", "partly")]
)
def test_propensities(propensity: str, expected: str) -> None:
    rng = np.random.default_rng(37)
    values = {
        "uniform": np.full(NUM_ROWS, 1 / NUM_ITEMS) * np.where(np.arange(NUM_ROWS) % 2, 1, 0.9),
        "skewed": np.where(rng.random(NUM_ROWS) < 0.002, 1e-6, 0.9),
        "zero": np.where(np.arange(NUM_ROWS) == 7, 0.0, 0.5),
    }[propensity]
    audit = audit_of({**log_columns(), "propensity_score": values})
    assert verdict(audit, "off-policy") == expected
    level = {"uniform": "fine", "skewed": "look", "zero": "problem"}[propensity]
    assert sentences(audit, "propensities", level)
    if propensity != "zero":
        weights = 1 / values
        share = weights.sum() ** 2 / (NUM_ROWS * (weights**2).sum())
        assert audit.figures.propensities is not None
        assert audit.figures.propensities.sample_share == pytest.approx(share)


def test_cold_share_by_hand() -> None:
    time_ms = np.array([0.0, 10, 50, 80, 81, 90, 95, 100])
    codes = np.array([0, 1, 1, 2, 0, 3, 3, 2])
    # after 80: 0 and 2 are known, 3 (twice) is not
    assert cold_share(codes, time_ms) == pytest.approx(2 / 4)
    assert cold_share(codes, np.zeros(8)) is None


def test_feedback_that_has_not_arrived_shows() -> None:
    rng = np.random.default_rng(41)
    columns = log_columns()
    day = (columns["time_s"] - START_S) // 86_400
    late = columns | {
        "click": np.where(day == day.max(), rng.random(NUM_ROWS) < 0.02, columns["click"]).astype(
            np.int8
        )
    }
    start = START_S - START_S % 86_400  # windows are UTC days
    for made in (columns, late):
        made["time_s"] = made["time_s"] - START_S + start
    assert "last window" in sentences(audit_of(late), "labels", "look")
    assert "last window" not in sentences(audit_of(columns), "labels")


def test_gaps_order_and_a_feedback_time() -> None:
    columns = log_columns()
    day = (columns["time_s"] - START_S) // 86_400
    kept = (day != 3) & (day != 4)
    rows = {name: values[kept][::-1] for name, values in columns.items()}
    rows["click_time_s"] = np.where(rows["click"] == 1, rows["time_s"] + 7_200, 0)
    audit = audit_of(rows)
    assert "windows have no rows" in sentences(audit, "time", "look")
    assert "older than one before" in sentences(audit, "time")
    assert "7,200 s after" in sentences(audit, "labels", "look")


def test_labels_with_one_outcome() -> None:
    columns = log_columns() | {"like": np.zeros(NUM_ROWS, dtype=np.int8)}
    audit = audit_of(columns)
    assert "'like' is 0 in every row" in sentences(audit, "labels", "problem")
    assert verdict(audit, "satisfaction") == "no"
