from pathlib import Path

import numpy as np
import pytest
from scoring_setting import ScoringSetting

from ranker.scoring.predict import ScoringCounts
from ranker.scoring.runtimes import forward
from ranker.scoring.runtimes.forward import RuntimeUnavailableError, example_batch, require_onnx
from ranker.scoring.runtimes.predictor import build_predictor, choose_runtime
from ranker.scoring.runtimes.runtime_name import EXACT_RUNTIMES, RuntimeName

CONFIG = {
    "embedding_width": 4,
    "bottom": {"kind": "mmoe", "shared_widths": [6], "num_experts": 3, "expert_widths": [8, 5]},
    "tower_widths": [7],
    "admit_after": 2,
}
TOLERANCE = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "normalization"), [("compiled", "batch"), ("onnx", "batch"), ("onnx", "layer")]
)
def test_exact_runtimes_predict_as_the_plain_one_does(
    setting: ScoringSetting, runtime: RuntimeName, normalization: str
) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    bundle = setting.bundle({**CONFIG, "normalization": normalization})
    other = build_predictor(bundle, setting.source, runtime=runtime)
    plain = build_predictor(bundle, setting.source, runtime="plain")
    for lengths in ([23, 1, 17], [1], [40, 9]):
        rows = setting.rows(lengths, seed=len(lengths))
        counts, expected_counts = ScoringCounts(), ScoringCounts()
        got = other.predict(rows, counts)
        for task, expected in plain.predict(rows, expected_counts).items():
            difference = np.abs(got[task] - expected) / np.maximum(np.abs(expected), 1)
            assert difference.max() <= TOLERANCE
        assert counts == expected_counts


@pytest.mark.slow
def test_int8_is_near_and_not_exact(setting: ScoringSetting) -> None:
    """Lossy, so that nobody gets it without asking."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert "onnx_int8" not in EXACT_RUNTIMES
    bundle, rows = setting.bundle(CONFIG), setting.rows([23, 17])
    lossy = build_predictor(bundle, setting.source, runtime="onnx_int8")
    got = lossy.predict(rows, ScoringCounts())["click"]
    plain = build_predictor(bundle, setting.source, runtime="plain")
    expected = plain.predict(rows, ScoringCounts())["click"]
    assert TOLERANCE < np.abs(got - expected).max() < 0.2


def test_runtime_that_would_be_done_first_is_chosen(setting: ScoringSetting) -> None:
    bundle, rows = setting.bundle(CONFIG), setting.rows([23, 17])
    choice = choose_runtime(
        bundle, setting.source, rows, num_rows=10**6, runtimes=("plain", "factorised")
    )
    assert [timing.runtime for timing in choice.timings] == ["plain", "factorised"]
    seconds = {timing.runtime: timing.seconds_for(10**6) for timing in choice.timings}
    assert choice.runtime == min(seconds, key=seconds.__getitem__)
    assert len(choice.predictor.predict(rows, ScoringCounts())["click"]) == rows.num_rows


def test_missing_onnx_packages_are_named(
    setting: ScoringSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ONNX_PACKAGES", ("json", "no_such_onnx"))
    with pytest.raises(RuntimeUnavailableError, match=r"no_such_onnx.*pip install"):
        require_onnx()
    bundle, rows = setting.bundle(CONFIG), setting.rows([3])
    choice = choose_runtime(
        bundle, setting.source, rows, num_rows=9, runtimes=("onnx", "factorised")
    )
    assert choice.runtime == "factorised"
    assert "no_such_onnx" in choice.timings[0].unavailable
    with pytest.raises(RuntimeUnavailableError, match="no runtime can be had"):
        choose_runtime(bundle, setting.source, rows, num_rows=9, runtimes=("onnx",))


def test_example_batch_has_every_feature(setting: ScoringSetting, tmp_path: Path) -> None:
    del tmp_path
    bundle = setting.bundle(CONFIG)
    predictions = bundle.model.predict(example_batch(bundle.schema, 5))
    assert {len(values) for values in predictions.values()} == {5}
