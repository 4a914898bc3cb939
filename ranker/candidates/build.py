"""Configs of the candidate stage, and generators fitted on a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, assert_never

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ranker.candidates.covisitation import CovisitationGenerator
from ranker.candidates.popularity import PopularityGenerator
from ranker.candidates.protocol import CandidateGenerator, Interactions
from ranker.config import Config, ConfigError
from ranker.data.history import Queries, compute_features
from ranker.data.history_state import HistoryState, event_vocabularies
from ranker.schema import Schema, Weight


class PopularityConfig(Config):
    """See `ranker.candidates.popularity.PopularityGenerator`."""

    kind: Literal["popularity"] = "popularity"
    half_life_days: float = Field(default=3.0, gt=0)
    unknown_age_days: float = Field(default=7.0, ge=0)


class CovisitationConfig(Config):
    """See `ranker.candidates.covisitation.CovisitationGenerator`."""

    kind: Literal["covisitation"] = "covisitation"
    max_gap: int = Field(default=3, ge=1)
    max_gap_s: float = Field(default=86_400.0, gt=0)
    distance_decay: float = Field(default=0.7, gt=0, le=1)
    shrinkage: float = Field(default=10.0, ge=0)
    num_neighbours: int = Field(default=100, ge=1)


Generator = Annotated[PopularityConfig | CovisitationConfig, Field(discriminator="kind")]


class CandidatesConfig(Config):
    """The candidate stage.

    Attributes:
        num_candidates: at most so many a request, all sources pooled.
        generators: each proposes up to ``num_candidates`` of its own.
        impression_weight: how much a watched item counts without any feedback.
        feedback_weights: task in the schema's ``history.feedback`` -> how much more it counts.
        exclude_watched: don't propose what the state knows the user has watched.
    """

    num_candidates: int = Field(default=200, ge=1)
    generators: tuple[Generator, ...] = Field(
        default=(CovisitationConfig(), PopularityConfig()), min_length=1
    )
    impression_weight: Weight = 0.1
    feedback_weights: dict[str, Weight] = Field(default_factory=dict)
    exclude_watched: bool = True


def read_interactions(
    history: HistoryState, schema: Schema, config: CandidatesConfig
) -> Interactions:
    """The watched items of a state as weighted interactions.

    Raises:
        ConfigError: the schema has no history, a feedback weight is for a task that the history
            does not keep, or all weights are 0.
    """
    if schema.history is None:
        raise ConfigError(
            f"schema {schema.name!r} has history: null, so the state keeps nothing that users "
            "watched; candidates are generated from it: give the schema a history, prepare again"
        )
    recent = history.recent
    feedback = schema.history.feedback
    for task in config.feedback_weights:
        if task not in feedback:
            raise ConfigError(f"feedback_weights: {task!r} is not one of {list(feedback)}")
    weights = config.feedback_weights or dict.fromkeys(feedback, 1.0)
    if config.impression_weight == 0 and not any(weights.values()):
        raise ConfigError(
            "impression_weight and feedback_weights: all are 0, so nothing could be proposed; "
            f"give at least one of {list(feedback)} a weight, or watched items themselves"
        )
    weight = np.full(recent.num_rows, config.impression_weight, dtype=np.float64)
    for bit, task in enumerate(feedback):
        weight += weights.get(task, 0.0) * (((recent.feedback - 1) >> bit) & 1)
    return Interactions(
        user_index=recent.index["user"],
        item_index=recent.index["item"],
        time_ms=recent.time_ms,
        order=_order_by_time(recent.index["user"], recent.time_ms),
        weight=weight.astype(np.float32),
    )


def query_items(
    history: HistoryState,
    time_ms: npt.NDArray[np.int64],
    user_index: npt.NDArray[np.int64],
    schema: Schema,
) -> npt.NDArray[np.int64]:
    """What each user watched last, as far as the state had seen it before the request; 0 = none."""
    nothing = np.zeros_like(user_index)
    index = dict.fromkeys(event_vocabularies(schema), nothing) | {"user": user_index}
    features = compute_features(history, Queries(time_ms=time_ms, index=index), None, schema)
    return features["query_item"].astype(np.int64)


def build_generators(
    config: CandidatesConfig, interactions: Interactions, *, as_of_ms: int
) -> Mapping[str, CandidateGenerator]:
    """Fit every configured generator, by name."""
    generators: dict[str, CandidateGenerator] = {}
    for one in config.generators:
        fitted = _fit(one, interactions, as_of_ms)
        if fitted.name in generators:
            raise ConfigError(f"generators: {fitted.name!r} is configured twice")
        generators[fitted.name] = fitted
    return generators


def _fit(
    config: PopularityConfig | CovisitationConfig, interactions: Interactions, as_of_ms: int
) -> CandidateGenerator:
    match config:
        case PopularityConfig():
            return PopularityGenerator.fit(
                interactions,
                as_of_ms=as_of_ms,
                half_life_days=config.half_life_days,
                unknown_age_days=config.unknown_age_days,
            )
        case CovisitationConfig():
            return CovisitationGenerator.fit(
                interactions,
                as_of_ms=as_of_ms,
                max_gap=config.max_gap,
                max_gap_s=config.max_gap_s,
                distance_decay=config.distance_decay,
                shrinkage=config.shrinkage,
                num_neighbours=config.num_neighbours,
            )
        case _:
            assert_never(config)


def _order_by_time(
    user: np.ndarray[tuple[int], np.dtype[np.int64]],
    time_ms: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A running number that ascends with time; earlier history (unknown times) keeps its order.

    A state's rows are ordered by the moment their feedback became visible, which differs from the
    order of watching where watches overlap.
    """
    order = np.empty(len(user), dtype=np.int64)
    order[np.lexsort((np.arange(len(user)), time_ms, user))] = np.arange(len(user))
    return order
