import json
from pathlib import Path

import numpy as np
import pytest
from chain_run import run_ranker

from ranker.atomic import sha256_of
from ranker.scoring.runtimes import forward


def test_without_the_packages_the_error_says_what_to_install(
    trained_synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ONNX_PACKAGES", ("no_such_onnx",))
    ran = run_ranker("export", trained_synthetic / "bundle", "--output", tmp_path / "onnx")
    assert ran.code == 2
    assert "pip install no_such_onnx" in ran.err
    assert not (tmp_path / "onnx").exists()


def test_data_without_int8_is_refused(trained_synthetic: Path, tmp_path: Path) -> None:
    words = ["export", trained_synthetic / "bundle", "--output", tmp_path / "onnx"]
    ran = run_ranker(*words, "--data", tmp_path / "nothing")
    assert ran.code == 2
    assert "--int8" in ran.err


@pytest.mark.slow
def test_exported_model_predicts_what_the_bundle_does(
    trained_synthetic: Path, prepared_synthetic: Path, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    output = tmp_path / "onnx"
    words = ["export", trained_synthetic / "bundle", "--output", output, "--json", "--int8"]
    ran = run_ranker(*words, "--data", tmp_path / "nothing")
    assert (ran.code, output.exists()) == (3, False), ran.err
    ran = run_ranker(*words, "--data", prepared_synthetic)
    assert ran.code == 0, ran.err
    assert ran.json["golden_rows"] > 0
    assert max(ran.json["difference"].values()) <= 1e-5
    costs = ran.json["int8_auc"]
    assert abs(costs["click"]["exact"] - costs["click"]["int8"]) < 0.1
    change = costs["click"]["change"]
    assert change["ci_low"] <= change["value"] <= change["ci_high"]
    few = [cost for cost in costs.values() if cost["positives"] < 20]
    assert all(cost["change"]["reason"].startswith("fewer than 20") for cost in few)
    manifest = json.loads((output / "manifest.json").read_text())
    for name, sha256 in manifest["files"].items():
        assert sha256_of(output / name) == sha256
    session = onnxruntime.InferenceSession(str(output / "model.onnx"))
    for num_rows, length in ((1, 2), (9, 10)):
        columns = {
            given.name: np.zeros(
                (num_rows, length)[: len(given.shape)],
                np.float32 if "float" in given.type else np.int32,
            )
            for given in session.get_inputs()
        }
        assert {len(values) for values in session.run(None, columns)} == {num_rows}


def test_a_bundle_is_never_replaced(trained_synthetic: Path, tmp_path: Path) -> None:
    bundle = trained_synthetic / "bundle"
    before = sorted(path.name for path in bundle.iterdir())
    ran = run_ranker("export", bundle, "--output", bundle)
    assert (ran.code, "is also an input" in ran.err) == (2, True), ran.err
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"kind": "slates"}')
    ran = run_ranker("export", bundle, "--output", other)
    assert (ran.code, "holds slates, and only onnx" in ran.err) == (2, True), ran.err
    assert sorted(path.name for path in bundle.iterdir()) == before
