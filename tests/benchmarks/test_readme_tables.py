"""The pages' tables are what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from readme_tables import README, TABLES_BY_PAGE, calibration_table, fill
from record import RESULTS


@pytest.mark.parametrize("page", TABLES_BY_PAGE, ids=lambda page: page.name)
def test_pages_show_the_results(page: Path) -> None:
    text = page.read_text()
    assert fill(text, TABLES_BY_PAGE[page], RESULTS) == text, "run `benchmarks/readme_tables.py`"
    assert "|---|" in text


def test_a_table_by_hand(tmp_path: Path) -> None:
    figures = {
        f"{prefix}_{task}_mmoe": {"value": 0.5, "ci_low": None, "ci_high": None}
        for prefix in ("auc", "gauc", "ece_calibrated")
        for task in ("click", "long_view", "like")
    }
    for task in ("click", "long_view", "like"):
        figures[f"auc_{task}_lightgbm"] = {"value": 0.25, "ci_low": None, "ci_high": None}
        figures[f"gauc_{task}_lightgbm"] = {"value": 0.75, "ci_low": None, "ci_high": None}
        figures[f"ece_calibrated_{task}_lightgbm"] = {"value": 0.0, "ci_low": 0.0, "ci_high": 0.0}
        figures[f"auc_{task}_mmoe_minus_lightgbm"] = {
            "value": 0.25,
            "ci_low": -0.125,
            "ci_high": 0.5,
        }
    (tmp_path / "quality.json").write_text(json.dumps({"figures": figures}))
    text = "a\n<!-- quality contest -->\nold\n<!-- end of quality contest -->\nz\n"
    tables = TABLES_BY_PAGE[README]
    lines = fill(text, tables, tmp_path).splitlines()
    difference = "0.2500 (+0.2500 [-0.1250, +0.5000])"
    assert lines[4] == f"| **ranker, MMoE** |{' 0.5000 |' * 8}"
    gauc = "0.7500 | 0.7500 | 0.7500"
    assert lines[5] == f"| LightGBM |{f' {difference} |' * 3} {gauc} | 0.0000 | 0.0000 |"
    assert (lines[0], lines[-1], len(lines)) == ("a", "z", 8)
    with pytest.raises(ValueError, match="markers of 'quality contest'"):
        fill("nothing", tables, tmp_path)


def test_a_calibration_table_by_hand() -> None:
    figures = {
        f"{prefix}ece_{task}_{kind}_seed_7": {"value": value, "ci_low": 0.0, "ci_high": 0.0312}
        for task in ("click", "long_view")
        for kind, value in (("none", 0.0101), ("platt", 0.0052), ("isotonic", 0.02))
        for prefix in ("", "sample_")  # of another log: not in the table
    }
    cells = " | ".join(f"{value} [.0000, .0312]" for value in (".0101", ".0052", ".0200"))
    assert calibration_table(figures)[2:] == [
        f"| click | 7 | {cells} |",
        f"| long_view | 7 | {cells} |",
    ]
