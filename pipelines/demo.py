"""``ranker demo``: the whole pipeline on the real sample, from raw log to report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipelines.arguments import non_negative, shipped
from pipelines.console import Console
from pipelines.metrics_table import metrics_table
from pipelines.stages import fresh_folder, run_stages

TEST_START = "2022-05-05"
NUM_REQUESTS = "600"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: runs/demo"
    )
    parser.add_argument("--seed", type=non_negative, default=0, metavar="N")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run every stage and print a short table."""
    folder = fresh_folder(arguments.output)
    code = run_stages(commands(folder, arguments.seed), folder, console)
    if code != 0:
        return code
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    report = folder / "report.html"
    text = f"\n{metrics_table(metrics, console)}\n\nreport: {report.resolve()}"
    console.result(text, {"metrics": metrics, "report": str(report)})
    return 0


def commands(folder: Path, seed: int) -> list[list[str]]:
    """The stages; ``folder`` receives everything."""
    sample = shipped("data/sample")
    raw = [
        *("--schema", str(shipped("configs/schema/kuairand.yaml"))),
        *("--log", str(sample / "log.parquet")),
        *("--users", str(sample / "users.parquet")),
        *("--items", str(sample / "items.parquet")),
        *("--earlier-history", str(sample / "earlier_history.parquet")),
    ]
    data, bundle = str(folder / "data"), str(folder / "bundle")
    state = str(folder / "data" / "snapshots" / TEST_START)
    candidates = str(folder / "candidates.parquet")
    return [
        ["validate", *raw],
        ["prepare", *raw, "--set", f"snapshots=['{TEST_START}']", "--output", data],
        [
            *("train", "--data", data, "--config", str(shipped("configs/train/sample.yaml"))),
            *("--seed", str(seed), "--output", str(folder)),
        ],
        [
            *("evaluate", "--bundle", bundle, "--data", data, "--from", TEST_START),
            *("--run", str(folder), "--output", str(folder)),
        ],
        [
            *("candidates", "--state", state, "--log", str(sample / "log.parquet")),
            *("--from", TEST_START, "--max-requests", NUM_REQUESTS, "--output", candidates),
        ],
        [
            *("score", "--bundle", bundle, "--state", state, "--candidates", candidates),
            *("--output", str(folder / "slates.parquet")),
        ],
        [
            *("simulate", "--data", data, "--state", state, "--candidates", candidates),
            *("--before", TEST_START, "--control", bundle, "--treatment", bundle),
            *("--control-weights", str(shipped("configs/score/engagement_only.yaml"))),
            *("--control-name", "engagement only", "--treatment-name", "with satisfaction"),
            *("--config", str(shipped("configs/simulate/sample.yaml")), "--output", str(folder)),
        ],
        ["report", str(folder), "--title", "ranker on a sample of KuaiRand"],
    ]
