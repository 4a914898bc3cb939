"""``make kuairand DATA=DIR``: the full 14 days, from raw files to metrics, bundle and report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipelines.arguments import non_negative, shipped
from pipelines.console import Console
from pipelines.exit_codes import EXIT_USAGE
from pipelines.metrics_table import metrics_table
from pipelines.stages import fresh_folder, run_stages

TEST_START = "2022-05-05"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("raw", type=Path, metavar="DIR", help="the raw files (see data/README.md)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/kuairand"),
        metavar="DIR",
        help="default: runs/kuairand",
    )
    parser.add_argument("--seed", type=non_negative, default=0, metavar="N")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare, train, evaluate, report."""
    raw: Path = arguments.raw
    if not (raw / "log_standard_0425_0508.parquet").is_file():
        console.error(f"{raw}: holds no log_standard_0425_0508.parquet; give make DATA=DIR")
        return EXIT_USAGE
    folder = fresh_folder(arguments.output)
    data = str(folder / "data")
    commands = [
        [
            *("prepare", "--schema", str(shipped("configs/schema/kuairand.yaml"))),
            *("--log", str(raw / "log_standard_0425_0508.parquet")),
            *("--users", str(raw / "user_features.parquet")),
            *("--items", str(raw / "video_features_basic.parquet")),
            *("--earlier-history", str(raw / "exposures_before_0425_derived.parquet")),
            *("--set", f"snapshots=['{TEST_START}']", "--output", data),
        ],
        [
            *("train", "--data", data, "--config", str(shipped("configs/train/kuairand.yaml"))),
            *("--seed", str(arguments.seed), "--output", str(folder)),
        ],
        [
            *("evaluate", "--bundle", str(folder / "bundle"), "--data", data),
            *("--from", TEST_START, "--run", str(folder), "--output", str(folder)),
        ],
        ["report", str(folder), "--title", "ranker on KuaiRand-Pure"],
    ]
    code = run_stages(commands, folder, console)
    if code != 0:
        return code
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    console.result(f"\n{metrics_table(metrics, console)}", metrics)
    return 0


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["kuairand", *sys.argv[1:]]))
