"""The rows of one arm that a quantile is taken of."""

from __future__ import annotations

import numpy as np

from ranker.experiment.metric import QuantileMeasure
from ranker.experiment.outcomes_table import Outcomes
from ranker.experiment.quantiles import QuantileSample


def quantile_sample(
    outcomes: Outcomes, measure: QuantileMeasure, *, arm: str, num_rows: int
) -> QuantileSample:
    """Rows of ``arm`` among the first ``num_rows`` in the order of days, users counted from 0."""
    span = outcomes.users_of(arm)
    users = outcomes.rows.users[:num_rows]
    in_arm = (users >= span.start) & (users < span.stop)
    return QuantileSample(
        values=outcomes.rows.column_by_name[measure.column][:num_rows][in_arm],
        user_codes=users[in_arm].astype(np.int64) - span.start,
    )
