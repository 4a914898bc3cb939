import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.experiment.multiplicity import benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=13)


def test_holm_by_hand():
    # Sorted .01, .02, .04 times 3, 2, 1 is .03, .04, .04.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.02])), [0.04, 0.03, 0.04])


def test_benjamini_hochberg_by_hand():
    # Sorted .01, .02, .04, .9 times 4/1, 4/2, 4/3, 4/4.
    adjusted = benjamini_hochberg(np.array([0.9, 0.04, 0.01, 0.02]))
    np.testing.assert_allclose(adjusted, [0.9, 0.16 / 3, 0.04, 0.04])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_tests_not_made_stay_so_and_do_not_count(adjust):
    adjusted = adjust(np.array([np.nan, 0.01, 0.3, np.nan, 0.02]))
    np.testing.assert_array_equal(adjusted[[1, 2, 4]], adjust(np.array([0.01, 0.3, 0.02])))
    assert np.isnan(adjusted[[0, 3]]).all()
    assert adjust(np.array([])).shape == (0,)


@given(P_VALUES)
def test_adjusting_never_helps_and_keeps_the_order(values):
    p_values = np.array(values)
    holms, benjaminis = holm(p_values), benjamini_hochberg(p_values)
    assert np.all(p_values <= benjaminis)
    assert np.all(benjaminis <= holms)
    assert np.all(holms <= 1)
    order = np.argsort(p_values)
    assert np.all(np.diff(holms[order]) >= 0)
    assert np.all(np.diff(benjaminis[order]) >= 0)


@pytest.mark.parametrize("bad", [-0.1, 1.2])
@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_impossible_p_value_is_an_error(adjust, bad):
    with pytest.raises(ValueError, match=r"p-values must be in \[0, 1\]"):
        adjust(np.array([0.5, bad]))
