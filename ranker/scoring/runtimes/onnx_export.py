"""A bundle's model as an ONNX file: any number of rows, histories of any length.

Inputs are encoded, standardised columns by the names of the encoded store (``feature.NAME``,
``device``), outputs the tasks' predictions by name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ranker.models.prediction_module import PredictionModule
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema
from ranker.scoring.runtimes.forward import example_batch, require_onnx

# Protocol buffers hold 2 GiB at most; larger weights go into a file beside the model's
_ONE_FILE_BYTES = 2**30


def export_onnx(model: RankingModel, schema: Schema, path: Path) -> Path:
    """Write ``model`` to ``path`` (and, if it is large, its weights to ``path``.data).

    Raises:
        RuntimeUnavailableError: the extra ``onnx`` is not installed.
    """
    require_onnx()
    module = PredictionModule(model).eval()
    columns = module.columns(example_batch(schema))
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            columns,
            dynamo=True,
            verbose=False,
            input_names=module.input_names(),
            output_names=list(module.outputs),
            dynamic_shapes=(_dynamic_shapes(module),),
        )
        assert program is not None
        weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        program.save(str(path), external_data=weight_bytes > _ONE_FILE_BYTES)
    return path


def quantise_onnx(path: Path, output: Path) -> Path:
    """Write a copy whose matrix products run in int8, weights fixed and activations by range.

    This changes predictions: measure what it costs before using it.
    """
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quietly():
        quantize_dynamic(str(path), str(output), weight_type=QuantType.QInt8)
    return output


def _dynamic_shapes(module: PredictionModule) -> tuple[dict[int, Any], ...]:
    """Which dimensions of each input may have any size; aligned sequences share theirs."""
    inputs = module.model.embedder.inputs
    rows, history = torch.export.Dim("rows", min=1), torch.export.Dim("history_length", min=1)
    shapes: list[dict[int, Any]] = []
    for number, name in enumerate(module.inputs):
        shape = {0: rows}
        if name in inputs.history:
            shape[1] = history
        elif name in inputs.sequences:
            shape[1] = torch.export.Dim(f"length_{number}", min=1)
        shapes.append(shape)
    return (*shapes, {0: rows}) if module.reads_device else tuple(shapes)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch and ONNX have to say of their own insides."""
    root = logging.getLogger()
    before = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
