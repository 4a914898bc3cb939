import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.report.content import CalibrationBin, Estimate
from ranker.report.markup import estimate_text, mean_text, number, percent, signed
from ranker.report.scales import calibration_scale, log_ticks, window_ticks, without_year


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.75921, "0.759"),
        (-0.0121, "−0.012"),
        (-0.0001, "0.000"),
        (11.834, "11.83"),
        (208.64, "208.6"),
        (1482304, "1,482,304"),
    ],
)
def test_numbers_are_written_for_people(value, expected):
    assert number(value) == expected


def test_signs():
    assert [signed(0.012), signed(-0.012), signed(0)] == ["+0.012", "−0.012", "0.000"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.372, "37.2 %"), (0.0142, "1.4 %"), (0.0023, "0.23 %"), (0.00034, "0.034 %"), (0, "0.0 %")],
)
def test_small_rates_keep_two_digits_in_percent(value, expected):
    assert percent(value) == expected


def test_rare_means_keep_three_digits():
    assert [mean_text(x) for x in (0.0023641, 0.3812, 0)] == ["0.00236", "0.381", "0.000"]


def test_a_narrow_interval_gets_more_decimals():
    narrow = Estimate(value=0.75921, ci_low=0.75899, ci_high=0.75943)
    assert estimate_text(narrow) == "0.7592 [0.7590, 0.7594]"


def test_an_end_of_an_interval_never_rounds_to_zero():
    close = Estimate(value=0.012, ci_low=-0.0002, ci_high=0.0242)
    assert estimate_text(close) == "0.0120 [−0.0002, 0.0242]"
    touching = Estimate(value=0.012, ci_low=0.0, ci_high=0.024)
    assert estimate_text(touching) == "0.012 [0.000, 0.024]"
    whole = Estimate(value=0.0, ci_low=0.0, ci_high=0.0)
    assert estimate_text(whole) == "0.000 [0.000, 0.000]"


def test_log_ticks_are_round_and_few():
    assert log_ticks(0.0009, 0.011) == [0.002, 0.005, 0.01]
    assert log_ticks(0.004, 0.06) == [0.005, 0.01, 0.02, 0.05]
    assert log_ticks(1e-6, 0.5) == [1e-5, 1e-3, 1e-1]


@given(
    low=st.floats(1e-9, 1e-2),
    ratio=st.floats(2.25, 1e8),  # a scale spans at least 1.5 * 1.5
)
def test_log_ticks_lie_inside(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert len(ticks) <= 4
    assert all(low < tick <= low * ratio for tick in ticks)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5)),
        max_size=11,
    )
)
def test_a_calibration_scale_holds_every_dot(values):
    bins = [
        CalibrationBin(mean_prediction=p, mean_label=y, rows=3, ci_low=y - a, ci_high=y + b)
        for p, y, a, b in values
    ]
    scale = calibration_scale(bins)
    assert scale.low < scale.high
    assert not scale.is_log or scale.low > 0
    for b in bins:
        assert scale.low <= scale.clip(b.mean_prediction) <= scale.high
        assert scale.low <= scale.clip(b.mean_label) <= scale.high
    assert all(math.isfinite(end) for end in scale.axis("")["range"])


def test_window_ticks_name_first_and_last():
    ticks = window_ticks(["a", "b", "c", "d", "e", "f", "g"], at_most=3)
    assert ticks["tickvals"] == [0, 3, 6]
    assert ticks["ticktext"] == ["a", "d", "g"]
    assert window_ticks(["a"], at_most=3)["ticktext"] == ["a"]
    assert window_ticks([], at_most=3)["ticktext"] == []


def test_only_dates_of_one_year_lose_it():
    assert without_year(["2022-04-25", "2022-05-08"]) == ["04-25", "05-08"]
    assert without_year(["2022-12-31", "2023-01-01"]) == ["2022-12-31", "2023-01-01"]
    assert without_year(["2022 spring", "2022-05-08"]) == ["2022 spring", "2022-05-08"]
