from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.cli import main
from ranker.atomic import MANIFEST, sha256_of
from ranker.bundle import (
    FILES,
    GOLDEN_FILE,
    GOLDEN_ROWS,
    ModelBundle,
    load_bundle,
    read_manifest,
    save_bundle,
)
from ranker.config import ConfigError
from ranker.data.loader import read_in_order
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore
from ranker.evaluation.calibration_counts import COUNTS_FILE
from ranker.evaluation.calibrators import CALIBRATORS_FILE
from ranker.manifest import write_manifest
from ranker.scoring.verification import RUNTIMES, Replay, verify
from ranker.training.fit import train
from ranker.training.settings import TrainConfig

every_file = pytest.mark.parametrize("name", FILES)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"rows": ', '"rows": 1'),
        lambda text: text.replace('"last": "2', '"last": "1'),
        lambda text: text.replace('"schema_digest": "', '"schema_digest": "0'),
    ],
)
def test_a_changed_manifest_is_noticed(change: Callable[[str], str], bundle: Path) -> None:
    """The data window guards against evaluation on days a bundle was trained on."""
    text = (bundle / MANIFEST).read_text()
    assert change(text) != text
    (bundle / MANIFEST).write_text(change(text))
    for read in (load_bundle, verify):
        with pytest.raises(DataError, match=r"manifest\.json: changed or damaged"):
            read(bundle)


@pytest.fixture
def bundle(trained_synthetic: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(trained_synthetic / "bundle", tmp_path / "bundle"))


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    write_manifest(bundle, manifest)


def fix_digest(bundle: Path, name: str) -> None:
    """As somebody would who knows how."""
    edit_manifest(bundle, lambda m: m["files"].update({name: sha256_of(bundle / name)}))


def test_a_bundle_survives_a_round_trip(
    bundle: Path, tmp_path: Path, prepared_synthetic: Path
) -> None:
    store = EncodedStore(prepared_synthetic)
    loaded = load_bundle(bundle)
    (batch,) = read_in_order(store, 0, 70, vocabulary_sizes=loaded.encoders.sizes, batch_rows=70)
    save_bundle(tmp_path / "again", loaded, batch)
    again = load_bundle(tmp_path / "again")
    with torch.no_grad():
        expected, predictions = loaded.model.predict(batch), again.model.predict(batch)
    for task, values in predictions.items():
        assert torch.equal(values, expected[task])
    for name in FILES:
        same = sha256_of(bundle / name) == sha256_of(tmp_path / "again" / name)
        assert same == (name != "golden.safetensors")
    assert again.data_window == loaded.data_window
    assert again.weights_sha256 == sha256_of(bundle / "weights.safetensors")
    assert verify(tmp_path / "again").golden_rows == 70


def test_loading_draws_no_embeddings_that_the_weights_replace(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranker.models.build.fill_initial_rows", None)
    loaded = load_bundle(bundle).model.state_dict()
    stored = load_file(bundle / "weights.safetensors")
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_weights_of_another_type_are_an_error(bundle: Path) -> None:
    weights = load_file(bundle / "weights.safetensors")
    name = next(name for name, values in weights.items() if values.dtype == torch.float32)
    save_file(weights | {name: weights[name].double()}, bundle / "weights.safetensors")
    fix_digest(bundle, "weights.safetensors")
    with pytest.raises(DataError, match=f"{re.escape(name)} is torch.float64"):
        load_bundle(bundle)


def test_an_intact_bundle_verifies(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verification = verify(bundle)
    assert verification.problems == ()
    assert (verification.files, verification.golden_rows) == (len(FILES), GOLDEN_ROWS)
    assert set(verification.golden_difference["plain"]) == set(load_bundle(bundle).model.tasks)
    assert verification.golden_calibrated.keys() == verification.golden_difference["plain"].keys()
    assert main(["verify", str(bundle), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["intact"]
    assert printed["golden_rows"] == GOLDEN_ROWS
    assert printed["golden_difference"] == dict(verification.golden_difference)
    assert main(["verify", str(bundle)]) == 0
    assert "9 files checked, 32 golden rows replayed" in capsys.readouterr().out


@every_file
def test_a_flipped_bit_is_named(
    name: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[2 * len(content) // 3] ^= 1
    (bundle / name).write_bytes(content)
    (problem,) = verify(bundle).problems
    assert problem.startswith(f"{name}: its sha256 differs")
    with pytest.raises(DataError, match=f"damaged: {name}"):
        load_bundle(bundle)
    assert main(["verify", str(bundle)]) == 3
    printed = capsys.readouterr()
    assert "NOT intact" in printed.out
    assert f"{name}: its sha256 differs" in printed.err


@every_file
def test_a_missing_file_is_named(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    assert verify(bundle).problems == (f"{name}: missing",)
    edit_manifest(bundle, lambda m: m["files"].pop(name))
    with pytest.raises(DataError, match=f"lists no {name}"):
        load_bundle(bundle)


def test_a_file_too_many_is_named(bundle: Path) -> None:
    (bundle / "more").mkdir()
    (bundle / "more" / "code.py").write_text("raise SystemExit")
    assert verify(bundle).problems == ("more/code.py: not in the manifest",)
    with pytest.raises(DataError, match=r"more/code\.py: not in the manifest"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_path_out_of_the_folder_is_refused(name: str, bundle: Path) -> None:
    (bundle.parent / "secret").write_text("x")
    digest = sha256_of(bundle.parent / "secret")
    edit_manifest(bundle, lambda m: m["files"].update({name: digest}))
    assert verify(bundle).problems == (f"{name}: the manifest names a path outside the folder",)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".safetensors")])
@pytest.mark.parametrize(
    "content", [pickle.dumps(Bomb()), b"", b"\xff" * 64], ids=["pickle", "empty", "garbage"]
)
def test_what_is_no_safetensors_file_is_refused(
    name: str, content: bytes, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / name).write_bytes(content)
    fix_digest(bundle, name)
    with pytest.raises(DataError, match=f"{name}: is no safetensors file"):
        verify(bundle)
    assert main(["verify", str(bundle)]) == 3
    assert "executed" not in capsys.readouterr().out


def test_weights_of_another_shape_are_refused(bundle: Path) -> None:
    weights = load_file(bundle / "weights.safetensors")
    name = next(name for name in weights if name.endswith("gates.bias"))
    save_file({**weights, name: weights[name][:-1].clone()}, bundle / "weights.safetensors")
    fix_digest(bundle, "weights.safetensors")
    with pytest.raises(DataError, match="weights don't fit the config"):
        load_bundle(bundle)


@pytest.mark.parametrize("value", [0.3, float("nan")])
def test_golden_rows_notice_altered_weights(value: float, bundle: Path) -> None:
    """Though every sha256 is right."""
    weights = load_file(bundle / "weights.safetensors")
    name = next(name for name in weights if name.endswith("towers.final.bias"))
    weights[name] += value
    save_file(weights, bundle / "weights.safetensors")
    fix_digest(bundle, "weights.safetensors")
    problems = verify(bundle).problems
    assert len(problems) == 2 * len(load_bundle(bundle).model.tasks)  # in either runtime
    assert all(re.match("golden rows, (plain|factorised): ", problem) for problem in problems)
    assert main(["verify", str(bundle), "--json"]) in {1, 3}


def test_golden_rows_notice_other_calibrators(bundle: Path) -> None:
    path = bundle / CALIBRATORS_FILE
    document = json.loads(path.read_text())
    document["tasks"]["click"]["calibrator"]["intercept"] += 0.1
    path.write_text(json.dumps(document))
    fix_digest(bundle, CALIBRATORS_FILE)
    (problem,) = verify(bundle).problems
    assert problem.startswith("golden rows, calibrated: click differs")
    document["tasks"].pop("click")
    path.write_text(json.dumps(document))
    fix_digest(bundle, CALIBRATORS_FILE)
    assert main(["verify", str(bundle)]) in {2, 3}


def test_every_runtime_is_held_to_the_same_predictions(bundle: Path) -> None:
    def halved(bundle: ModelBundle) -> Replay:
        return lambda batch: {t: values / 2 for t, values in bundle.model.predict(batch).items()}

    def missing(bundle: ModelBundle) -> Replay:
        raise ConfigError("runtime missing: install it")

    verification = verify(
        bundle, runtimes={"halved": halved, "missing": missing, "plain": RUNTIMES["plain"]}
    )
    assert set(verification.golden_difference) == {"halved", "plain"}
    assert set(verification.golden_difference["plain"].values()) == {0.0}
    assert any(p.startswith("golden rows, halved: click differs") for p in verification.problems)
    assert verification.not_replayed == {"missing": "runtime missing: install it"}
    assert set(verification.golden_calibrated.values()) == {0.0}


def test_runtimes_are_replayed_where_asked_for(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(bundle: ModelBundle) -> Replay:
        raise ConfigError("install it")

    plain = RUNTIMES["plain"]
    twice = {"plain": plain, "again": plain, "missing": missing}
    monkeypatch.setattr("ranker.scoring.verification.RUNTIMES", twice)
    assert main(["verify", str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "not replayed: again: not asked for (--runtime again)" in printed
    assert main(["verify", str(bundle), "--runtime", "again", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["golden_difference"]) == {"again"}
    assert main(["verify", str(bundle), "--runtime", "all"]) == 0
    printed = capsys.readouterr().out
    assert "not replayed: missing: install it" in printed
    assert "not replayed: again" not in printed
    assert main(["verify", str(bundle), "--runtime", "abacus"]) == 2
    assert "'plain', 'again', 'missing', 'all'" in capsys.readouterr().err


def test_the_schemas_digest_is_checked(bundle: Path) -> None:
    schema = (bundle / "schema.yaml").read_text()
    (bundle / "schema.yaml").write_text(schema.replace("max_positions: 6", "max_positions: 7"))
    fix_digest(bundle, "schema.yaml")
    with pytest.raises(DataError):  # the position tower has another size
        load_bundle(bundle)
    (bundle / "schema.yaml").write_text(schema.replace("name: synthetic", "name: other"))
    fix_digest(bundle, "schema.yaml")
    (problem,) = verify(bundle).problems
    assert "schema_digest is not that of schema.yaml" in problem


@pytest.fixture
def of_format_2(bundle: Path) -> Path:
    """The bundle as it was written before there were calibrators."""
    for name in (CALIBRATORS_FILE, COUNTS_FILE):
        (bundle / name).unlink()
    golden = load_file(bundle / GOLDEN_FILE)
    save_file({n: v for n, v in golden.items() if "calibrated" not in n}, bundle / GOLDEN_FILE)

    def change(manifest: dict[str, Any]) -> None:
        manifest["format"] = 2
        manifest["files"] = {n: d for n, d in manifest["files"].items() if "calib" not in n}

    edit_manifest(bundle, change)
    fix_digest(bundle, GOLDEN_FILE)
    return bundle


def test_a_bundle_of_format_2_works_uncalibrated_and_says_so(
    of_format_2: Path,
    tmp_path: Path,
    prepared_synthetic: Path,
    trained_synthetic: Path,
    small_train_config: TrainConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = load_bundle(of_format_2), load_bundle(trained_synthetic / "bundle")
    assert set(old.calibrators.kind_by_task.values()) == {"identity"}
    raw = {"click": np.array([0.2, 0.7])}
    np.testing.assert_array_equal(old.calibrators.apply(raw)["click"], raw["click"])
    verification = verify(of_format_2)
    assert (verification.problems, verification.format) == ((), 2)
    assert main(["verify", str(of_format_2)]) == 0
    assert "format 2, which has no calibrators" in capsys.readouterr().out
    data = ["--data", str(prepared_synthetic), "--set", "num_replicates=20"]
    few = [*data, "--before", "2024-03-15"]
    assert main(["compare", str(of_format_2), str(trained_synthetic / "bundle"), *few]) == 0
    printed = capsys.readouterr().out
    assert "A: predictions not calibrated: click," in printed
    assert "B: predictions calibrated by platt: click" in printed
    output = ["--output", str(tmp_path / "evaluated")]
    assert main(["evaluate", "--bundle", str(of_format_2), *few, *output]) == 0
    assert (
        "of format 2, which had no calibrators"
        in (tmp_path / "evaluated" / "metrics.json").read_text()
    )
    # trained on, it becomes what the new one becomes
    store = EncodedStore(prepared_synthetic)
    config = small_train_config.model_copy(update={"before_window": "2024-03-15"})
    for name, start_from in (("old", old), ("new", new)):
        train(store, config, tmp_path / name, start_from=start_from)
    on_old, on_new = (load_bundle(tmp_path / name / "bundle") for name in ("old", "new"))
    assert on_old.weights_sha256 == on_new.weights_sha256
    assert on_old.calibrators.tasks["click"] == on_new.calibrators.tasks["click"]
    assert verify(tmp_path / "old" / "bundle").format == 3


def test_golden_rows_must_be_complete(bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    del golden["prediction/like"]
    save_file({**golden, "stranger": torch.zeros(3)}, bundle / "golden.safetensors")
    fix_digest(bundle, "golden.safetensors")
    with pytest.raises(DataError, match=r"no prediction of \['like'\]"):
        verify(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no bundle"),
        ("", "damaged"),
        ("\x00[", "damaged"),
        ("[1]", "is no bundle"),
        ('{"kind": "state"}', "is no bundle"),
        (
            '{"kind": "bundle", "format": 99}',
            "99, this version reads 2 to 3; install a newer",
        ),
        ('{"kind": "bundle", "format": 1}', "format 1, this version reads 2 to 3; train again"),
        ('{"kind": "bundle", "format": 2}', "expected sections 'files'"),
        ('{"kind": "bundle", "format": 2, "files": [], "data_window": {}}', "expected sections"),
    ],
)
def test_a_manifest_that_is_none_is_named(content: str | None, message: str, bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    if content is not None:
        (bundle / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=message):
        read_manifest(bundle)
    assert main(["verify", str(bundle)]) == 3


def test_a_damaged_data_window_is_named(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["data_window"].pop("rows"))
    with pytest.raises(DataError, match=r"manifest\.json: key 'rows' is required"):
        load_bundle(bundle)


def test_nothing_is_pickled_and_everybody_may_read(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        assert path.suffix in {".yaml", ".json", ".safetensors", ".parquet"}
        assert path.stat().st_mode & 0o044 == (bundle / MANIFEST).stat().st_mode & 0o044
        content = path.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))  # a pickle, a zip as torch.save writes


def test_a_path_that_does_not_exist_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 3
    assert f"{tmp_path / 'nothing'}: is no bundle" in capsys.readouterr().err
