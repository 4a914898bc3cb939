"""A small schema with a trap in each name, its model and its batches: no two sizes alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ranker.data.batch import Batch
from ranker.data.encode import Scale
from ranker.models.build import ModelConfig, build_model
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema

NUM_ROWS = 7
IDS: dict[str, list[int] | list[str]] = {
    "user": [11, 5, 8, 101, 7, 3],
    "item": ["i3", "i1", "i2", "i9", "i5", "i4", "i6", "i7", "i8"],
    "type": ["a", "b", "c", "d"],  # ModuleDict has an attribute of that name
    "color.name": ["red", "green", "blue"],
    "device": ["phone", "tv"],
}
SCALES = {
    "click": Scale(mean=0.2, scale=1.0),
    "rating": Scale(mean=3.5, scale=1.2),
    "watch_time_s": Scale(mean=2.0, scale=0.8),
}


@pytest.fixture
def ids_by_vocabulary() -> dict[str, list[int] | list[str]]:
    return IDS


@pytest.fixture
def label_scales() -> dict[str, Scale]:
    return SCALES


@pytest.fixture
def schema() -> Schema:
    return Schema.model_validate(
        {
            "name": "small",
            "log": {
                "user": "user_id",
                "item": "item_id",
                "time": "time_ms",
                "position": "position",
                "device": "device",
            },
            "max_positions": 10,
            "features": [
                {"name": "user_id", "kind": "categorical", "owner": "user"},
                {"name": "item_id", "kind": "categorical", "owner": "item"},
                {"name": "type", "kind": "categorical", "owner": "item"},
                {
                    "name": "colors",
                    "kind": "sequence",
                    "owner": "item",
                    "vocabulary": "color.name",
                    "length": 3,
                },
                {"name": "price", "kind": "numeric", "owner": "item"},
                {"name": "age", "kind": "numeric", "owner": "user", "nullable": True},
            ],
            "tasks": [
                {"name": "click", "label": "clicked", "family": "engagement", "kind": "binary"},
                {
                    "name": "rating",
                    "label": "stars",
                    "family": "satisfaction",
                    "kind": "regression",
                },
                {
                    "name": "watch_time_s",
                    "label": "watched",
                    "family": "engagement",
                    "kind": "regression",
                    "loss": "squared_log1p",
                },
            ],
            "history": {
                "length": 5,
                "feedback": ["click"],
                "keys": ["type"],
                "rates": ["click"],
            },
        }
    )


@pytest.fixture
def make_batch(schema: Schema) -> Callable[..., Batch]:
    """A random batch; the first row has an empty history and no colours, the labels have gaps."""

    def make(num_rows: int = NUM_ROWS, seed: int = 0) -> Batch:
        random = torch.Generator().manual_seed(seed)
        features = {}
        for feature in schema.all_features:
            if feature.kind == "numeric":
                features[feature.name] = torch.randn(num_rows, generator=random)
                continue
            vocabulary = schema.vocabulary_of(feature)
            size = (
                schema.num_feedback_codes if vocabulary == "feedback" else 1 + len(IDS[vocabulary])
            )
            shape = (num_rows,) if feature.kind == "categorical" else (num_rows, feature.length)
            indices = torch.randint(1, size, shape, generator=random)
            if feature.kind == "sequence":
                indices[:, 0] = 0
                indices[:1] = 0
            features[feature.name] = indices
        features["age"][::3] = torch.nan
        labels = {
            "click": (torch.rand(num_rows, generator=random) < 0.4).float(),
            "rating": torch.randint(1, 6, (num_rows,), generator=random).float(),
            "watch_time_s": torch.rand(num_rows, generator=random) * 60,
        }
        labels["rating"][1:] = torch.nan
        position = {
            "position": torch.randint(0, 11, (num_rows,), generator=random),
            "device": torch.randint(0, 3, (num_rows,), generator=random),
        }
        return Batch(features=features, labels=labels, position=position)

    return make


@pytest.fixture
def make_model(schema: Schema) -> Callable[..., RankingModel]:
    def make(config: ModelConfig, seed: int = 0) -> RankingModel:
        return build_model(
            config, schema, ids_by_vocabulary=IDS, label_scales=SCALES, standardisers={}, seed=seed
        )

    return make
