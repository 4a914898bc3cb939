"""The commands of the whole chain on the synthetic log, and how to run one."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cli import main
from ranker.data.synthetic import SyntheticLog

TEST_START = "2024-03-14"
NUM_CANDIDATES = 23
FEW_REPLICATES = ["--set", "num_replicates=40"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.out, self.err
        found = json.loads(self.out)
        assert isinstance(found, dict)
        assert self.out.count("\n") == 1, "one object and nothing else"
        return found


def run_ranker(*words: str | Path) -> Ran:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code=code, out=out.getvalue(), err=err.getvalue())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Where the chain's inputs and outputs are, and what each command printed."""

    folder: Path
    raw: SyntheticLog
    ran: dict[str, Ran] = field(default_factory=dict)

    @property
    def schema(self) -> Path:
        return self.folder / "schema.yaml"

    @property
    def train_config(self) -> Path:
        return self.folder / "train.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def state(self) -> Path:
        return self.data / "snapshots" / TEST_START

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        return self.run / "bundle"

    @property
    def predictions(self) -> Path:
        return self.run / "predictions.parquet"

    @property
    def candidates(self) -> Path:
        return self.folder / "candidates.parquet"

    @property
    def slates(self) -> Path:
        return self.run / "slates.parquet"

    @property
    def raw_words(self) -> list[str | Path]:
        """The arguments for the raw log and its tables."""
        tables = ["--users", self.raw.users, "--items", self.raw.items]
        return ["--schema", self.schema, "--log", self.raw.log, *tables]

    @property
    def commands(self) -> dict[str, list[str | Path]]:
        """The whole chain, in order."""
        where = ["--state", self.state, "--candidates", self.candidates]
        return {
            "validate": self.raw_words,
            "prepare": [
                *self.raw_words,
                *("--set", f"snapshots=['{TEST_START}']", "--output", self.data),
            ],
            "train": [
                *("--data", self.data, "--config", self.train_config),
                *("--set", f"before_window='{TEST_START}'", "--output", self.run),
            ],
            "evaluate": [
                *("--bundle", self.bundle, "--data", self.data, "--run", self.run),
                *FEW_REPLICATES,
                *("--output", self.run),
            ],
            "compare": [self.bundle, self.predictions, "--data", self.data, *FEW_REPLICATES],
            "candidates": [
                *("--state", self.state, "--log", self.raw.log, "--from", TEST_START),
                *("--set", f"num_candidates={NUM_CANDIDATES}", "--output", self.candidates),
            ],
            "score": ["--bundle", self.bundle, *where, "--output", self.slates],
            "simulate": [
                *("--data", self.data, *where, "--before", TEST_START),
                *("--control", self.bundle, "--treatment", self.slates),
                *("--set", "num_refits=2", "--set", "response_iterations=5"),
                *("--set", "metrics=[click, rating]", "--output", self.run),
            ],
            "report": [self.run, "--data", self.data, "--title", "the chain"],
            "verify": [self.bundle],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What `ranker demo` wrote and printed."""

    folder: Path
    out: str
    err: str


def demo_words(folder: Path) -> list[str]:
    """The demo as a process of its own."""
    return [sys.executable, "-m", "pipelines.cli", "demo", "--output", str(folder)]
