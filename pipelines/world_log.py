"""``ranker simulate --write-log``: the log of a world, fit for every command that reads a log."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import version
from pathlib import Path

from pydantic import Field

from pipelines.arguments import print_config, read_schema, shipped
from pipelines.console import Console
from pipelines.world_config import load_world, make_world_of, other_overrides
from ranker.atomic import check_replaceable, replacing_folder, write_text
from ranker.config import Config, ConfigError, dump_yaml, load_config
from ranker.experiment.world.log import write_log
from ranker.experiment.world.settings import WorldSettings
from ranker.manifest import folder_digests, write_manifest
from ranker.schema import Schema

KIND = "world log"


class WorldLogConfig(Config):
    """Which days to write.

    Attributes:
        seed: of what users happen to do; who they are is the world's.
        log_days: length of the log, from the world's first day.
        candidates_from: the first day whose candidate lists are written; the last is the world's.
    """

    seed: int = Field(default=0, ge=0)
    log_days: int = Field(default=7, ge=1)
    candidates_from: int = Field(default=7, ge=0)


class ResolvedLog(Config):
    """World and log as resolved, for --print-config."""

    world: WorldSettings
    log: WorldLogConfig


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write a world's log."""
    config = load_config(WorldLogConfig, arguments.config, other_overrides(arguments))
    settings = load_world(arguments.world, arguments.overrides)
    if arguments.print_config:
        return print_config(ResolvedLog(world=settings, log=config), console)
    if max(config.log_days, config.candidates_from) > settings.num_days:
        raise ConfigError(
            f"log_days {config.log_days} and candidates_from {config.candidates_from} must be at "
            f"most the world's num_days, {settings.num_days}"
        )
    output: Path = arguments.write_log
    check_replaceable(output, kind=KIND)
    world = make_world_of(settings)
    schema = world_schema(settings)
    console.say(f"writing {config.log_days} days of {settings.num_users:,} users")
    with replacing_folder(output, kind=KIND) as folder:
        write_log(
            world,
            folder,
            days=range(config.log_days),
            candidate_days=range(config.candidates_from, settings.num_days),
            seed=config.seed,
            jobs=arguments.jobs or os.cpu_count() or 1,
        )
        write_text(folder / "schema.yaml", dump_yaml(schema))
        write_text(folder / "world.yaml", dump_yaml(settings))
        files = folder_digests(folder)
        manifest = {"kind": KIND, "created_by": f"ranker {version('ranker')}"}
        write_manifest(folder, {**manifest, "log": config.model_dump(), "files": files})
    console.result(
        f"{output}: log/ ({config.log_days} days), candidates/ (from day "
        f"{config.candidates_from}), users.parquet, items.parquet, schema.yaml, world.yaml",
        {"output": str(output), "files": sorted(files)},
    )
    return 0


def world_schema(settings: WorldSettings) -> Schema:
    """The schema of every world's log, with as many positions as this one's slates have."""
    schema = read_schema(shipped("configs/schema/world.yaml"))
    return schema.model_copy(update={"max_positions": settings.slate_size})
