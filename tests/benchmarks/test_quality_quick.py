import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import quality

SCRIPT = Path(quality.__file__)


@pytest.mark.slow
def test_a_quick_run_prints_one_json_object_and_stays_off_the_test_days(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--work", str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ}, timeout=600
    )
    record = json.loads(result.stdout)
    assert set(record) >= {"benchmark", "machine", "figures"}
    assert max(record["settings"]["judged"]) < "2022-05-05"
    figures = record["figures"]
    assert all(set(figure) == {"value", "ci_low", "ci_high"} for figure in figures.values())
    for task in ("click", "long_view", "like"):
        ours = figures[f"auc_{task}_mmoe"]["value"]
        boosting = figures[f"auc_{task}_hist_gradient_boosting"]["value"]
        difference = figures[f"auc_{task}_mmoe_minus_hist_gradient_boosting"]
        assert difference["value"] == pytest.approx(ours - boosting)
        assert difference["ci_low"] < difference["value"] < difference["ci_high"]
        assert min(ours, boosting) > 0.6  # rankers that read the wrong rows know nothing
    # what was kept is found again: the second run makes the same figures
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert json.loads(again.stdout)["figures"] == figures


def test_without_data_a_full_run_says_why_it_is_skipped(monkeypatch, capsys):
    monkeypatch.delenv("RANKER_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["quality.py"])
    quality.main()
    said = capsys.readouterr()
    assert said.out == ""
    assert "RANKER_DATA" in said.err
