"""Is a bundle whole, and does it still predict what it did, in every runtime?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ranker.atomic import MANIFEST
from ranker.bundle import (
    GOLDEN_FILE,
    UNCALIBRATED_FORMAT,
    ModelBundle,
    load_bundle,
    load_tensors,
    read_manifest,
)
from ranker.config import ConfigError, digest
from ranker.data.batch import Batch
from ranker.data.parquet import DataError
from ranker.manifest import find_damage
from ranker.scoring.factorised.replay import factorised_forward
from ranker.scoring.runtimes.forward import compiled_forward, exported_forward

GOLDEN_TOLERANCE = 1e-5
Replay = Callable[[Batch], Mapping[str, Tensor]]
"""A runtime's raw predictions [B] by task of an encoded batch."""
BuildReplay = Callable[[ModelBundle], Replay]
"""Makes a runtime ready for a bundle; `ConfigError` says why it can't be had here."""

AT_ONCE: Mapping[str, BuildReplay] = {
    "plain": lambda bundle: bundle.model.predict,
    "factorised": lambda bundle: factorised_forward(bundle.model, bundle.schema),
}
"""Those that need no time to get ready."""
RUNTIMES: Mapping[str, BuildReplay] = {
    **AT_ONCE,
    "compiled": lambda bundle: compiled_forward(bundle.model, bundle.schema),
    "onnx": lambda bundle: exported_forward(
        bundle.model, bundle.schema, int8=False, threads=torch.get_num_threads()
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found: problems in sentences, and the largest golden differences.

    ``golden_difference`` is by runtime and task; ``golden_calibrated`` by task, of calibrated
    predictions (empty in a bundle whose format has none). ``not_replayed``: runtime -> why not.
    """

    problems: tuple[str, ...]
    format: int
    files: int
    golden_rows: int
    golden_difference: Mapping[str, Mapping[str, float]]
    golden_calibrated: Mapping[str, float]
    not_replayed: Mapping[str, str]


def verify(folder: Path, *, runtimes: Mapping[str, BuildReplay] = AT_ONCE) -> Verification:
    """Check every file's sha256 and the schema's digest, and replay the golden rows.

    Args:
        folder: a bundle's.
        runtimes: each that can be had here replays the golden rows.

    Raises:
        DataError: not a bundle at all.
    """
    manifest = read_manifest(folder)
    problems = find_damage(folder, manifest["files"])
    replayed = _Replayed(by_runtime={}, not_replayed={})
    calibrated: Mapping[str, float] = {}
    num_rows = 0
    if not problems:
        bundle = load_bundle(folder)
        if manifest.get("schema_digest") != digest(bundle.schema):
            problems.append(f"{MANIFEST}: its schema_digest is not that of schema.yaml")
        golden = read_golden(folder, bundle, manifest["format"])
        num_rows = golden.batch.num_rows
        replayed = _replay(bundle, golden, runtimes)
        for name, differences in replayed.by_runtime.items():
            problems += _too_different(differences, f"golden rows, {name}")
        if golden.calibrated:
            calibrated = largest_differences(
                _calibrated(bundle, golden.predictions), golden.calibrated
            )
            problems += _too_different(calibrated, "golden rows, calibrated")
    return Verification(
        problems=tuple(problems),
        format=manifest["format"],
        files=len(manifest["files"]),
        golden_rows=num_rows,
        golden_difference=replayed.by_runtime,
        golden_calibrated=calibrated,
        not_replayed=replayed.not_replayed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replayed:
    by_runtime: Mapping[str, Mapping[str, float]]
    not_replayed: Mapping[str, str]


def _replay(bundle: ModelBundle, golden: Golden, runtimes: Mapping[str, BuildReplay]) -> _Replayed:
    by_runtime, not_replayed = {}, {}
    for name, build in runtimes.items():
        try:
            replay = build(bundle)
        except ConfigError as error:
            not_replayed[name] = str(error)
            continue
        with torch.no_grad():
            by_runtime[name] = largest_differences(replay(golden.batch), golden.predictions)
    return _Replayed(by_runtime=by_runtime, not_replayed=not_replayed)


def _calibrated(bundle: ModelBundle, predictions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    raw = {task: values.double().numpy() for task, values in predictions.items()}
    return {t: torch.from_numpy(values) for t, values in bundle.calibrators.apply(raw).items()}


def largest_differences(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, float]:
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
class Golden:
    """A bundle's golden rows and what it predicted for them; calibrated: none before format 3."""

    batch: Batch
    predictions: Mapping[str, Tensor]
    calibrated: Mapping[str, Tensor]


def read_golden(folder: Path, bundle: ModelBundle, bundle_format: int) -> Golden:
    """The golden rows of the bundle at ``folder``.

    Raises:
        DataError: features or predictions are missing.
    """
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
    return Golden(
        batch=Batch(features=by_group["feature"], labels={}, position=by_group["position"]),
        predictions=by_group["prediction"],
        calibrated=by_group["calibrated"],
    )
