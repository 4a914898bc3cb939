"""Is a bundle whole, and does it still predict what it did, in every runtime?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ranker.atomic import MANIFEST, find_damage
from ranker.bundle import (
    GOLDEN_FILE,
    UNCALIBRATED_FORMAT,
    ModelBundle,
    load_bundle,
    load_tensors,
    read_manifest,
)
from ranker.config import digest
from ranker.data.batch import Batch
from ranker.data.parquet import DataError

GOLDEN_TOLERANCE = 1e-5
Replay = Callable[[ModelBundle, Batch], Mapping[str, Tensor]]
"""A runtime's raw predictions [B] by task of an encoded batch."""


def replay_eager(bundle: ModelBundle, batch: Batch) -> Mapping[str, Tensor]:
    """The model as it is: the reference."""
    with torch.no_grad():
        return bundle.model.predict(batch)


EAGER: Mapping[str, Replay] = {"eager": replay_eager}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found: problems in sentences, and the largest golden differences.

    ``golden_difference`` is by runtime and task; ``golden_calibrated`` by task, of calibrated
    predictions (empty in a bundle whose format has none).
    """

    problems: tuple[str, ...]
    format: int
    files: int
    golden_rows: int
    golden_difference: Mapping[str, Mapping[str, float]]
    golden_calibrated: Mapping[str, float]


def verify(folder: Path, *, runtimes: Mapping[str, Replay] = EAGER) -> Verification:
    """Check every file's sha256 and the schema's digest, and replay the golden rows.

    Args:
        folder: a bundle's.
        runtimes: each replays the golden rows; calibrated predictions are those of the first that
            predicts as it should.

    Raises:
        DataError: not a bundle at all.
    """
    manifest = read_manifest(folder)
    problems = find_damage(folder, manifest["files"])
    by_runtime: dict[str, Mapping[str, float]] = {}
    calibrated: Mapping[str, float] = {}
    num_rows = 0
    if not problems:
        bundle = load_bundle(folder)
        if manifest.get("schema_digest") != digest(bundle.schema):
            problems.append(f"{MANIFEST}: its schema_digest is not that of schema.yaml")
        golden = _read_golden(folder, bundle, manifest["format"])
        num_rows = golden.batch.num_rows
        for name, replay in runtimes.items():
            found = replay(bundle, golden.batch)
            by_runtime[name] = _differences(found, golden.predictions)
            different = _too_different(by_runtime[name], f"golden rows, {name}")
            problems += different
            if golden.calibrated and not calibrated and not different:
                raw = {task: values.double().numpy() for task, values in found.items()}
                applied = bundle.calibrators.apply(raw)
                tensors = {task: torch.from_numpy(values) for task, values in applied.items()}
                calibrated = _differences(tensors, golden.calibrated)
                problems += _too_different(calibrated, "golden rows, calibrated")
    return Verification(
        problems=tuple(problems),
        format=manifest["format"],
        files=len(manifest["files"]),
        golden_rows=num_rows,
        golden_difference=by_runtime,
        golden_calibrated=calibrated,
    )


def _differences(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> Mapping[str, float]:
    """Task -> the largest difference, relative where values exceed 1."""
    return {
        task: float(((values - expected[task]).abs() / expected[task].abs().clamp(min=1.0)).max())
        for task, values in found.items()
    }


def _too_different(differences: Mapping[str, float], where: str) -> list[str]:
    return [
        f"{where}: {task} differs by {difference:.2g} (allowed {GOLDEN_TOLERANCE:g})"
        for task, difference in differences.items()
        if not difference <= GOLDEN_TOLERANCE  # NaN is a difference
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Golden:
    batch: Batch
    predictions: Mapping[str, Tensor]
    calibrated: Mapping[str, Tensor]  # empty before format 3


def _read_golden(folder: Path, bundle: ModelBundle, bundle_format: int) -> _Golden:
    by_group: dict[str, dict[str, Tensor]] = {
        group: {} for group in ("feature", "position", "prediction", "calibrated")
    }
    for name, values in load_tensors(folder / GOLDEN_FILE).items():
        group, _, key = name.partition("/")
        by_group.setdefault(group, {})[key] = values
    tasks = {task.name for task in bundle.schema.tasks}
    names_by_group = {
        "feature": {feature.name for feature in bundle.schema.all_features},
        "prediction": tasks,
        "calibrated": tasks if bundle_format > UNCALIBRATED_FORMAT else set(),
    }
    for group, names in names_by_group.items():
        missing = names - by_group[group].keys()
        if missing:
            raise DataError(f"golden rows: no {group} of {sorted(missing)}; save the bundle again")
    return _Golden(
        batch=Batch(features=by_group["feature"], labels={}, position=by_group["position"]),
        predictions=by_group["prediction"],
        calibrated=by_group["calibrated"],
    )
