"""``ranker verify``: is a bundle whole, and does it still predict what it did?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import Console
from pipelines.exit_codes import EXIT_DATA

if TYPE_CHECKING:
    from ranker.scoring.verification import Verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check every file's sha256 and replay the golden rows."""
    from ranker.scoring.verification import verify

    verification = verify(arguments.bundle)
    intact = not verification.problems
    console.result(
        describe(arguments.bundle, verification, console),
        {"intact": intact, **asdict(verification)},
    )
    for problem in verification.problems:
        console.error(f"{arguments.bundle}: {problem}")
    return 0 if intact else EXIT_DATA


def describe(bundle: Path, verification: Verification, console: Console) -> str:
    """What was checked, and the largest golden difference of each task and runtime."""
    from ranker.bundle import FORMAT
    from ranker.scoring.verification import GOLDEN_TOLERANCE

    lines = [
        f"{bundle}: {'NOT intact' if verification.problems else 'intact'}",
        f"  {verification.files} files checked, {verification.golden_rows} golden rows replayed",
    ]
    if verification.format < FORMAT:
        lines.append(
            f"  format {verification.format}, which has no calibrators: predictions are raw; "
            f"train or continue it to write format {FORMAT}"
        )
    by_column = dict(verification.golden_difference)
    if verification.golden_calibrated:
        by_column["calibrated"] = verification.golden_calibrated
    if by_column:
        tasks = list(next(iter(by_column.values())))
        rows = [[task, *(f"{one[task]:.2g}" for one in by_column.values())] for task in tasks]
        lines.append(console.table(["largest difference", *by_column], rows))
        lines.append(f"  (relative for values above 1; allowed {GOLDEN_TOLERANCE:g})")
    return "\n".join(lines)
