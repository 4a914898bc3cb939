from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_setting import ScoringSetting

from ranker.data.features import encode_rows, standardise_columns
from ranker.data.loader import make_batch
from ranker.data.parquet import DataError
from ranker.scoring.factorised import factorised, pieces
from ranker.scoring.factorised.factorised import FactorisedPredictor, TermMemory
from ranker.scoring.factorised.replay import factorised_forward
from ranker.scoring.predict import ScoringCounts
from ranker.scoring.runtimes.plain import PlainPredictor
from ranker.scoring.runtimes.predictor import Predictor, build_predictor
from ranker.scoring.runtimes.runtime_name import RuntimeName

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
CONFIG = {
    "embedding_width": 4,
    "bottom": {"kind": "mmoe", "shared_widths": [], "num_experts": 3, "expert_widths": [8, 5]},
    "tower_widths": [7],
}
EXCLUDED = (
    (),
    HISTORY,
    ("history_feedback",),
    ("item_id", "topic"),  # nothing attends to the history
    ("topics", "quality_proxy", "user_id", "hour"),
)


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


@settings(max_examples=25, deadline=None)
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
    encoded = encode_rows(rows, setting.source, learn=False).columns
    columns = standardise_columns(encoded, bundle.encoders)
    batch = make_batch(columns, bundle.schema, bundle.encoders.sizes)
    with torch.no_grad():
        replayed = factorised_forward(bundle.model, bundle.schema)(batch)
    assert_equal({task: values.double().numpy() for task, values in replayed.items()}, expected)


def test_requests_that_see_different_pending_events(setting: ScoringSetting) -> None:
    """Counts change with the moment as feedback becomes visible: item terms too."""
    history = setting.source.history
    events = history.recent.take(np.arange(23))
    minutes = np.sort(np.random.default_rng(2).integers(0, 9, 23))
    pending = replace(events, visible_ms=history.as_of_ms + 60_000 * minutes)
    source = replace(setting.source, history=replace(history, pending=pending))
    bundle = setting.bundle(CONFIG)
    lengths = [13, 1, 40, 7, 29, 31, 3, 17, 22, 5]
    rows = setting.rows(lengths, within_ms=600_000)
    got, _ = predict(FactorisedPredictor(bundle, source), rows)
    expected, _ = predict(PlainPredictor(bundle, source), rows)
    assert_equal(got, expected)
    without, _ = predict(PlainPredictor(bundle, setting.source), rows)
    changed = np.abs(without["click"] - expected["click"]) > 100 * TOLERANCE
    assert changed.sum() > 10, "the events must matter for the test to mean something"


def shuffled(values: pa.ChunkedArray, share: float, rng: np.random.Generator) -> pa.Array:
    """Some of the values exchanged for those of other rows."""
    place = np.arange(len(values))
    moved = np.flatnonzero(rng.random(len(values)) < share)
    place[moved] = rng.permutation(moved)
    return values.take(pa.array(place)).combine_chunks()


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_log_that_holds_all_features_whose_values_vary_within_lists_and_items(
    setting: ScoringSetting, share: float
) -> None:
    """Nothing is assumed of a column: what varies is computed as often as it does."""
    rng = np.random.default_rng(5)
    rows = setting.with_features(setting.rows([23, 1, 17, 40, 9]))
    for number, name in enumerate(rows.column_names):
        if name.startswith("feature."):
            rows = rows.set_column(number, name, shuffled(rows.column(name), share, rng))
    bundle = setting.bundle(CONFIG, tableless=True)
    got, counts = predict(FactorisedPredictor(bundle, setting.tableless), rows)
    expected, expected_counts = predict(PlainPredictor(bundle, setting.tableless), rows)
    assert_equal(got, expected)
    assert nonzero(counts) == nonzero(expected_counts)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every limit is exceeded by a few rows."""
    monkeypatch.setattr(pieces, "PIECE_ROWS", 19)
    monkeypatch.setattr(pieces, "PIECE_RUNS", 3)
    monkeypatch.setattr(pieces, "BLOCK_ROWS", 8)
    monkeypatch.setattr(factorised, "MIN_SHARD_ITEMS", 11)
    yield


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("memory", [TermMemory(), TermMemory(catalogue_bytes=0, shard_bytes=0)])
def test_lists_longer_and_shorter_than_a_piece(setting: ScoringSetting, memory: TermMemory) -> None:
    bundle = setting.bundle(CONFIG)
    rows = setting.rows([50, 1, 1, 1, 1, 1, 19, 2, 18, 1, 3, 60, 1])
    got, counts = predict(FactorisedPredictor(bundle, setting.source, memory=memory), rows)
    expected, expected_counts = predict(PlainPredictor(bundle, setting.source), rows)
    assert_equal(got, expected)
    assert nonzero(counts) == nonzero(expected_counts)


@pytest.mark.parametrize("memory", [TermMemory(), TermMemory(catalogue_bytes=0)])
def test_bytes_depend_on_the_shard_alone(setting: ScoringSetting, memory: TermMemory) -> None:
    """Neither on what was scored before nor on the number of cores."""
    bundle = setting.bundle(CONFIG)
    first, second = setting.rows([31, 5, 44], seed=1), setting.rows([8, 61, 2, 30], seed=2)
    fresh, _ = predict(FactorisedPredictor(bundle, setting.source, memory=memory), second)
    cores = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            predictor = FactorisedPredictor(bundle, setting.source, memory=memory)
            predict(predictor, first)
            later, _ = predict(predictor, second)
            for task, values in fresh.items():
                assert values.tobytes() == later[task].tobytes()
    finally:
        torch.set_num_threads(cores)


@pytest.mark.parametrize("runtime", ["factorised", "plain"])
def test_no_position_can_change_a_prediction(setting: ScoringSetting, runtime: RuntimeName) -> None:
    bundle = setting.bundle(CONFIG)
    assert bundle.model.position_tower is not None
    rows = setting.rows([23, 4, 16])
    predictor = build_predictor(bundle, setting.source, runtime=runtime)
    without, _ = predict(predictor, rows)
    for position in (0, 3, 999):
        positions = pa.array(np.full(rows.num_rows, position, dtype=np.int32))
        placed, _ = predict(predictor, rows.append_column("position", positions))
        for task, values in without.items():
            assert values.tobytes() == placed[task].tobytes()


@pytest.mark.parametrize("runtime", ["factorised", "plain"])
def test_lists_of_none_and_of_one(setting: ScoringSetting, runtime: RuntimeName) -> None:
    bundle = setting.bundle(CONFIG)
    predictor = build_predictor(bundle, setting.source, runtime=runtime)
    none, counts = predict(predictor, setting.rows([]))
    assert {len(values) for values in none.values()} == {0}
    assert counts.rows == 0
    one, counts = predict(predictor, setting.rows([1]))
    assert {len(values) for values in one.values()} == {1}
    assert counts.rows == 1


def test_state_newer_than_a_request_is_rejected(setting: ScoringSetting) -> None:
    rows = setting.rows([5, 3])
    early = pa.array(np.asarray(rows.column("time_ms")) - 2 * 86_400_000)
    rows = rows.set_column(rows.column_names.index("time_ms"), "time_ms", early)
    predictor = FactorisedPredictor(setting.bundle(CONFIG), setting.source)
    with pytest.raises(DataError, match="newer than 8 of 8 rows"):
        predictor.predict(rows, ScoringCounts())
