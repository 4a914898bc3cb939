"""What ``ranker simulate`` can be told of a world, and of an experiment in it."""

from __future__ import annotations

import argparse
import datetime
import difflib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from ranker.config import Config, ConfigError, load_config
from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.metric import MeanMeasure, MetricSpec, RatioMeasure, columns_of
from ranker.experiment.world.experiment import METRICS, ExperimentSettings
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.world import World, make_world

DEFAULT_METRICS = (
    MetricSpec(
        name="watch time",
        measure=MeanMeasure(column="watch_time_s"),
        role="primary",
        family="engagement",
    ),
    MetricSpec(
        name="likes",
        measure=MeanMeasure(column="likes"),
        role="guardrail",
        margin=0.05,
        family="satisfaction",
    ),
    MetricSpec(
        name="dismissals",
        measure=MeanMeasure(column="dismissals"),
        direction="negative",
        role="guardrail",
        margin=0.05,
        family="satisfaction",
    ),
    MetricSpec(
        name="days returned",
        measure=MeanMeasure(column="returned"),
        role="guardrail",
        margin=0.02,
        family="satisfaction",
    ),
    MetricSpec(name="clicks", measure=MeanMeasure(column="clicks"), family="engagement"),
    MetricSpec(
        name="click rate",
        measure=RatioMeasure(numerator="clicks", denominator="impressions"),
        family="engagement",
    ),
    MetricSpec(
        name="rating",
        measure=RatioMeasure(numerator="rating_sum", denominator="surveys"),
        family="satisfaction",
    ),
)


class WorldExperimentConfig(Config):
    """The experiment in the world; see `ExperimentSettings` and `AnalysisSettings`.

    Attributes:
        click_lift: injected into the treatment's clicks, a known effect: 0.02 is 2 %.
        metrics: of the outcomes table's columns; the first primary one decides.
    """

    seed: int = Field(default=0, ge=0)
    salt: str = Field(default="experiment", pattern="^[^:]+$")
    share_treatment: float = Field(default=0.5, gt=0, lt=1)
    first_day: int = Field(default=7, ge=0)
    num_days: int = Field(default=7, ge=1)
    pre_period_days: int = Field(default=7, ge=0)
    click_lift: float = Field(default=0.0, gt=-1)
    metrics: tuple[MetricSpec, ...] = Field(default=DEFAULT_METRICS, min_length=1)
    slices: tuple[str, ...] = ("device", "tenure")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    peeking: bool = False
    bootstrap_replicates: int = Field(default=0, ge=0)


class WorldExperiment(Config):
    """World and experiment as resolved, for the page and --print-config."""

    world: WorldSettings
    experiment: WorldExperimentConfig


def load_world(path: Path | None, overrides: Sequence[str]) -> WorldSettings:
    """The world's settings: a file (the defaults where None), and ``--set world.KEY=VALUE``."""
    own = [one.removeprefix("world.") for one in overrides if one.startswith("world.")]
    return load_config(WorldSettings, path, own)


def other_overrides(arguments: argparse.Namespace) -> list[str]:
    """``--set`` and ``--seed`` of anything but the world."""
    others = [one for one in arguments.overrides if not one.startswith("world.")]
    return others if arguments.seed is None else [*others, f"seed={arguments.seed}"]


def make_world_of(settings: WorldSettings) -> World:
    """`make_world`; settings that contradict each other are the user's mistake."""
    try:
        return make_world(settings)
    except ValueError as error:
        raise ConfigError(f"--world: {error}") from None


def check_columns(config: WorldExperimentConfig) -> None:
    """Raise `ConfigError` for a metric of a column that the world lacks."""
    for column in columns_of(config.metrics):
        if column not in METRICS:
            close = difflib.get_close_matches(column, METRICS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"metrics: the world has no column {column!r}{hint} ({METRICS})")


def experiment_settings(
    config: WorldExperimentConfig, names: tuple[str, str], world: WorldSettings
) -> ExperimentSettings:
    """The arms, named control first, and the days.

    Raises:
        ConfigError: days that the world lacks.
    """
    end = config.first_day + config.num_days
    if end > world.num_days:
        raise ConfigError(
            f"the experiment ends on day {end}, the world on day {world.num_days}: --set "
            f"world.num_days={end}, or fewer num_days"
        )
    if config.pre_period_days > config.first_day:
        raise ConfigError(
            f"pre_period_days {config.pre_period_days} must be at most first_day "
            f"{config.first_day}: the world begins on day 0"
        )
    return ExperimentSettings(
        share_by_arm={names[0]: 1 - config.share_treatment, names[1]: config.share_treatment},
        control=names[0],
        salt=config.salt,
        first_day=config.first_day,
        num_days=config.num_days,
        pre_period_days=config.pre_period_days,
        seed=config.seed,
    )


def first_date(config: WorldExperimentConfig, world: WorldSettings) -> datetime.date:
    """The date on which the experiment begins."""
    return world.first_date + datetime.timedelta(days=config.first_day)


def analysis_settings(
    config: WorldExperimentConfig, names: tuple[str, str], world: WorldSettings
) -> AnalysisSettings:
    """How the table of outcomes is read and judged.

    Raises:
        ConfigError: metrics that no analysis can judge.
    """
    try:
        return AnalysisSettings(
            share_by_arm={names[0]: 1 - config.share_treatment, names[1]: config.share_treatment},
            control=names[0],
            start=first_date(config, world),
            metrics=config.metrics,
            slices=config.slices,
            confidence=config.confidence,
            peeking=config.peeking,
            bootstrap_replicates=config.bootstrap_replicates,
            seed=config.seed,
        )
    except ValueError as error:
        raise ConfigError(f"--config: {error}") from None
