"""The console script `ranker`: finds the command, runs it, turns errors into exit codes."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol

from pipelines.console import Console, outliving_readers
from pipelines.exit_codes import (
    EXIT_BUG,
    EXIT_DATA,
    EXIT_GATE,
    EXIT_INTERRUPTED,
    EXIT_RESOURCE,
    EXIT_USAGE,
)
from ranker.config import ConfigError

COMMANDS = {
    "demo": "run the whole pipeline on the sample log, up to a report",
    "doctor": "look at this machine, and measure which training settings pay on it",
    "audit": "look at a log of any origin: draft its schema, say what it can answer",
    "validate": "check a log against its schema, row by row, and look for leaks",
    "prepare": "turn a raw log into encoded data in time order, and a state for scoring",
    "train": "train a bundle window by window, past to future; or continue one",
    "evaluate": "measure a bundle on windows it has not seen, beside baselines",
    "compare": "compare two bundles or prediction files: better, worse or cannot tell",
    "candidates": "generate and pool candidates for requests",
    "score": "score candidate lists and write slates",
    "join": "join slates with their outcomes: tomorrow's impressions",
    "tune-weights": "search score weights: engagement against satisfaction, with a page to try",
    "simulate": "simulate an A/B comparison: on a response model, or in a world of known truth",
    "analyze": "analyse a real experiment's table: ship, don't ship, or not enough data",
    "verify": "check a bundle's files and replay its golden rows",
    "export": "write a bundle's model as ONNX, checked on its golden rows",
    "report": "draw the report of a run folder",
    "kuairand": "train and evaluate on the full 14 days of KuaiRand-Pure",
}
SMALLER_PIECES = {
    "prepare": "--set chunk_rows=...",
    "train": "--set micro_batch_rows=..., batch_rows=...",
    "score": "--set shard_rows=...",
    "simulate": "--set chunk_rows=...",
}
MEANING_BY_EXIT_CODE = {
    0: "done",
    EXIT_BUG: "a bug",
    EXIT_USAGE: "usage or configuration",
    EXIT_DATA: "input data rejected",
    EXIT_GATE: "a gate failed",
    EXIT_RESOURCE: "disk or memory",
    EXIT_INTERRUPTED: "interrupted",
}


class Command(Protocol):
    """What a module of ``pipelines`` offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""
        ...

    def run(self, arguments: argparse.Namespace, console: Console) -> int:
        """Do it and return the exit code."""
        ...


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with outliving_readers():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else EXIT_USAGE
    if words[0] in ("-V", "--version", "version"):
        print(f"ranker {_version()}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"ranker: unknown command {name!r}{hint} (see ranker --help)", file=sys.stderr)
        return EXIT_USAGE
    return _run(name, rest)


def _run(name: str, words: list[str]) -> int:
    parser = _Parser(
        prog=f"ranker {name}",
        description=COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".",
        allow_abbrev=False,
    )
    console = Console()
    try:
        command: Command = importlib.import_module(f"pipelines.{name.replace('-', '_')}")
        command.add_arguments(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        parser.add_argument("--quiet", action="store_true", help="no progress")
        # before argparse complains of what a misspelt argument leaves out
        misspelt = _unknown_options(parser, words)
        if misspelt:
            parser.error(_unknown_arguments(parser, misspelt))
        if "--print-config" in words:
            _require_nothing(parser)
        arguments, unknown = parser.parse_known_args(words)
        if unknown:
            parser.error(_unknown_arguments(parser, unknown))
        console = Console(json_output=arguments.json, quiet=arguments.quiet)
        _set_up_logging(quiet=arguments.quiet)
        return command.run(arguments, console)
    except KeyboardInterrupt:
        console.error(f"interrupted; to go on: {_again(parser, name, words)}")
        return EXIT_INTERRUPTED
    except Exception as error:
        return _explain(error, console, name=name, again=_again(parser, name, words))


def _explain(error: Exception, console: Console, *, name: str, again: str) -> int:
    """Print a user's mistake in a sentence, a bug with its traceback."""
    if isinstance(error, ConfigError):
        console.error(str(error))
        return EXIT_USAGE
    # torch has a class of its own for GPUs alone
    is_torch_out_of_memory = isinstance(error, RuntimeError) and (
        "allocate memory" in str(error)
        or "start new thread" in str(error)
        or type(error).__name__ == "OutOfMemoryError"
    )
    if isinstance(error, MemoryError) or is_torch_out_of_memory:
        advice = f"take smaller pieces ({SMALLER_PIECES[name]})" if name in SMALLER_PIECES else ""
        console.error(f"out of memory; {advice or 'free some, or take fewer rows'}")
        return EXIT_RESOURCE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"; to go on: {again}" if again.endswith(" --resume") else ""
        what = "a file may not grow as large" if error.errno == errno.EFBIG else "the disk is full"
        console.error(f"{what}: {error}; what was finished before is intact{hint}")
        return EXIT_RESOURCE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{error.strerror or error}")
        return EXIT_USAGE
    if type(error).__name__ in ("RankDiedError", "WorkersLostError"):  # their modules import torch
        console.error(str(error))
        return EXIT_RESOURCE
    from ranker.atomic import OutputError
    from ranker.data.parquet import DataError

    if isinstance(error, DataError):
        console.error(str(error))
        return EXIT_DATA
    if isinstance(error, OutputError):
        console.error(str(error))
        return EXIT_USAGE
    traceback.print_exc()
    console.error("this is a bug in ranker; please report it with the lines above")
    return EXIT_BUG


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return (
        "usage: ranker COMMAND ...\n\n"
        "From a log of impressions to ranked slates, and honest verdicts.\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\nexit codes: "
        + "; ".join(f"{code} {meaning}" for code, meaning in MEANING_BY_EXIT_CODE.items())
        + "\n\nranker COMMAND --help says more; ranker --version says which this is."
    )


def _version() -> str:
    from importlib.metadata import version

    return version("ranker")


def _again(parser: argparse.ArgumentParser, name: str, words: Sequence[str]) -> str:
    """The command that goes on with what these words began."""
    goes_on = "resume" in _flags(parser) and "--resume" not in words
    return shlex.join(["ranker", name, *words, *(["--resume"] if goes_on else [])])


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in parser._actions}


def _unknown_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    known = {option for action in parser._actions for option in action.option_strings}
    given = words[: words.index("--")] if "--" in words else words
    return [w for w in given if w.startswith("--") and w.partition("=")[0] not in known]


def _require_nothing(parser: argparse.ArgumentParser) -> None:
    """A config can be shown without the files that it is meant for."""
    for action in parser._actions:
        action.required = False
        if not action.option_strings:
            action.nargs = "?"
    for group in parser._mutually_exclusive_groups:
        group.required = False


def _unknown_arguments(parser: argparse.ArgumentParser, unknown: list[str]) -> str:
    options = [option for action in parser._actions for option in action.option_strings]
    close = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown argument {unknown[0]!r}{hint}"


def _set_up_logging(*, quiet: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr
    )


if __name__ == "__main__":
    sys.exit(main())
