"""The plain path's forward pass by several engines: eager, compiled, ONNX Runtime.

All compute every candidate by itself, from the same encoded columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ranker.config import ConfigError
from ranker.data.batch import Batch
from ranker.models.prediction_module import PredictionModule
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema

if TYPE_CHECKING:
    import onnxruntime

Forward = Callable[[Batch], dict[str, Tensor]]
_EXAMPLE_ROWS = (
    11  # unlike any sequence's length: a compiler takes equal sizes for one and the same
)
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class RuntimeUnavailableError(ConfigError):
    """A runtime can't be had here; the message says what to install."""


def eager_forward(model: RankingModel) -> Forward:
    """The model as it is."""
    return model.predict


def compiled_forward(model: RankingModel, schema: Schema) -> Forward:
    """The model compiled by torch.compile for batches of any size; takes half a minute.

    Raises:
        RuntimeUnavailableError: torch can't compile here, usually for want of a C++ compiler.
    """
    module = PredictionModule(model)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, of its insides
            compiled = torch.compile(module, dynamic=True)
            compiled(*module.columns(example_batch(schema)))
    except Exception as error:  # torch has a dozen kinds of them
        reason = str(error).strip().splitlines()
        raise RuntimeUnavailableError(
            f"runtime compiled: torch.compile failed ({reason[0] if reason else error!r}); it "
            "needs a C++ compiler (Debian, Ubuntu: apt-get install g++), or take another runtime"
        ) from None

    def forward(batch: Batch) -> dict[str, Tensor]:
        columns = module.columns(batch)
        alone = batch.num_rows == 1
        if alone:  # torch would compile once more for a single row
            columns = tuple(column.repeat_interleave(2, dim=0) for column in columns)
        predictions = [p[:1] if alone else p for p in compiled(*columns)]
        return dict(zip(module.outputs, predictions, strict=True))

    return forward


def onnx_forward(path: Path, model: RankingModel, *, threads: int) -> Forward:
    """The model in the file at ``path``, run by ONNX Runtime."""
    session = onnx_session(path, threads=threads)
    module = PredictionModule(model)
    names = module.input_names()

    def forward(batch: Batch) -> dict[str, Tensor]:
        columns = zip(names, module.columns(batch), strict=True)
        outputs = session.run(list(module.outputs), {n: c.numpy() for n, c in columns})
        return {t: torch.from_numpy(o) for t, o in zip(module.outputs, outputs, strict=True)}

    return forward


def exported_forward(model: RankingModel, schema: Schema, *, int8: bool, threads: int) -> Forward:
    """`onnx_forward` of the model, exported for the occasion; takes some ten seconds."""
    from ranker.scoring.runtimes.onnx_export import export_onnx, quantise_onnx

    with TemporaryDirectory(prefix="ranker-onnx-") as folder:
        path = export_onnx(model, schema, Path(folder) / "model.onnx")
        if int8:
            path = quantise_onnx(path, Path(folder) / "model_int8.onnx")
        return onnx_forward(path, model, threads=threads)


def onnx_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor."""
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def require_onnx() -> None:
    """Raise `RuntimeUnavailableError` unless the packages of the extra ``onnx`` are there."""
    from importlib.util import find_spec

    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if missing:
        raise RuntimeUnavailableError(
            f"ONNX needs {', '.join(missing)}, which the extra 'onnx' brings: "
            f"pip install {' '.join(ONNX_PACKAGES)} (in a checkout: pip install -e '.[onnx]')"
        )


def example_batch(schema: Schema, num_rows: int = _EXAMPLE_ROWS) -> Batch:
    """Rows of nothing: unknown ids, zeros, empty sequences."""
    features = {}
    for feature in schema.all_features:
        shape = (num_rows, feature.length) if feature.kind == "sequence" else (num_rows,)
        dtype = torch.float32 if feature.kind == "numeric" else torch.int32
        features[feature.name] = torch.zeros(shape, dtype=dtype)
    nowhere = torch.zeros(num_rows, dtype=torch.int32)
    return Batch(features=features, labels={}, position={"position": nowhere, "device": nowhere})
