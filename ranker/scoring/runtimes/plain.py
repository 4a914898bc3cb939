"""The plain path: every candidate encoded and computed by itself; the measure of all others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.bundle import ModelBundle
from ranker.data.features import FeatureSource, encode_rows, standardise_columns
from ranker.scoring.predict import ScoringCounts, check_belongs, check_not_newer, predict_columns
from ranker.scoring.runtimes.forward import Forward
from ranker.scoring.stage_clock import stage

Float64Array = npt.NDArray[np.float64]


class PlainPredictor:
    """Predicts candidates with the model's forward pass, its own or another engine's."""

    def __init__(
        self, bundle: ModelBundle, source: FeatureSource, *, forward: Forward | None = None
    ) -> None:
        """See `predictor.build_predictor`; ``forward`` is the model's by default."""
        check_belongs(bundle, source)
        self._bundle, self._source, self._forward = bundle, source, forward

    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """Task -> predictions [N]; see `Predictor.predict`."""
        check_not_newer(self._source, rows)
        with stage("encode"):
            encoded = encode_rows(rows, self._source, learn=False)
            counts.rows += rows.num_rows
            counts.unknown_by_feature.update(encoded.unknown_by_feature)
            counts.missing_owners.update(encoded.missing_owners)
            columns = standardise_columns(encoded.columns, self._bundle.encoders)
        with stage("forward"):
            return predict_columns(self._bundle, columns, forward=self._forward)
