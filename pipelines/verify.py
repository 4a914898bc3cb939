"""``ranker verify``: is a bundle whole, and does it still predict what it did?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import Console
from pipelines.exit_codes import EXIT_DATA
from ranker.config import ConfigError
from ranker.data.moment_text import moment_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ranker.scoring.skew import SkewCheck
    from ranker.scoring.verification import BuildReplay, Verification

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help="replay golden rows in plain, factorised, compiled, onnx or all; may be repeated",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="prepared data: compare training with serving"
    )
    parser.add_argument("--log", type=Path, metavar="PATH", help="the raw log behind --data")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="serve from this state, not all of DIR/snapshots"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Check every file's sha256, replay the golden rows, compare training with serving."""
    from ranker.scoring.verification import verify

    if (arguments.data is None) != (arguments.log is None):
        raise ConfigError("--data and --log belong together: prepared data and its raw log")
    if arguments.state is not None and arguments.data is None:
        raise ConfigError("--state needs --data and --log, whose rows are served from it")
    runtimes = chosen_runtimes(arguments.runtime)
    verification = verify(arguments.bundle, runtimes=runtimes)
    checks: dict[Path, SkewCheck] = {}
    problems = list(verification.problems)
    if arguments.data is not None and not problems:
        checks = compare_paths(arguments)
        problems += [p for state, check in checks.items() for p in skew_problems(state, check)]
    lines = [describe(arguments.bundle, verification, console, intact=not problems)]
    lines += [describe_skew(state, check) for state, check in checks.items()]
    document = {
        "intact": not problems,
        **asdict(verification),
        "problems": problems,
        "skew": {str(state): asdict(check) for state, check in checks.items()},
    }
    console.result("\n".join(lines), document)
    for problem in problems:
        console.error(f"{arguments.bundle}: {problem}")
    return EXIT_DATA if problems else 0


def chosen_runtimes(names: Sequence[str] | None) -> Mapping[str, BuildReplay]:
    """The runtimes by name; those that can take a minute to get ready must be asked for.

    Raises:
        ConfigError: an unknown one.
    """
    from ranker.scoring.verification import AT_ONCE, RUNTIMES

    if names is None:
        return AT_ONCE
    for name in names:
        if name not in (*RUNTIMES, ALL):
            raise ConfigError(f"--runtime {name}: expected one of {[*RUNTIMES, ALL]}")
    return {name: build for name, build in RUNTIMES.items() if name in names or ALL in names}


def compare_paths(arguments: argparse.Namespace) -> dict[Path, SkewCheck]:
    """The same raw rows as prepared and as scored, for the given state or every snapshot."""
    from pipelines.skew import check_states, states_of
    from ranker.bundle import load_bundle

    states = states_of(arguments.data) if arguments.state is None else [arguments.state]
    return check_states(load_bundle(arguments.bundle), arguments.data, arguments.log, states)


def describe_skew(state: Path, check: SkewCheck) -> str:
    """How much was compared, in a line or two."""
    rows = sorted({feature.rows for feature in check.features})
    fewest = [feature.feature for feature in check.features if feature.rows == rows[0]]
    found = f"{len(check.skewed)} features DIFFER" if check.skewed else "no difference"
    text = (
        f"  training and serving from {state}: window {check.window}, {len(check.features)} "
        f"features of {check.rows:,} rows: {found}"
    )
    if rows[0] < check.rows:
        text += (
            "\n    features of the past only where training knew no more than the state: "
            f"{rows[0]:,} rows at least ({len(fewest)} features, {fewest[0]} ...)"
        )
    return text


def skew_problems(state: Path, check: SkewCheck) -> list[str]:
    """A sentence for each feature that differs."""
    return [
        f"training–serving skew from {state}: feature {one.feature!r} differs in "
        f"{one.differing:,} of {one.rows:,} rows, the first is row {one.first.row} (user "
        f"{one.first.user}, at {moment_text(one.first.time_ms)}): trained on "
        f"{one.first.trained}, served {one.first.served}"
        for one in check.skewed
        if one.first is not None
    ]


def describe(bundle: Path, verification: Verification, console: Console, *, intact: bool) -> str:
    """What was checked, and the largest golden difference of each task and runtime."""
    from ranker.bundle import FORMAT
    from ranker.scoring.verification import GOLDEN_TOLERANCE, RUNTIMES

    lines = [
        f"{bundle}: {'intact' if intact else 'NOT intact'}",
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
    reasons = dict(verification.not_replayed)
    for name in RUNTIMES:
        if verification.golden_rows and name not in verification.golden_difference:
            reasons.setdefault(name, f"not asked for (--runtime {name})")
    lines += [f"  not replayed: {name}: {why}" for name, why in reasons.items()]
    return "\n".join(lines)
