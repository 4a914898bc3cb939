"""ModelBundle: a folder with everything scoring needs, and nothing pickled.

``manifest.json`` names every file's sha256; ``golden.safetensors`` holds a few encoded rows and
what the model predicted for them, so that `ranker.scoring.verification` can tell whether it still
does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ranker.atomic import MANIFEST, replacing_folder, write_json
from ranker.config import Config, ConfigError, digest, dump_yaml, load_config, parse_config
from ranker.data.batch import Batch
from ranker.data.encode import ENCODERS_FILE, Encoders
from ranker.data.parquet import DataError, read_table, write_table
from ranker.evaluation.calibration_counts import (
    COUNTS_FILE,
    CountsByWindow,
    counts_table,
    read_counts,
)
from ranker.evaluation.calibrators import (
    CALIBRATORS_FILE,
    Calibrators,
    identity_calibrators,
    read_calibrators,
)
from ranker.manifest import find_damage, folder_digests, is_intact, write_manifest
from ranker.models.build import ModelConfig, build_model
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema, load_schema
from ranker.score_weights import ScoreWeights
from ranker.tensor_file import read_tensors, write_tensors

GOLDEN_FILE = "golden.safetensors"
FORMAT = 3
KIND = "bundle"
UNCALIBRATED_FORMAT = 2  # is read, too: all but the calibrators was there
FILES = (
    "config.yaml",
    "schema.yaml",
    "score_weights.yaml",
    ENCODERS_FILE,
    "weights.safetensors",
    "optimizer.safetensors",
    GOLDEN_FILE,
    CALIBRATORS_FILE,
    COUNTS_FILE,
)
FILES_BY_FORMAT = {FORMAT: FILES, UNCALIBRATED_FORMAT: FILES[:-2]}
GOLDEN_ROWS = 32


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

    ``optimizer`` is the optimizers' state by parameter name and ``calibration_counts`` what the
    calibrators were fitted on, both for training on. The model's own predictions are raw: what
    people see has gone through ``calibrators``.
    """

    model: RankingModel
    schema: Schema
    encoders: Encoders
    config: BundleConfig
    score_weights: ScoreWeights
    calibrators: Calibrators
    calibration_counts: CountsByWindow
    data_window: DataWindow
    optimizer: Mapping[str, Tensor]
    weights_sha256: str


def build_bundle_model(
    config: BundleConfig, schema: Schema, encoders: Encoders, *, initial_embeddings: bool = True
) -> RankingModel:
    """The untrained model with a row for every id of ``encoders``; see `build_model`."""
    return build_model(
        config.model,
        schema,
        ids_by_vocabulary={name: v.ids for name, v in encoders.vocabularies.items()},
        label_scales=encoders.label_scales,
        standardisers=encoders.standardisers,
        seed=config.seed,
        initial_embeddings=initial_embeddings,
    )


def save_bundle(folder: Path, bundle: ModelBundle, golden: Batch) -> None:
    """Write a bundle in place of an earlier one, whole or not at all.

    Args:
        folder: where it goes.
        bundle: its parts (``weights_sha256`` is computed, not read).
        golden: a few encoded rows to be replayed by `verify`.
    """
    with replacing_folder(folder, kind=KIND) as temporary:
        (temporary / "config.yaml").write_text(dump_yaml(bundle.config), encoding="utf-8")
        (temporary / "schema.yaml").write_text(dump_yaml(bundle.schema), encoding="utf-8")
        weights_yaml = dump_yaml(bundle.score_weights)
        (temporary / "score_weights.yaml").write_text(weights_yaml, encoding="utf-8")
        bundle.encoders.save(temporary / ENCODERS_FILE)
        write_json(temporary / CALIBRATORS_FILE, bundle.calibrators.model_dump(mode="json"))
        write_table(temporary / COUNTS_FILE, counts_table(bundle.calibration_counts))
        tensors_by_file = {
            "weights": bundle.model.state_dict(),
            "optimizer": bundle.optimizer,
            "golden": _golden_tensors(bundle, golden),
        }
        for name, tensors in tensors_by_file.items():
            write_tensors(temporary / f"{name}.safetensors", tensors)
        write_manifest(
            temporary,
            {
                "kind": KIND,
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
    model = build_bundle_model(config, schema, encoders, initial_embeddings=False)
    _assign_weights(model, load_tensors(folder / "weights.safetensors"), folder)
    model.eval()
    calibrators, counts = _load_calibration(folder, manifest["format"], schema)
    return ModelBundle(
        model=model,
        schema=schema,
        encoders=encoders,
        config=config,
        score_weights=load_config(ScoreWeights, folder / "score_weights.yaml"),
        calibrators=calibrators,
        calibration_counts=counts,
        data_window=data_window,
        optimizer=load_tensors(folder / "optimizer.safetensors"),
        weights_sha256=manifest["files"]["weights.safetensors"],
    )


def _load_calibration(
    folder: Path, bundle_format: int, schema: Schema
) -> tuple[Calibrators, CountsByWindow]:
    if bundle_format == UNCALIBRATED_FORMAT:
        reason = f"the bundle is of format {UNCALIBRATED_FORMAT}, which had no calibrators"
        return identity_calibrators(schema.tasks, reason), {}
    path = folder / COUNTS_FILE
    return (
        read_calibrators(folder / CALIBRATORS_FILE, schema.tasks),
        read_counts(read_table(path), schema.tasks, str(path)),
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
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise DataError(f"{folder}: is no bundle")
    if not is_intact(manifest):
        raise DataError(f"{folder / MANIFEST}: changed or damaged: it differs from its own sha256")
    found = manifest.get("format")
    if found not in FILES_BY_FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        raise DataError(
            f"{folder}: bundle format {found}, this version reads {min(FILES_BY_FORMAT)} to "
            f"{FORMAT}; "
            + (
                "install a newer ranker"
                if newer
                else "train again or use the version that wrote it"
            )
        )
    files, window = manifest.get("files"), manifest.get("data_window")
    if not isinstance(files, dict) or not isinstance(window, dict):
        raise DataError(f"{folder / MANIFEST}: damaged: expected sections 'files', 'data_window'")
    for name in FILES_BY_FORMAT[found]:
        if name not in files:
            raise DataError(f"{folder / MANIFEST}: lists no {name}, which every bundle has")
    return manifest


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A bundle's tensors.

    Raises:
        DataError: missing, damaged, or not what safetensors can hold.
    """
    try:
        return read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from None


def _assign_weights(model: RankingModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Put ``weights`` in the model's place, not copied: a large table is in memory once."""
    for name, expected in model.state_dict().items():
        if name in weights and weights[name].dtype != expected.dtype:
            found = f"{name} is {weights[name].dtype}, not {expected.dtype}"
            raise DataError(f"{folder}: weights don't fit the config: {found}")
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise DataError(f"{folder}: weights don't fit the config: {error}") from None


def _golden_tensors(bundle: ModelBundle, batch: Batch) -> dict[str, Tensor]:
    bundle.model.eval()
    with torch.no_grad():
        predictions = bundle.model.predict(batch)
    raw = {task: values.double().numpy() for task, values in predictions.items()}
    calibrated = bundle.calibrators.apply(raw)
    return (
        {f"feature/{name}": values for name, values in batch.features.items()}
        | {f"position/{name}": values for name, values in batch.position.items()}
        | {f"prediction/{name}": values for name, values in predictions.items()}
        | {f"calibrated/{name}": torch.from_numpy(values) for name, values in calibrated.items()}
    )


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
