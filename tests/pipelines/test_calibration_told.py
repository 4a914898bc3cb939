"""What the commands say of calibration."""

from __future__ import annotations

import json

from chain_run import Chain

from pipelines.evaluate import calibration_line
from ranker.bundle import load_bundle
from ranker.evaluation.calibrators import Calibrators


def test_evaluate_says_what_is_calibrated(chain: Chain) -> None:
    told = chain.ran["evaluate"].json["calibrators"]
    bundle = load_bundle(chain.bundle)
    kinds = {task: one["calibrator"]["kind"] for task, one in told.items()}
    assert kinds == bundle.calibrators.kind_by_task
    assert kinds["click"] == "platt"
    assert told == json.loads((chain.run / "metrics.json").read_text())["calibrators"]


def test_compare_says_what_is_calibrated(chain: Chain) -> None:
    """A file of predictions can't say."""
    told = chain.ran["compare"].json["calibrated"]
    assert told == {"A": load_bundle(chain.bundle).calibrators.kind_by_task, "B": None}


def test_the_report_says_what_is_calibrated(chain: Chain) -> None:
    page = (chain.run / "report.html").read_text(encoding="utf-8")
    assert "calibrated (platt)" in page
    assert "calibrated (ratio)" in page


def test_a_log_short_of_negatives_is_told() -> None:
    identity = {"kind": "identity", "reason": "few labels"}
    platt = {"kind": "platt", "slope": 1, "intercept": 0}
    evidence = {"windows": ["2024-03-04"], "rows": 9}
    calibrators = Calibrators.model_validate(
        {
            "tasks": {
                "click": {"negatives_kept": 0.1, "calibrator": {**platt, "evidence": evidence}},
                "like": {"calibrator": identity},
            }
        }
    )
    assert calibration_line(calibrators) == (
        "predictions calibrated by platt: click; not calibrated: like\n"
        "  in the unit of the log, which kept a share of the negatives (click 0.1)"
    )
