"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path

from pipelines.console import Console
from ranker.atomic import MANIFEST, SLATES_MANIFEST, OutputError, require_free_or_file
from ranker.config import Config, ConfigError, ConfigType, dump_yaml, load_config
from ranker.schema import Schema, load_schema
from ranker.score_weights import default_score_weights

SHIPPED = Path(__file__).resolve().parents[1]


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config``, ``--set`` and ``--print-config``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; see configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one key of the config, e.g. --set optimizer.dense_rate=0.002",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved config and stop"
    )


def resolve(
    config_type: type[ConfigType], arguments: argparse.Namespace, *, seed: int | None = None
) -> ConfigType:
    """The config of ``--config``, ``--set`` and ``--seed``."""
    overrides = list(arguments.overrides)
    if seed is not None:
        overrides.append(f"seed={seed}")
    return load_config(config_type, arguments.config, overrides)


def print_config(config: Config, console: Console) -> int:
    """Show a resolved config."""
    console.result(dump_yaml(config).rstrip(), config.model_dump(mode="json"))
    return 0


def add_raw_inputs(parser: argparse.ArgumentParser) -> None:
    """The raw log and its tables."""
    parser.add_argument("--schema", type=Path, required=True, metavar="FILE")
    parser.add_argument("--log", type=Path, required=True, metavar="PATH", help="Parquet or folder")
    parser.add_argument("--users", type=Path, metavar="PATH", help="the user table")
    parser.add_argument("--items", type=Path, metavar="PATH", help="the item table")
    parser.add_argument(
        "--earlier-history", type=Path, metavar="PATH", help="impressions older than the log"
    )


def read_schema(path: Path) -> Schema:
    """The schema at ``path``."""
    return load_schema(path)


def read_schema_to_rank_by(path: Path) -> Schema:
    """The schema at ``path``; `ConfigError` also if no task counts in the score."""
    schema = load_schema(path)
    try:
        default_score_weights(schema.tasks)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return schema


def positive(text: str) -> int:
    """An argument's type: a whole number of at least 1."""
    return _at_least(1, text)


def non_negative(text: str) -> int:
    """An argument's type: a whole number of at least 0, as seeds must be."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"expected {least} or more, got {value}")
    return value


def local_date(text: str) -> str:
    """An argument's type: a date, or date and hour, written as the labels of windows are.

    Labels are compared as texts, so 2022-5-5 or 2022-05-05T00:00 must not get through as they are.
    """
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if (
        moment is None
        or moment.tzinfo is not None
        or moment != moment.replace(minute=0, second=0, microsecond=0)
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a local date like 2022-05-05 (or, with its hour, 2022-05-05T18)"
        )
    return moment.date().isoformat() if moment.hour == 0 else f"{moment:%Y-%m-%dT%H}"


class _WindowBound(argparse.Action):
    """Notes one end of the windows, and refuses two ends with nothing between them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del option_string
        setattr(namespace, self.dest, values)
        first, before = namespace.first, namespace.before
        if first is not None and before is not None and first >= before:
            parser.error(f"--from {first} must lie before --before {before}")


def add_windows(parser: argparse.ArgumentParser, *, note: str = "") -> None:
    """``--from`` and ``--before``: which windows are meant."""
    parser.add_argument(
        "--from",
        dest="first",
        action=_WindowBound,
        type=local_date,
        metavar="DATE",
        help=f"first window{note}",
    )
    parser.add_argument(
        "--before",
        action=_WindowBound,
        type=local_date,
        metavar="DATE",
        help=f"windows before this date{note}",
    )


def require_output(arguments: argparse.Namespace) -> Path:
    """``--output``, which most commands need and some replace whole.

    Raises:
        ConfigError: it was not given.
        OutputError: it lies in what a file more would damage.
    """
    if arguments.output is None:
        raise ConfigError("--output is required")
    output: Path = arguments.output
    require_not_in_held(output)
    return output


def require_output_folder(arguments: argparse.Namespace) -> Path:
    """The folder of ``--output`` that gets files, checked before the work: a typo costs no time.

    Raises:
        ConfigError: it was not given.
        OutputError: it is a file, can't be made, or is or lies in what a file more would damage.
    """
    output = require_output(arguments)
    _check_folder(output)
    held = _held(output)
    if held is not None:
        raise OutputError(
            f"{output}: is {held}, and nothing is written there; choose another --output"
        )
    return output


def require_output_file(arguments: argparse.Namespace, *inputs: Path | None) -> Path:
    """The file of ``--output``; where it goes is checked before the work begins.

    Raises:
        ConfigError: it was not given.
        OutputError: it is a folder or one of ``inputs``, can't be written there, or lies in what a
            file more would damage.
    """
    output = require_output(arguments)
    require_free_or_file(output)
    if any(path is not None and path.resolve() == output.resolve() for path in inputs):
        raise OutputError(f"{output}: is also an input; choose another --output")
    _check_folder(output.parent)
    return output


def require_output_parts(arguments: argparse.Namespace, *inputs: Path) -> Path:
    """The folder of ``--output`` that a job fills with Parquet parts, checked before the work.

    Raises:
        ConfigError: it was not given.
        OutputError: see `require_apart`; or it can't be made there.
    """
    # not resolve(): a symbolic link is replaced, not what it points to
    output = Path(os.path.abspath(require_output(arguments)))  # noqa: PTH100
    require_apart(output, *inputs)
    require_apart(output.with_name(f".{output.name}.partial"), *inputs)
    if output.is_dir() and not output.name:
        raise OutputError(f"{output}: is no name for an output; choose another --output")
    _check_folder(output.parent)
    return output


def require_apart(output: Path, *inputs: Path | None) -> None:
    """Raise `OutputError` if ``output`` is one of the inputs, lies within one, or holds one."""
    there = output.resolve()
    for path in inputs:
        if path is None:
            continue
        given = path.resolve()
        if there == given:
            raise OutputError(f"{output}: is also an input; choose another output")
        if there.is_relative_to(given):
            raise OutputError(f"{output}: is also an input: it lies in {path}; choose another")
        if given.is_relative_to(there):
            raise OutputError(f"{output}: is also an input: {path} lies in it; choose another")


def require_not_in_held(output: Path) -> None:
    """Raise `OutputError` if ``output`` lies in what a file more would damage."""
    for folder in (output.absolute().parent.resolve() / output.name).parents:
        held = _held(folder)
        if held is not None:
            raise OutputError(
                f"{output}: lies in {folder}, which is {held}, and nothing is written there; "
                "choose another --output"
            )


_NAMES = {"bundle": "a bundle", "state": "a state"} | {n: n for n in ("prepared data", "slates")}


def _held(folder: Path) -> str | None:
    """What was made whole in ``folder`` and must stay as it is; None for anything else."""
    for name in (MANIFEST, SLATES_MANIFEST):
        try:
            manifest = json.loads((folder / name).read_text(encoding="utf-8"))
            kind = "state" if "as_of_ms" in manifest else str(manifest["kind"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if kind in _NAMES or "files" in manifest:
            return _NAMES.get(kind, kind)
    return None


def _check_folder(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(f"{existing}: is a file; --output needs a folder there")
    if not os.access(existing, os.W_OK):
        raise OutputError(f"{existing}: may not be written to; choose another --output")


def shipped(relative: str) -> Path:
    """A file of the checkout: configs and the sample are not installed with the package.

    Raises:
        ConfigError: this is not a checkout.
    """
    path = SHIPPED / relative
    if not path.exists():
        raise ConfigError(f"{path} is missing: this command runs in a checkout of the repository")
    return path
