"""The calibration benchmark: the error that chance alone makes."""

from __future__ import annotations

import sys

import calibration_kinds
import numpy as np
import pytest
from calibration_kinds import error_by_chance


def test_chance_by_hand() -> None:
    # One bin of N equal predictions: the error is |p - mean label|, whose mean is the mean absolute
    # deviation of a binomial share, sqrt(2 p (1 - p) / (pi N)) for large N.
    num_rows, rate = 10_000, 0.3
    figure = error_by_chance(np.full(num_rows, rate), num_draws=2_000, rng=np.random.default_rng(5))
    expected = np.sqrt(2 * rate * (1 - rate) / (np.pi * num_rows))
    assert figure.value == pytest.approx(expected, rel=0.06)
    assert figure.ci_low is not None and figure.ci_high is not None
    # 95 % of |N(0, s)| lie between 0.031 s and 2.24 s
    spread = np.sqrt(rate * (1 - rate) / num_rows)
    assert figure.ci_low < 0.1 * spread < 2.1 * spread < figure.ci_high < 2.4 * spread


def test_without_data_a_full_run_says_why_it_is_skipped(monkeypatch, capsys):
    monkeypatch.delenv("RANKER_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["calibration_kinds.py"])
    calibration_kinds.main()
    said = capsys.readouterr()
    assert said.out == ""
    assert "RANKER_DATA" in said.err
