import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency, chisquare

from ranker.experiment.assignment import assign, check_sample_ratio, hash_to_unit


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
