"""What turns candidate rows into predictions, behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.bundle import ModelBundle
from ranker.data.features import FeatureSource, encode_rows, standardise_columns
from ranker.scoring.predict import ScoringCounts, check_belongs, predict_columns
from ranker.scoring.score_config import RuntimeName
from ranker.scoring.stage_clock import stage

Float64Array = npt.NDArray[np.float64]


class Predictor(Protocol):
    """Predicts all tasks of candidate rows."""

    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """Task -> predictions [N] in label units; conditional tasks stay conditional.

        The bytes of the result are a function of ``rows`` alone.

        Args:
            rows: N canonical candidate rows, each request's rows side by side.
            counts: is added to.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPredictor:
    """Encodes every row as training does and runs the model on it."""

    bundle: ModelBundle
    source: FeatureSource

    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """See `Predictor.predict`."""
        with stage("encode"):
            encoded = encode_rows(rows, self.source, learn=False)
            counts.rows += rows.num_rows
            counts.unknown_by_feature.update(encoded.unknown_by_feature)
            counts.missing_owners.update(encoded.missing_owners)
            columns = standardise_columns(encoded.columns, self.bundle.encoders)
        with stage("forward"):
            return predict_columns(self.bundle, columns)


def build_predictor(
    bundle: ModelBundle, source: FeatureSource, *, runtime: RuntimeName
) -> Predictor:
    """The predictor of a bundle and a state.

    Raises:
        DataError: the state does not belong to the bundle.
    """
    check_belongs(bundle, source)
    match runtime:
        case "plain":
            return PlainPredictor(bundle=bundle, source=source)
