"""How much each task counts in the score: a small file that people edit, beside the model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from ranker.config import Config, ConfigError
from ranker.schema import TaskSpec, Weight


class ScoreWeights(Config):
    """How predictions become a score; a task not named in ``weights`` weighs 0."""

    combination: Literal["weighted_product", "weighted_sum", "rank_normalised_sum"] = (
        "weighted_product"
    )
    weights: dict[str, Weight]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(weight > 0 for weight in self.weights.values()):
            raise ValueError(
                "all score weights are 0, so every candidate would score alike; "
                "give at least one task a weight > 0"
            )
        return self


def default_score_weights(tasks: Sequence[TaskSpec]) -> ScoreWeights:
    """The weighted product with the schema's default weights.

    Raises:
        ConfigError: the schema gives no task a score weight.
    """
    if not any(task.score_weight > 0 for task in tasks):
        raise ConfigError(
            "no task has a score_weight above 0, so every candidate would score alike; "
            "give at least one, e.g. score_weight: 1"
        )
    return ScoreWeights(weights={task.name: task.score_weight for task in tasks})


def check_score_weights(score_weights: ScoreWeights, *, tasks: Sequence[TaskSpec]) -> None:
    """Compare the weights' names with the schema's.

    Raises:
        ValueError: a weight for an unknown task; the message lists the known ones.
    """
    known = [task.name for task in tasks]
    for name in score_weights.weights:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"score weights: unknown task {name!r}{hint} (tasks: {known})")
