"""A moment in messages."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.data.moment_text import moment_text


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (1_651_680_000_000, "2022-05-04 16:00:00 UTC (1651680000000 ms)"),
        (1_651_680_092_903, "2022-05-04 16:01:32.903 UTC (1651680092903 ms)"),
        (-1, "1969-12-31 23:59:59.999 UTC (-1 ms)"),
        (2**62, f"{2**62} ms"),
        (-(2**63), f"{-(2**63)} ms"),
    ],
)
def test_by_hand(time_ms: int, expected: str) -> None:
    assert moment_text(time_ms) == expected


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 4_000_000_000_000))
def test_any_number_has_a_text_and_a_date_says_the_same(any_ms: int, time_ms: int) -> None:
    assert f"{any_ms} ms" in moment_text(any_ms)
    shown = moment_text(time_ms).partition(" UTC ")[0]
    assert pd.Timestamp(shown, tz="UTC") == pd.Timestamp(time_ms, unit="ms", tz="UTC")
