"""Models of random weights, and candidate lists for them, on the synthetic log's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from ranker.bundle import BundleConfig, DataWindow, ModelBundle, build_bundle_model
from ranker.config import parse_config
from ranker.data.features import FeatureSource
from ranker.evaluation.calibrators import identity_calibrators
from ranker.models.build import ModelConfig
from ranker.score_weights import default_score_weights

DAY_MS = 86_400_000


class ScoringSetting:
    """A state, and bundles and candidates that go with it.

    Attributes:
        source: what the synthetic log's last day left behind.
        tableless: the same, as if the log itself held the users' and items' features.
    """

    def __init__(self, source: FeatureSource) -> None:
        self.source = source
        schema = source.schema.model_copy(update={"user_table": False, "item_table": False})
        self.tableless = replace(source, schema=schema, users=None, items=None)

    def bundle(
        self, config: Mapping[str, object], *, seed: int = 0, tableless: bool = False
    ) -> ModelBundle:
        """A bundle of any model config whose weights, statistics and tables are all random."""
        source = self.tableless if tableless else self.source
        model_config = parse_config(ModelConfig, dict(config), source="test")
        bundle_config = BundleConfig(seed=seed, model=model_config)
        model = build_bundle_model(bundle_config, source.schema, source.encoders).eval()
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.2)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.add_(torch.randn(buffer.shape, generator=random), alpha=0.3)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.3, 2.0, generator=random)
                elif name.endswith("occurrences"):
                    buffer.random_(0, 5, generator=random)
        return ModelBundle(
            model=model,
            schema=source.schema,
            encoders=source.encoders,
            config=bundle_config,
            score_weights=default_score_weights(source.schema.tasks),
            calibrators=identity_calibrators(source.schema.tasks, "nothing to fit them on"),
            calibration_counts={},
            data_window=DataWindow(first="a", last="b", rows=1, steps=1),
            optimizer={},
            weights_sha256="",
        )

    def rows(self, lengths: Sequence[int], *, seed: int = 0, within_ms: int = DAY_MS) -> pa.Table:
        """Canonical candidates: lists of ``lengths``, some users and items never seen before.

        Requests are made within ``within_ms`` from the state's moment on.
        """
        rng = np.random.default_rng(seed)
        vocabularies = self.source.encoders.vocabularies
        users, items = vocabularies["user"].ids, vocabularies["item"].ids
        requests = np.repeat(np.arange(len(lengths)), lengths)
        user = rng.choice(np.append(users, users.max() + 1), len(lengths))[requests]
        item = rng.choice(np.array([*items, "never seen", "nor this"]), len(requests))
        offset_ms = rng.integers(0, within_ms + 1, len(lengths))
        device = rng.choice(np.array(["phone", "tv", "fridge", None], dtype=object), len(lengths))
        return pa.table(
            {
                "user": pa.array(user),
                "item": pa.array(item),
                "request": pa.array(requests),
                "time_ms": pa.array((self.source.history.as_of_ms + offset_ms)[requests]),
                "device": pa.array(device[requests], type=pa.string()),
                "feature.device": pa.array(device[requests], type=pa.string()),
            }
        )

    def with_features(self, rows: pa.Table) -> pa.Table:
        """``rows`` as the tableless log would hold them: with the users' and items' features."""
        for owner, table in (("user", self.source.users), ("item", self.source.items)):
            assert table is not None
            taken, _ = table.lookup(rows.column(owner))
            for name in taken.column_names[1:]:
                rows = rows.append_column(name, taken.column(name))
        return rows
