"""What `scoring.py` scores: candidate lists, and a bundle and a state to score them with.

Workload A's inputs, laid out as a batch job has them: 20 categorical features of 10 to 200,000 ids
and 10 numbers; half of them belong to the user or the request's context, half to the item. Users
and items have tables, candidates carry their request's context. The model is workload A's MMoE, its
weights random: what scoring costs does not depend on them, and nothing is said of quality.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ranker.bundle import BundleConfig, DataWindow, ModelBundle, build_bundle_model, save_bundle
from ranker.data.encode import Encoders, Scale
from ranker.data.features import FeatureSource, OwnerTable, encode_rows, standardise_columns
from ranker.data.history_state import HistoryState
from ranker.data.loader import make_batch
from ranker.data.state import save_state
from ranker.data.vocabulary import Vocabulary
from ranker.evaluation.calibrators import identity_calibrators
from ranker.models.build import ModelConfig
from ranker.schema import Schema
from ranker.score_weights import default_score_weights

NOW_MS = 1_704_067_200_000
NUM_USERS, NUM_ITEMS = 200_000, 100_000
NUM_CATEGORICAL, NUM_NUMBERS = 20, 10
CONTEXT_CATEGORICAL, CONTEXT_NUMBERS = 3, 1
CHUNK_REQUESTS = 1_000
LIST_LENGTH = 300
GOLDEN_ROWS = 7
MODEL = {
    "embedding_width": 16,
    "bottom": {
        "kind": "mmoe",
        "shared_widths": [],
        "num_experts": 8,
        "expert_widths": [256, 128],
    },
    "tower_widths": [64],
    "linear_part": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringData:
    """Where everything is."""

    bundle: Path
    state: Path


def feature_columns(owner: str) -> dict[str, int]:
    """Categorical features of an owner without its id, and how many ids each has."""
    sizes = np.geomspace(10, 50_000, NUM_CATEGORICAL - 2).round().astype(int).tolist()
    names = [f"cat_{number:02d}" for number in range(1, len(sizes) + 1)]
    all_of_them = dict(zip(names, sizes, strict=True))
    items = names[1::2]
    others = names[::2]
    context = others[-CONTEXT_CATEGORICAL:]
    users = [name for name in others if name not in context]
    return {
        name: all_of_them[name]
        for name in {"user": users, "item": items, "context": context}[owner]
    }


def number_columns(owner: str) -> list[str]:
    """Numeric features of an owner."""
    half = NUM_NUMBERS // 2
    bounds = {
        "item": (0, half),
        "user": (half, NUM_NUMBERS - CONTEXT_NUMBERS),
        "context": (NUM_NUMBERS - CONTEXT_NUMBERS, NUM_NUMBERS),
    }[owner]
    return [f"num_{number:02d}" for number in range(*bounds)]


def scoring_schema() -> Schema:
    """The log's schema; nothing is computed from a history."""
    features: list[dict[str, str]] = [
        {"name": "user_id", "kind": "categorical", "owner": "user"},
        {"name": "item_id", "kind": "categorical", "owner": "item"},
    ]
    for owner in ("user", "item", "context"):
        features += [
            {"name": name, "kind": "categorical", "owner": owner} for name in feature_columns(owner)
        ]
        features += [
            {"name": name, "kind": "numeric", "owner": owner} for name in number_columns(owner)
        ]
    return Schema.model_validate(
        {
            "name": "scoring",
            "log": {
                "user": "user_id",
                "item": "item_id",
                "time": "time_ms",
                "request": "request_id",
            },
            "user_table": True,
            "item_table": True,
            "features": features,
            "tasks": [
                {
                    "name": name,
                    "label": name,
                    "family": family,
                    "kind": "binary",
                    "score_weight": 1.0,
                }
                for name, family in (("engage", "engagement"), ("satisfy", "satisfaction"))
            ],
            "history": None,
        }
    )


def write_model(folder: Path, *, seed: int) -> ScoringData:
    """Write the bundle and the state."""
    rng = np.random.default_rng(seed)
    schema = scoring_schema()
    source = FeatureSource(
        schema=schema,
        encoders=_encoders(schema),
        history=HistoryState.empty(schema),
        users=OwnerTable(_owner_table("user", NUM_USERS, rng)),
        items=OwnerTable(_owner_table("item", NUM_ITEMS, rng)),
    )
    source.history.as_of_ms = NOW_MS
    config = BundleConfig(seed=seed, model=ModelConfig.model_validate(MODEL))
    model = build_bundle_model(config, schema, source.encoders).eval()
    bundle = ModelBundle(
        calibrators=identity_calibrators(schema.tasks, "random weights"),
        calibration_counts={},
        model=model,
        schema=schema,
        encoders=source.encoders,
        config=config,
        score_weights=default_score_weights(schema.tasks),
        data_window=DataWindow(first="none", last="none", rows=0, steps=0),
        optimizer={},
        weights_sha256="",
    )
    raw = _candidates(rng, first_request=0, num_requests=1, list_length=GOLDEN_ROWS)
    encoded = encode_rows(_canonical(raw, schema), source, learn=False)
    columns = standardise_columns(encoded.columns, source.encoders)
    data = ScoringData(bundle=folder / "bundle", state=folder / "state")
    with torch.no_grad():
        save_bundle(data.bundle, bundle, make_batch(columns, schema, source.encoders.sizes))
    save_state(data.state, source)
    return data


def write_candidates(path: Path, *, num_requests: int, seed: int) -> Path:
    """Write lists of `LIST_LENGTH` random items for ``num_requests`` random users."""
    rng = np.random.default_rng(seed)
    writer = None
    for first in range(0, num_requests, CHUNK_REQUESTS):
        num = min(CHUNK_REQUESTS, num_requests - first)
        table = _candidates(rng, first_request=first, num_requests=num, list_length=LIST_LENGTH)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return path


def write_rows_for_peers(folder: Path, data: ScoringData, *, num_requests: int, seed: int) -> None:
    """Write rows.parquet and rows.json: candidates with all their features, as peers predict them.

    A peer's users would join the tables and encode the ids first; here both have been done.
    """
    schema, rng = scoring_schema(), np.random.default_rng(seed)
    raw = _candidates(rng, first_request=0, num_requests=num_requests, list_length=LIST_LENGTH)
    columns = {name: raw.column(name) for name in raw.column_names}
    for owner, key in (("user", "user_id"), ("item", "item_id")):
        table = pq.read_table(data.state / f"{owner}s.parquet")  # its row is its id
        taken = table.take(raw.column(key).combine_chunks())
        columns |= {
            name.removeprefix("feature."): taken.column(name) for name in taken.column_names[1:]
        }
    sizes = _num_ids()
    num_ids = {
        f.name: sizes[schema.vocabulary_of(f)] for f in schema.features if f.kind == "categorical"
    }
    numeric = [feature.name for feature in schema.features if feature.kind == "numeric"]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({n: columns[n] for n in [*num_ids, *numeric]}), folder / "rows.parquet")
    tasks = [task.name for task in schema.tasks]
    document = {"num_ids": num_ids, "numeric": numeric, "tasks": tasks}
    (folder / "rows.json").write_text(json.dumps(document))


def _num_ids() -> dict[str, int]:
    """Vocabulary -> how many ids it has."""
    sizes = {"user": NUM_USERS, "item": NUM_ITEMS}
    for owner in ("user", "item", "context"):
        sizes |= feature_columns(owner)
    return sizes


def _encoders(schema: Schema) -> Encoders:
    sizes, scale = _num_ids(), Scale(mean=0.0, scale=1.0)
    return Encoders(
        vocabularies={
            name: Vocabulary(np.arange(sizes[name], dtype=np.int64)) for name in schema.vocabularies
        },
        standardisers={f.name: scale for f in schema.features if f.kind == "numeric"},
        label_scales={task.name: Scale(mean=0.3, scale=1.0) for task in schema.tasks},
    )


def _owner_table(owner: str, num_rows: int, rng: np.random.Generator) -> pa.Table:
    columns = {"id": pa.array(np.arange(num_rows, dtype=np.int64))}
    columns |= {f"feature.{n}": values for n, values in _values(owner, num_rows, rng).items()}
    return pa.table(columns)


def _values(owner: str, num_rows: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    values = {
        name: pa.array(rng.integers(0, size, num_rows))
        for name, size in feature_columns(owner).items()
    }
    return values | {n: pa.array(rng.standard_normal(num_rows)) for n in number_columns(owner)}


def _candidates(
    rng: np.random.Generator, *, first_request: int, num_requests: int, list_length: int
) -> pa.Table:
    """Raw candidate rows; a list's items are all different."""
    of_request = {
        "request_id": pa.array(first_request + np.arange(num_requests, dtype=np.int64)),
        "user_id": pa.array(rng.integers(0, NUM_USERS, num_requests)),
        "time_ms": pa.array(NOW_MS + np.sort(rng.integers(0, 86_400_000, num_requests))),
        **_values("context", num_requests, rng),
    }
    row = pa.array(np.repeat(np.arange(num_requests), list_length))
    table = pa.table(of_request).take(row)
    # strides of a random start and a step prime to the catalogue's size never meet
    start = rng.integers(0, NUM_ITEMS, num_requests)[:, None]
    step = rng.choice([7, 37, 8_191, 33_333, 49_999], num_requests)[:, None]
    item = (start + step * np.arange(list_length)) % NUM_ITEMS
    return table.append_column("item_id", pa.array(item.ravel()))


def _canonical(raw: pa.Table, schema: Schema) -> pa.Table:
    names = {"user_id": "user", "item_id": "item", "request_id": "request"}
    declared = {f.name for f in schema.features}
    return raw.rename_columns(
        [names.get(n, f"feature.{n}" if n in declared else n) for n in raw.column_names]
    )
