"""An exported model as a folder: the ONNX file, what it was made of, and how exact it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ranker.atomic import replacing_folder
from ranker.bundle import ModelBundle, read_manifest
from ranker.config import digest
from ranker.data.loader import read_in_order
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore, Window
from ranker.manifest import folder_digests, write_manifest
from ranker.models.ranking_model import PREDICTION_ROWS
from ranker.scoring.runtimes.forward import Forward, onnx_forward
from ranker.scoring.runtimes.onnx_export import export_onnx, quantise_onnx
from ranker.scoring.verification import GOLDEN_TOLERANCE, largest_differences, read_golden

FORMAT = 1
KIND = "onnx"
MODEL_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written.

    Attributes:
        golden_rows: rows of the bundle that were replayed.
        difference: task -> largest difference from what the bundle predicted for them, relative
            where that is beyond 1.
        int8_difference: the same of the int8 model; empty without one.
    """

    golden_rows: int
    difference: dict[str, float]
    int8_difference: dict[str, float]


def export_folder(
    bundle: ModelBundle, bundle_folder: Path, output: Path, *, int8: bool, threads: int
) -> Export:
    """Write a bundle's model, and an int8 copy if asked for, in place of an earlier export.

    Raises:
        DataError: the exported model does not predict what the bundle did; nothing is written.
        RuntimeUnavailableError: the extra ``onnx`` is not installed.
    """
    golden = read_golden(bundle_folder, bundle, read_manifest(bundle_folder)["format"])
    with replacing_folder(output, kind=KIND) as temporary:
        path = export_onnx(bundle.model, bundle.schema, temporary / MODEL_FILE)
        forward = onnx_forward(path, bundle.model, threads=threads)
        difference = largest_differences(forward(golden.batch), golden.predictions)
        wrong = {task: d for task, d in difference.items() if not d <= GOLDEN_TOLERANCE}
        if wrong:
            raise DataError(
                f"{bundle_folder}: the exported model differs from the bundle on its golden rows "
                f"by {wrong} (allowed {GOLDEN_TOLERANCE:g}); nothing was written"
            )
        int8_difference = {}
        if int8:
            path = quantise_onnx(path, temporary / INT8_FILE)
            lossy = onnx_forward(path, bundle.model, threads=threads)
            int8_difference = largest_differences(lossy(golden.batch), golden.predictions)
        export = Export(
            golden_rows=golden.batch.num_rows,
            difference=difference,
            int8_difference=int8_difference,
        )
        _write_manifest(temporary, bundle, export)
    return export


def predict_window(
    forward: Forward, bundle: ModelBundle, store: EncodedStore, window: Window
) -> dict[str, Float64Array]:
    """Task -> predictions [N] of a prepared window's rows."""
    parts: dict[str, list[Tensor]] = {task.name: [] for task in bundle.schema.tasks}
    batches = read_in_order(
        store,
        window.start,
        window.stop,
        vocabulary_sizes=bundle.encoders.sizes,
        batch_rows=PREDICTION_ROWS,
    )
    with torch.no_grad():
        for batch in batches:
            for task, values in forward(batch).items():
                parts[task].append(values)
    return {task: torch.cat(values).double().numpy() for task, values in parts.items()}


def _write_manifest(folder: Path, bundle: ModelBundle, export: Export) -> None:
    write_manifest(
        folder,
        {
            "kind": KIND,
            "format": FORMAT,
            "bundle": bundle.weights_sha256,
            "schema_digest": digest(bundle.schema),
            "golden_rows": export.golden_rows,
            "largest_difference": export.difference,
            "int8_largest_difference": export.int8_difference,
            "files": folder_digests(folder),
        },
    )
