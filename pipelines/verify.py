"""``ranker verify``: is a bundle whole, and does it still predict what it did?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from pipelines.console import Console
from pipelines.exit_codes import EXIT_DATA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check every file's sha256 and replay the golden rows."""
    from ranker.bundle import GOLDEN_TOLERANCE, verify

    verification = verify(arguments.bundle)
    intact = not verification.problems
    lines = [
        f"{arguments.bundle}: {'intact' if intact else 'NOT intact'}",
        f"  {verification.files} files checked, {verification.golden_rows} golden rows replayed",
    ]
    differences = verification.golden_difference
    if differences:
        rows = [(task, f"{difference:.2g}") for task, difference in differences.items()]
        lines.append(console.table(("task", "largest difference"), rows))
        lines.append(f"  (relative for values above 1; allowed {GOLDEN_TOLERANCE:g})")
    console.result("\n".join(lines), {"intact": intact, **asdict(verification)})
    for problem in verification.problems:
        console.error(f"{arguments.bundle}: {problem}")
    return 0 if intact else EXIT_DATA
