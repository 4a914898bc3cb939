import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.experiment.moments import moments, moments_by_group

NAMES = ("clicks", "visits", "past")


def columns_of(rng, size):
    values = rng.gamma(2.0, size=(3, size)) * np.array([[1.0], [1e3], [1e-2]]) + 7
    return dict(zip(NAMES, values, strict=True))


def test_moments_are_numpys():
    columns = columns_of(np.random.default_rng(0), 29)
    users = moments(columns)
    matrix = np.stack(list(columns.values()))
    assert (users.columns, users.num_users) == (NAMES, 29)
    np.testing.assert_allclose(users.means, matrix.mean(axis=1), rtol=1e-14)
    np.testing.assert_allclose(users.covariances, np.cov(matrix), rtol=1e-10)
    assert users.mean("visits") == pytest.approx(columns["visits"].mean())


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_moments_of_parts_add_up(sizes, seed):
    rng = np.random.default_rng(seed)
    columns = columns_of(rng, sum(sizes))
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = moments_by_group(columns, group_codes=codes, num_groups=len(sizes))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    whole = moments(columns)
    assert [part.num_users for part in parts] == sizes
    assert total.num_users == whole.num_users
    np.testing.assert_allclose(total.means, whole.means, rtol=1e-12)
    scale = np.sqrt(np.outer(np.diag(whole.scatter), np.diag(whole.scatter)))
    assert np.all(np.abs(total.scatter - whole.scatter) <= 1e-9 * scale + 1e-15)


def test_moments_by_group_are_those_of_each_group_alone():
    rng = np.random.default_rng(1)
    columns = columns_of(rng, 53)
    codes = rng.integers(-1, 4, size=53)  # -1: in no group; 4: a group without users
    for group, users in enumerate(moments_by_group(columns, group_codes=codes, num_groups=5)):
        alone = moments({name: values[codes == group] for name, values in columns.items()})
        assert users.num_users == alone.num_users
        np.testing.assert_allclose(users.means, alone.means, rtol=1e-13)
        np.testing.assert_allclose(users.scatter, alone.scatter, rtol=1e-9)
        np.testing.assert_array_equal(users.scatter, users.scatter.T)


def test_constant_column_has_no_variance_at_all():
    constant = {"value": np.full(1_001, 0.1)}
    codes = np.arange(1_001) % 3
    assert moments(constant).scatter[0, 0] == 0
    parts = moments_by_group(constant, group_codes=codes, num_groups=3)
    assert sum(part.scatter[0, 0] for part in parts) == 0
    assert (parts[0] + parts[1] + parts[2]).scatter[0, 0] == 0


def test_large_offset_does_not_drown_the_variance():
    values = np.random.default_rng(2).normal(size=400)
    shifted = moments({"value": values + 1e9})
    assert shifted.covariances[0, 0] == pytest.approx(values.var(ddof=1), rel=1e-6)


def test_fewer_than_two_users_have_no_covariance():
    for values in (np.array([]), np.array([3.0])):
        users = moments({"value": values})
        assert users.num_users == len(values)
        assert np.isnan(users.covariances).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "at least one column"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "of one length, got {'a': 2, 'b': 3}"),
        ({"a": np.zeros(2), "b": np.array([1, np.nan])}, "b: expected finite values, got nan"),
        ({"a": np.array([-np.inf, 1.0])}, "a: expected finite values, got -inf at entry 0"),
    ],
)
def test_bad_columns_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        moments(columns)


def test_bad_codes_and_columns_are_errors():
    columns = {"value": np.arange(3.0)}
    with pytest.raises(ValueError, match="from -1 to 1, got 0 to 2"):
        moments_by_group(columns, group_codes=np.arange(3), num_groups=2)
    with pytest.raises(ValueError, match="expected 3 group codes, got 4"):
        moments_by_group(columns, group_codes=np.arange(4), num_groups=9)
    users = moments(columns)
    with pytest.raises(ValueError, match="got 'clicks'"):
        users.mean("clicks")
    with pytest.raises(ValueError, match="can't add columns"):
        _ = users + moments({"other": np.arange(3.0)})
