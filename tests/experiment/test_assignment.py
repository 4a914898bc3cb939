from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency, chisquare

from ranker.experiment.assignment import (
    assign,
    assign_arms,
    check_arm_counts,
    check_sample_ratio,
    hash_to_unit,
)

FOUR_ARMS = {"control": 0.4, "small": 0.07, "middle": 0.18, "large": 0.3}  # 5 % outside


@pytest.mark.parametrize(
    ("salt", "user", "hex_of_sha256sum"),
    [
        # printf 'autumn:7' | sha256sum, first 16 digits
        ("autumn", 7, "2db67e91fe4da711"),
        ("autumn", "anna", "69c8a9e44965b424"),
        ("spring", 7, "6f22d49f6fda681f"),
    ],
)
def test_hash_is_that_of_the_command_line_tool(salt, user, hex_of_sha256sum):
    expected = int(hex_of_sha256sum, 16) / 2**64
    assert hash_to_unit(np.array([user]), salt=salt)[0] == pytest.approx(expected, abs=1e-15)


def test_user_keeps_his_arm_whatever_the_rows():
    users = np.array([5, 3, 5, 9, 3, 5, 11])
    arms = assign(users, salt="s")
    by_user = {int(user): bool(arm) for user, arm in zip(users, arms, strict=True)}
    assert [by_user[int(user)] for user in users] == arms.tolist()
    alone = {user: bool(assign(np.array([user]), salt="s")[0]) for user in by_user}
    assert alone == by_user


def test_integer_and_string_ids_are_the_same_users():
    users = np.arange(200)
    np.testing.assert_array_equal(
        assign(users, salt="s"), assign(users.astype(str).astype(object), salt="s")
    )


def test_split_is_balanced_and_salts_are_independent():
    users = np.arange(20_000)
    first, second = assign(users, salt="a"), assign(users, salt="b")
    assert binomtest(int(first.sum()), len(users), 0.5).pvalue > 1e-3
    table = [[np.sum(first & second), np.sum(first & ~second)],
             [np.sum(~first & second), np.sum(~first & ~second)]]  # fmt: skip
    assert chi2_contingency(table).pvalue > 1e-3


def test_hashes_look_uniform():
    counts = np.histogram(hash_to_unit(np.arange(20_000), salt="u"), bins=13, range=(0, 1))[0]
    assert chisquare(counts).pvalue > 1e-3


def test_larger_share_keeps_those_who_were_in():
    users = np.arange(3_000)
    small = assign(users, salt="s", share_treatment=0.1)
    large = assign(users, salt="s", share_treatment=0.3)
    assert not np.any(small & ~large)
    assert binomtest(int(small.sum()), len(users), 0.1).pvalue > 1e-3


@given(st.lists(st.integers(-(2**62), 2**62), max_size=17))
def test_any_integers_get_one_arm_each(users):
    arms = assign(np.array(users, dtype=np.int64), salt="s")
    assert arms.dtype == bool
    assert arms.shape == (len(users),)


@pytest.mark.parametrize(
    ("users", "options", "message"),
    [
        ([1.0, 2.0], {"salt": "s"}, "expected integers or strings"),
        (np.array(["a", None], dtype=object), {"salt": "s"}, "without missing values"),
        ([[1, 2]], {"salt": "s"}, "expected one dimension"),
        ([1], {"salt": ""}, "salt"),
        ([1], {"salt": "a:b"}, "without a colon"),
        ([1], {"salt": "s", "share_treatment": 1.0}, "share_treatment"),
    ],
)
def test_bad_input_is_named(users, options, message):
    with pytest.raises(ValueError, match=message):
        assign(np.asarray(users), **options)


def test_sample_ratio_is_scipys_chi_square():
    in_treatment = np.arange(1_000) < 340
    ratio = check_sample_ratio(in_treatment, share_treatment=0.3)
    assert (ratio.num_control, ratio.num_treatment) == (660, 340)
    assert ratio.p_value == pytest.approx(chisquare([660, 340], [700, 300]).pvalue)
    with pytest.raises(ValueError, match="at least one user"):
        check_sample_ratio(in_treatment[:0], share_treatment=0.3)


def test_arms_get_their_shares():
    arms = assign_arms(np.arange(30_000), salt="s", share_by_arm=FOUR_ARMS)
    names = [*FOUR_ARMS, ""]
    counts = [int(np.sum(arms == name)) for name in names]
    assert sum(counts) == 30_000
    expected = 30_000 * np.array([*FOUR_ARMS.values(), 0.05])
    assert chisquare(counts, expected).pvalue > 1e-3


def test_ramp_adds_to_every_arm_and_changes_nobody():
    users = np.arange(20_000)
    stages = [
        assign_arms(users, salt="s", share_by_arm=FOUR_ARMS, ramp=ramp)
        for ramp in (0.02, 0.1, 0.5, 1.0)
    ]
    for before, after in pairwise(stages):
        inside = before != ""
        np.testing.assert_array_equal(before[inside], after[inside])
        assert np.sum(after != "") > 1.5 * np.sum(inside)
    counts = {name: int(np.sum(stages[2] == name)) for name in FOUR_ARMS}
    assert check_arm_counts(counts, share_by_arm=FOUR_ARMS).p_value > 1e-3


def test_two_arms_are_those_of_assign():
    users = np.arange(5_000)
    arms = assign_arms(users, salt="s", share_by_arm={"treatment": 0.3, "control": 0.7})
    in_treatment = assign(users, salt="s", share_treatment=0.3)
    np.testing.assert_array_equal(arms == "treatment", in_treatment)
    np.testing.assert_array_equal(arms == "control", ~in_treatment)


def test_shares_that_sum_to_one_but_for_rounding_leave_nobody_out():
    shares = dict.fromkeys("abcdefghij", 0.1)  # 0.9999999999999999
    arms = assign_arms(np.arange(2_000), salt="s", share_by_arm=shares)
    assert set(arms.tolist()) == set(shares)


def test_no_users_have_no_arms():
    assert assign_arms(np.array([], dtype=np.int64), salt="s", share_by_arm=FOUR_ARMS).size == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share_by_arm": {"a": 0.7, "b": 0.5}}, "at most 1, got 1.2"),
        ({"share_by_arm": {"a": 0.7, "b": -0.1}}, "shares above 0"),
        ({"share_by_arm": {"a": 0.7, "b": float("nan")}}, "shares above 0"),
        ({"share_by_arm": {}}, "shares above 0"),
        ({"share_by_arm": {"": 0.7}}, "needs a name"),
        ({"share_by_arm": FOUR_ARMS, "ramp": 0.0}, "ramp"),
        ({"share_by_arm": FOUR_ARMS, "ramp": 1.5}, "ramp"),
    ],
)
def test_bad_shares_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        assign_arms(np.arange(3), salt="s", **options)


def test_arm_counts_alarm_rarely_on_a_fair_split_and_surely_on_a_leak():
    rng = np.random.default_rng(0)
    shares = {"control": 0.5, "b": 0.3, "c": 0.2}
    draws = rng.multinomial(9_000, list(shares.values()), size=2_000)
    alarms = sum(
        check_arm_counts(
            dict(zip(shares, counts.tolist(), strict=True)), share_by_arm=shares
        ).p_value
        < 0.05
        for counts in draws
    )
    assert binomtest(alarms, 2_000, 0.05).pvalue > 1e-3
    leak = check_arm_counts({"control": 4_500, "b": 2_700, "c": 1_550}, share_by_arm=shares)
    assert leak.p_value < 1e-3
    assert leak.num_users_by_arm == {"control": 4_500, "b": 2_700, "c": 1_550}


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [
        ({"a": 3}, {"a": 1.0}, "two or more arms"),
        ({"a": 3, "b": 4}, {"a": 0.5, "c": 0.5}, "the same two or more arms"),
        ({"a": 0, "b": 0}, {"a": 0.5, "b": 0.5}, "at least one user"),
        ({"a": 9, "b": -1}, {"a": 0.5, "b": 0.5}, "no negative count"),
        ({"a": 9, "b": 4}, {"a": 0.5, "b": 0.0}, "shares above 0"),
    ],
)
def test_bad_counts_are_named(counts, shares, message):
    with pytest.raises(ValueError, match=message):
        check_arm_counts(counts, share_by_arm=shares)
