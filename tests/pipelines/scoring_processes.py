"""Scoring jobs as processes of their own, to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from chain_run import Chain

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 180


def command(
    chain: Chain, output: Path, *more: str | Path, candidates: Path | None = None
) -> list[str]:
    words = [
        *("score", "--bundle", chain.bundle, "--state", chain.state),
        *("--candidates", candidates or chain.candidates, "--output", output, *more),
    ]
    return [sys.executable, "-m", "pipelines.cli", *map(str, words)]


def finish(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def start(words: list[str]) -> subprocess.Popen[str]:
    """A process in a group of its own."""
    return subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def partial_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def wait_for_parts(process: subprocess.Popen[str], output: Path, number: int) -> None:
    """Until so many parts are finished, or the process has ended."""
    give_up = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < give_up:
        if len(list(partial_of(output).glob(".part-*.json"))) >= number:
            return
        time.sleep(0.001)


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Signal the process alone; its exit code and what it said."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
    _, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, errors


def repeated(frame: pd.DataFrame, times: int) -> pd.DataFrame:
    """The lists again and again, as other requests."""
    copies = [frame.assign(request_id=frame["request_id"] + f"-{k}") for k in range(times)]
    return pd.concat(copies, ignore_index=True)
