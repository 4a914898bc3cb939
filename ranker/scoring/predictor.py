"""Predictors behind one protocol: what turns candidate rows into predictions, by several routes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.bundle import ModelBundle
from ranker.data.features import FeatureSource
from ranker.scoring.factorised import FactorisedPredictor
from ranker.scoring.plain import PlainPredictor
from ranker.scoring.predict import ScoringCounts
from ranker.scoring.score_config import RuntimeName

Float64Array = npt.NDArray[np.float64]


class Predictor(Protocol):
    """Predicts all tasks of candidate rows."""

    def predict(self, rows: pa.Table, counts: ScoringCounts) -> dict[str, Float64Array]:
        """Task -> predictions [N] in label units, not calibrated; conditional tasks stay so.

        The bytes of the result are a function of ``rows`` alone.

        Args:
            rows: N canonical candidate rows, each request's rows side by side.
            counts: is added to.

        Raises:
            DataError: the state is newer than a request.
        """
        ...


def build_predictor(
    bundle: ModelBundle, source: FeatureSource, *, runtime: RuntimeName = "factorised"
) -> Predictor:
    """The predictor of a bundle and a state.

    Raises:
        DataError: the state does not belong to the bundle.
    """
    match runtime:
        case "factorised":
            return FactorisedPredictor(bundle, source)
        case "plain":
            return PlainPredictor(bundle, source)
