import json
import os
import subprocess
import sys
from pathlib import Path

import laboratory
import pytest

SCRIPT = Path(laboratory.__file__)


@pytest.fixture(scope="module")
def records():
    """Of two quick runs, with one process and with three."""
    return [
        json.loads(
            subprocess.run(
                [sys.executable, str(SCRIPT), "--quick", "--jobs", jobs],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ},
                timeout=600,
            ).stdout
        )
        for jobs in ("1", "3")
    ]


@pytest.mark.slow
def test_figures_do_not_depend_on_the_number_of_processes(records):
    one, three = records
    assert one["figures"] == three["figures"]
    assert one["details"]["verdicts"] == three["details"]["verdicts"]


@pytest.mark.slow
def test_wide_bands_hold_at_reduced_size(records):
    figures = {name: figure["value"] for name, figure in records[0]["figures"].items()}
    assert all(
        set(figure) == {"value", "ci_low", "ci_high"} for figure in records[0]["figures"].values()
    )
    methods = (
        "mean",
        "ratio",
        "cuped_mean",
        "cuped_ratio",
        "median",
        "quantile_90",
        "interleaving",
    )
    for method in methods:
        assert 0.015 < figures[f"a_a_false_alarm_share_{method}"] < 0.09
    assert figures["a_a_false_alarm_share_naive_ratio"] > 0.15
    for method in ("mean", "cuped_mean", "lift_of_sums", "ratio", "betting"):
        assert figures[f"peeking_false_alarm_share_sequence_{method}"] <= 0.05
    for method in ("mean", "cuped_mean"):
        assert figures[f"peeking_false_alarm_share_naive_{method}"] > 0.15
    for method in ("mean", "ratio", "cuped_mean", "cuped_ratio"):
        assert figures[f"lift_3_power_share_{method}"] > figures[f"lift_0_power_share_{method}"]
    covered = [value for name, value in figures.items() if "_covers_" in name]
    assert len(covered) == 4 * 10
    assert min(covered) > 0.8
    assert figures["cuped_squared_se_over_plain"] == pytest.approx(
        figures["cuped_one_minus_squared_correlation_over_plain"], abs=0.02
    )
    assert figures["largest_difference_from_others"] < 1e-8
    failed = [one for one in records[0]["details"]["verdicts"] if not one["holds"]]
    assert failed == []
