"""A made-up model and batch on which training steps can be timed without any data.

Shapes: ``B`` rows of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ranker.data.batch import Batch
from ranker.data.encode import Scale
from ranker.models.build import MMoEConfig, ModelConfig, build_model
from ranker.models.ranking_model import RankingModel
from ranker.schema import FeatureSpec, LogColumns, Schema, TaskSpec

BASE_RATES = {"engage": 0.3, "satisfy": 0.04}
# ids are drawn as size · uniform ** this: few are frequent, as in logs
_ID_SKEW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSizes:
    """Sizes of the model and of its batch; as they are, a middling MMoE, experts on the input.

    The features' vocabularies grow geometrically from the smallest to the largest.
    """

    batch_rows: int = 4096
    num_categorical: int = 20
    num_numeric: int = 10
    smallest_vocabulary: int = 10
    largest_vocabulary: int = 100_000
    embedding_width: int = 16
    num_experts: int = 8
    expert_widths: tuple[int, ...] = (256, 128)
    tower_widths: tuple[int, ...] = (64,)

    @property
    def vocabularies(self) -> dict[str, int]:
        """Categorical feature -> number of its ids."""
        sizes = np.geomspace(
            self.smallest_vocabulary, self.largest_vocabulary, self.num_categorical
        )
        return {f"category_{number}": round(size) for number, size in enumerate(sizes)}

    @property
    def numbers(self) -> tuple[str, ...]:
        """Numeric features."""
        return tuple(f"number_{number}" for number in range(self.num_numeric))


def trial_model(sizes: TrialSizes) -> RankingModel:
    """An untrained model with two binary tasks, without dropout."""
    categorical = [
        FeatureSpec(name=name, kind="categorical", owner="item") for name in sizes.vocabularies
    ]
    numeric = [FeatureSpec(name=name, kind="numeric", owner="item") for name in sizes.numbers]
    schema = Schema(
        name="trial",
        log=LogColumns(user="user_id", item="item_id", time="time_ms"),
        features=(*categorical, *numeric),
        tasks=tuple(
            TaskSpec(name=task, label=f"{task}_label", family="engagement", kind="binary")
            for task in BASE_RATES
        ),
        history=None,
    )
    bottom = MMoEConfig(
        shared_widths=(),
        num_experts=sizes.num_experts,
        expert_widths=sizes.expert_widths,
        expert_dropout=0.0,
    )
    config = ModelConfig(
        embedding_width=sizes.embedding_width,
        bottom=bottom,
        tower_widths=sizes.tower_widths,
        id_dropout=0.0,
        linear_part=False,
    )
    return build_model(
        config,
        schema,
        ids_by_vocabulary={name: np.arange(size) for name, size in sizes.vocabularies.items()},
        label_scales={task: Scale(mean=rate, scale=1.0) for task, rate in BASE_RATES.items()},
        standardisers={},
        seed=0,
    )


def trial_batch(sizes: TrialSizes, *, rng: np.random.Generator) -> Batch:
    """A batch that fits `trial_model`; its labels are chance."""
    rows = sizes.batch_rows
    features: dict[str, torch.Tensor] = {}
    for name, size in sizes.vocabularies.items():
        ids = 1 + np.floor(size * rng.random(rows) ** _ID_SKEW)  # [B], 1 .. size
        features[name] = torch.from_numpy(ids.astype(np.int32))
    for name in sizes.numbers:
        features[name] = torch.from_numpy(rng.standard_normal(rows, dtype=np.float32))
    labels = {
        task: torch.from_numpy((rng.random(rows) < rate).astype(np.float32))
        for task, rate in BASE_RATES.items()
    }
    return Batch(features=features, labels=labels, position={})
