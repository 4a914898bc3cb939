"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.console import Console
from ranker.config import Config, ConfigError, ConfigType, dump_yaml, load_config
from ranker.schema import Schema, load_schema

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


def require_output(arguments: argparse.Namespace) -> Path:
    """``--output``, which most commands need.

    Raises:
        ConfigError: it was not given.
    """
    if arguments.output is None:
        raise ConfigError("--output DIR is required")
    output: Path = arguments.output
    return output


def shipped(relative: str) -> Path:
    """A file of the checkout: configs and the sample are not installed with the package.

    Raises:
        ConfigError: this is not a checkout.
    """
    path = SHIPPED / relative
    if not path.exists():
        raise ConfigError(f"{path} is missing: this command runs in a checkout of the repository")
    return path
