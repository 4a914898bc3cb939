"""A position in the candidates' file means nothing to a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import Chain, run_ranker


@pytest.mark.parametrize("combination", ["weighted_product", "weighted_sum"])
def test_no_position_of_a_candidate_changes_its_score(
    combination: str, chain: Chain, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.yaml"
    weights.write_text(
        f"combination: {combination}\nweights: {{click: 1, like: 2, dismissed: 3}}\n"
    )
    candidates = pq.read_table(chain.candidates)
    assert "position" not in candidates.column_names
    positions = np.random.default_rng(7).integers(0, 9, candidates.num_rows)
    pq.write_table(
        candidates.append_column("position", pa.array(positions)), tmp_path / "placed.parquet"
    )
    scored = []
    for name, path in (("without", chain.candidates), ("placed", tmp_path / "placed.parquet")):
        words = ["--bundle", chain.bundle, "--state", chain.state, "--candidates", path]
        output = tmp_path / f"{name}-slates.parquet"
        ran = run_ranker("score", *words, "--score-weights", weights, "--output", output)
        assert ran.code == 0, ran.err
        scored.append(pd.read_parquet(output).drop(columns="position", errors="ignore"))
    pd.testing.assert_frame_equal(*scored)
