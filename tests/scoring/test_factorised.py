from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_setting import ScoringSetting

from ranker.scoring.factorised import FactorisedPredictor, TermMemory
from ranker.scoring.plain import PlainPredictor
from ranker.scoring.predict import ScoringCounts
from ranker.scoring.predictor import Predictor

TOLERANCE = 1e-5
BOTTOMS = (
    {"kind": "shared_bottom", "widths": [9]},
    {"kind": "shared_bottom", "widths": [9, 7]},
    {"kind": "mmoe", "shared_widths": [], "num_experts": 3, "expert_widths": [8]},
    {"kind": "mmoe", "shared_widths": [], "num_experts": 3, "expert_widths": [8, 5]},
    {"kind": "mmoe", "shared_widths": [11], "num_experts": 4, "expert_widths": [6]},
    {
        "kind": "mmoe",
        "shared_widths": [11, 9],
        "num_experts": 1,
        "expert_widths": [6, 5],
        "gate_input": "input",
    },
)
HISTORY = ("history_item", "history_feedback", "history_topic")
EXCLUDED = (
    (),
    HISTORY,
    ("history_feedback",),
    ("item_id", "topic"),  # nothing attends to the history
    ("topics", "quality_proxy", "user_id", "hour"),
)
MMOE = {"kind": "mmoe", "shared_widths": [], "num_experts": 3, "expert_widths": [8, 5]}


def predict(
    predictor: Predictor, rows: pa.Table
) -> tuple[dict[str, npt.NDArray[np.float64]], ScoringCounts]:
    counts = ScoringCounts()
    return predictor.predict(rows, counts), counts


def assert_equal(
    got: Mapping[str, npt.NDArray[np.float64]], expected: Mapping[str, npt.NDArray[np.float64]]
) -> None:
    """Equal within the tolerance, relative to predictions beyond 1 (as golden rows are)."""
    assert got.keys() == expected.keys()
    for task, values in expected.items():
        assert got[task].shape == values.shape
        difference = np.abs(got[task] - values) / np.maximum(np.abs(values), 1)
        assert difference.max(initial=0) <= TOLERANCE, task


def nonzero(counts: ScoringCounts) -> tuple[int, dict[str, int], dict[str, int]]:
    return counts.rows, dict(+counts.unknown_by_feature), dict(counts.missing_owners)


@settings(max_examples=40, deadline=None)
@given(
    bottom=st.sampled_from(BOTTOMS),
    normalization=st.sampled_from(["none", "batch", "layer"]),
    input_normalization=st.sampled_from(["none", "batch"]),
    activation=st.sampled_from(["relu", "silu"]),
    tower_widths=st.sampled_from([[], [7], [7, 4]]),
    excluded=st.sampled_from(EXCLUDED),
    linear_part=st.booleans(),
    position_tower=st.sampled_from(["none", "shallow"]),
    admit_after=st.sampled_from([0, 3]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    memory=st.sampled_from([TermMemory(), TermMemory(catalogue_bytes=0)]),
    seed=st.integers(0, 10**6),
)
def test_any_model_predicts_as_the_plain_path_does(
    *,
    setting: ScoringSetting,
    bottom: dict[str, object],
    normalization: str,
    input_normalization: str,
    activation: str,
    tower_widths: list[int],
    excluded: tuple[str, ...],
    linear_part: bool,
    position_tower: str,
    admit_after: int,
    lengths: list[int],
    memory: TermMemory,
    seed: int,
) -> None:
    config = {
        "embedding_width": 4,
        "bottom": bottom,
        "normalization": normalization,
        "input_normalization": input_normalization,
        "activation": activation,
        "tower_widths": tower_widths,
        "exclude_features": list(excluded),
        "linear_part": linear_part,
        "position_tower": {"kind": position_tower},
        "admit_after": admit_after,
    }
    bundle, rows = setting.bundle(config, seed=seed), setting.rows(lengths, seed=seed)
    got, counts = predict(FactorisedPredictor(bundle, setting.source, memory=memory), rows)
    expected, expected_counts = predict(PlainPredictor(bundle, setting.source), rows)
    assert_equal(got, expected)
    assert nonzero(counts) == nonzero(expected_counts)
