"""ModelBundle: a folder with everything scoring needs, and nothing pickled.

``manifest.json`` names every file's sha256; ``golden.safetensors`` holds a few encoded rows and
what the model predicted for them, so that `verify` can tell whether it still does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranker.atomic import MANIFEST, find_damage, folder_digests, replacing_folder, write_json
from ranker.config import Config, ConfigError, digest, dump_yaml, load_config, parse_config
from ranker.data.batch import Batch
from ranker.data.encode import ENCODERS_FILE, Encoders
from ranker.data.parquet import DataError
from ranker.models.build import ModelConfig, build_model
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema, load_schema
from ranker.score_weights import ScoreWeights
from ranker.tensor_file import read_tensors, write_tensors

FORMAT = 2
FILES = (
    "config.yaml",
    "schema.yaml",
    "score_weights.yaml",
    ENCODERS_FILE,
    "weights.safetensors",
    "optimizer.safetensors",
    "golden.safetensors",
)
GOLDEN_ROWS = 32
GOLDEN_TOLERANCE = 1e-5


class BundleConfig(Config):
    """What is needed to build the model anew."""

    seed: int
    model: ModelConfig


class DataWindow(Config):
    """The windows a bundle has been trained on, oldest and newest by label, and the rows."""

    first: str
    last: str
    rows: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBundle:
    """A loaded bundle; its model is in evaluation mode.

    ``optimizer`` is the optimizers' state by parameter name, for training on.
    """

    model: RankingModel
    schema: Schema
    encoders: Encoders
    config: BundleConfig
    score_weights: ScoreWeights
    data_window: DataWindow
    optimizer: Mapping[str, Tensor]
    weights_sha256: str


def build_bundle_model(config: BundleConfig, schema: Schema, encoders: Encoders) -> RankingModel:
    """The untrained model with a row for every id of ``encoders``."""
    return build_model(
        config.model,
        schema,
        ids_by_vocabulary={name: v.ids for name, v in encoders.vocabularies.items()},
        label_scales=encoders.label_scales,
        standardisers=encoders.standardisers,
        seed=config.seed,
    )


def save_bundle(folder: Path, bundle: ModelBundle, golden: Batch) -> None:
    """Write a bundle in place of an earlier one, whole or not at all.

    Args:
        folder: where it goes.
        bundle: its parts (``weights_sha256`` is computed, not read).
        golden: a few encoded rows to be replayed by `verify`.
    """
    with replacing_folder(folder) as temporary:
        (temporary / "config.yaml").write_text(dump_yaml(bundle.config), encoding="utf-8")
        (temporary / "schema.yaml").write_text(dump_yaml(bundle.schema), encoding="utf-8")
        weights_yaml = dump_yaml(bundle.score_weights)
        (temporary / "score_weights.yaml").write_text(weights_yaml, encoding="utf-8")
        bundle.encoders.save(temporary / ENCODERS_FILE)
        tensors_by_file = {
            "weights": bundle.model.state_dict(),
            "optimizer": bundle.optimizer,
            "golden": _golden_tensors(bundle.model, golden),
        }
        for name, tensors in tensors_by_file.items():
            write_tensors(temporary / f"{name}.safetensors", tensors)
        write_json(
            temporary / MANIFEST,
            {
                "kind": "bundle",
                "format": FORMAT,
                "schema_digest": digest(bundle.schema),
                "data_window": bundle.data_window.model_dump(),
                "files": folder_digests(temporary),
            },
        )


def load_bundle(folder: Path) -> ModelBundle:
    """Read a bundle after checking every file's sha256.

    Raises:
        DataError: not a bundle, damaged, of another format, or not what safetensors can hold.
    """
    manifest = read_manifest(folder)
    try:
        data_window = parse_config(
            DataWindow, manifest["data_window"], source=str(folder / MANIFEST)
        )
    except ConfigError as error:
        raise DataError(str(error)) from None
    problems = find_damage(folder, manifest["files"])
    if problems:
        raise DataError(f"{folder}: the bundle is damaged: {'; '.join(problems)}")
    schema = load_schema(folder / "schema.yaml")
    config = load_config(BundleConfig, folder / "config.yaml")
    encoders = Encoders.load(folder / ENCODERS_FILE)
    model = build_bundle_model(config, schema, encoders)
    try:
        model.load_state_dict(_load_tensors(folder / "weights.safetensors"))
    except RuntimeError as error:
        raise DataError(f"{folder}: weights don't fit the config: {error}") from None
    model.eval()
    return ModelBundle(
        model=model,
        schema=schema,
        encoders=encoders,
        config=config,
        score_weights=load_config(ScoreWeights, folder / "score_weights.yaml"),
        data_window=data_window,
        optimizer=_load_tensors(folder / "optimizer.safetensors"),
        weights_sha256=manifest["files"]["weights.safetensors"],
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """A bundle's manifest.

    Raises:
        DataError: not a bundle, or of another format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: is no bundle (no {MANIFEST})") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / MANIFEST}: damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "bundle":
        raise DataError(f"{folder}: is no bundle")
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{folder}: bundle format {manifest.get('format')}, this version reads {FORMAT}; "
            "train again or use the version that wrote it"
        )
    files, window = manifest.get("files"), manifest.get("data_window")
    if not isinstance(files, dict) or not isinstance(window, dict):
        raise DataError(f"{folder / MANIFEST}: damaged: expected sections 'files', 'data_window'")
    for name in FILES:
        if name not in files:
            raise DataError(f"{folder / MANIFEST}: lists no {name}, which every bundle has")
    return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found: problems in sentences, and the largest golden difference by task."""

    problems: tuple[str, ...]
    files: int
    golden_rows: int
    golden_difference: Mapping[str, float]


def verify(folder: Path) -> Verification:
    """Check every file's sha256 and replay the golden rows.

    Raises:
        DataError: not a bundle at all.
    """
    manifest = read_manifest(folder)
    problems = find_damage(folder, manifest["files"])
    differences: dict[str, float] = {}
    num_rows = 0
    if not problems:
        bundle = load_bundle(folder)
        batch, expected = _golden_batch(_load_tensors(folder / "golden.safetensors"), bundle.schema)
        num_rows = batch.num_rows
        with torch.no_grad():
            predictions = bundle.model.predict(batch)
        for task, values in predictions.items():
            scale = expected[task].abs().clamp(min=1.0)
            differences[task] = float(((values - expected[task]).abs() / scale).max())
            if not differences[task] <= GOLDEN_TOLERANCE:
                problems.append(
                    f"golden rows: {task} differs by {differences[task]:.2g} "
                    f"(allowed {GOLDEN_TOLERANCE:g})"
                )
    return Verification(
        problems=tuple(problems),
        files=len(manifest["files"]),
        golden_rows=num_rows,
        golden_difference=differences,
    )


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from None


def _golden_tensors(model: RankingModel, batch: Batch) -> dict[str, Tensor]:
    model.eval()
    with torch.no_grad():
        predictions = model.predict(batch)
    return (
        {f"feature/{name}": values for name, values in batch.features.items()}
        | {f"position/{name}": values for name, values in batch.position.items()}
        | {f"prediction/{name}": values for name, values in predictions.items()}
    )


def _golden_batch(tensors: Mapping[str, Tensor], schema: Schema) -> tuple[Batch, dict[str, Tensor]]:
    by_group: dict[str, dict[str, Tensor]] = {"feature": {}, "position": {}, "prediction": {}}
    for name, values in tensors.items():
        group, _, key = name.partition("/")
        by_group.setdefault(group, {})[key] = values
    names_by_group = {
        "feature": {feature.name for feature in schema.all_features},
        "prediction": {task.name for task in schema.tasks},
    }
    for group, names in names_by_group.items():
        missing = names - by_group[group].keys()
        if missing:
            raise DataError(f"golden rows: no {group} of {sorted(missing)}; save the bundle again")
    batch = Batch(features=by_group["feature"], labels={}, position=by_group["position"])
    return batch, by_group["prediction"]


def check_same_features(
    bundle: ModelBundle, schema: Schema, encoders: Encoders, where: str
) -> None:
    """Raise `DataError` unless data encoded with ``encoders`` means to the bundle what it says."""
    if digest(bundle.schema) != digest(schema):
        raise DataError(f"{where}: was prepared with another schema than the bundle's")
    if not (encoders.extends(bundle.encoders)):
        raise DataError(
            f"{where}: its vocabularies don't continue the bundle's; prepare it with the --state "
            "that belongs to the bundle's data, or from the same beginning"
        )


def predict_columns(
    bundle: ModelBundle, batches: list[Batch]
) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Task -> predictions over all ``batches``."""
    parts: dict[str, list[Tensor]] = {task.name: [] for task in bundle.schema.tasks}
    with torch.no_grad():
        for batch in batches:
            for task, values in bundle.model.predict(batch).items():
                parts[task].append(values)
    return {task: torch.cat(values).double().numpy() for task, values in parts.items()}
