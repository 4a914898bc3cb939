"""Several commands in a row, each shown as one would type it, with the time it took."""

from __future__ import annotations

import argparse
import importlib
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.console import Console
from ranker.atomic import OutputError, write_json

STAGES = "stages.json"


def fresh_folder(folder: Path) -> Path:
    """Empty a folder of earlier stages; refuse any other non-empty folder.

    Raises:
        OutputError: the folder holds something that no run of stages left there.
    """
    if folder.is_file():
        raise OutputError(f"{folder}: is a file; --output names a folder")
    if folder.is_dir() and any(folder.iterdir()):
        # a manifest would not do: bundles and prepared data have one, and took longer to make
        if not (folder / STAGES).is_file():
            raise OutputError(f"{folder}: is not empty and no earlier run; choose another --output")
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != STAGES:  # kept to the last: who is interrupted here can try again
                path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STAGES, {})
    return folder


def run_stages(commands: Sequence[Sequence[str]], folder: Path, console: Console) -> int:
    """Run commands (name, then arguments) in this process; stop at the first that fails.

    Writes ``stages.json``: wall seconds by command and the process's peak memory.
    """
    seconds_by_stage: dict[str, float] = {}
    for name, *words in commands:
        console.say("$ " + shlex.join(["ranker", name, *words]))
        command = importlib.import_module(f"pipelines.{name}")
        parser = argparse.ArgumentParser(prog=f"ranker {name}", allow_abbrev=False)
        command.add_arguments(parser)
        started = time.perf_counter()
        code: int = command.run(parser.parse_args(words), _Indented(quiet=console.quiet))
        seconds_by_stage[name] = time.perf_counter() - started
        console.say(f"  {seconds_by_stage[name]:.1f} s")
        write_json(
            folder / STAGES,
            {"wall_s": seconds_by_stage, "peak_memory_mib": peak_memory_mib()},
        )
        if code != 0:
            return code
    return 0


def peak_memory_mib() -> float:
    """The process's peak resident memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 2**20


class _Indented(Console):
    """A stage's result is a message of the whole, not its result."""

    def result(self, text: str, value: object) -> None:
        del value
        self.say("\n".join(f"  {line}" for line in text.splitlines()))
