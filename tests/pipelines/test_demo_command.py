"""The demo on the real sample, as a newcomer runs it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from chain_run import Demo, demo_words, run_ranker

from pipelines.metrics_table import HEADLINE
from pipelines.stages import fresh_folder, run_stages
from ranker.atomic import OutputError
from ranker.schema import load_schema

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_leaves_everything(demo: Demo) -> None:
    names = {path.name for path in demo.folder.iterdir()}
    assert {"metrics.json", "bundle", "slates.parquet", "report.html", "config.yaml"} <= names
    schema = load_schema(ROOT / "configs" / "schema" / "kuairand.yaml")
    metrics = json.loads((demo.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["split"]["first"] == "2022-05-05"
    assert metrics["train"]["last"] == "2022-05-04"
    assert list(metrics["tasks"]) == [task.name for task in schema.tasks]
    for task in schema.tasks:
        found = metrics["tasks"][task.name]
        headline = found[HEADLINE[task.kind]]
        assert (found["kind"], found["family"]) == (task.kind, task.family)
        if found.get("positives", 20) < 20:
            assert headline["value"] is None
            assert headline["reason"].startswith("fewer than 20 positives")
        else:
            assert headline["ci_low"] < headline["value"] < headline["ci_high"]
    slates = pd.read_parquet(demo.folder / "slates.parquet")
    assert slates.groupby(["user_id", "time_ms"]).size().eq(10).all()


@pytest.mark.slow
def test_the_demo_prints_a_table(demo: Demo) -> None:
    header, _, *rows = demo.out.strip().splitlines()
    assert header.split() == ["task", "metric", "ranker", "baseline", "difference", "verdict"]
    assert [row.split()[0] for row in rows[:9]] == [
        *("click", "long_view", "watch_time_s", "like", "profile_enter"),
        *("comment", "follow", "forward", "hate"),
    ]
    assert rows[-1] == f"report: {demo.folder / 'report.html'}"
    assert "$ ranker prepare --schema" in demo.err


@pytest.mark.slow
def test_the_demo_stays_small(demo: Demo) -> None:
    stages = json.loads((demo.folder / "stages.json").read_text(encoding="utf-8"))
    assert 100 < stages["peak_memory_mib"] < 3 * 1024
    assert list(stages["wall_s"]) == [
        *("validate", "prepare", "train", "evaluate", "candidates", "score", "simulate", "report")
    ]


@pytest.mark.slow
def test_the_demos_bundle_is_intact(demo: Demo) -> None:
    ran = run_ranker("verify", demo.folder / "bundle", "--json")
    assert (ran.code, ran.json["intact"]) == (0, True)


@pytest.mark.slow
def test_a_second_demo_replaces_the_first(demo: Demo, tmp_path: Path) -> None:
    """Interrupted after its first stage, when the first demo's results are gone."""
    folder = tmp_path / "demo"
    shutil.copytree(demo.folder, folder)
    process = subprocess.Popen(
        demo_words(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        give_up = time.monotonic() + 120
        while list(_wall_s(folder)) != ["validate"]:
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert errors.splitlines()[-1].startswith("ranker: interrupted; to go on: ranker demo --output")
    assert [path.name for path in folder.iterdir()] == ["stages.json"]


def _wall_s(folder: Path) -> dict[str, float]:
    stages = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
    found: dict[str, float] = stages.get("wall_s", {})
    return found


def test_only_earlier_runs_are_replaced(tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path / "new")
    (folder / "old-results").touch()
    (folder / "data").mkdir()
    (folder / "data" / "old").touch()
    assert [path.name for path in fresh_folder(folder).iterdir()] == ["stages.json"]
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty and no earlier run"):
        fresh_folder(bundle)
    assert (bundle / "manifest.json").exists()
    with pytest.raises(OutputError, match="is a file"):
        fresh_folder(bundle / "manifest.json")


def test_stages_stop_at_the_first_failure(tmp_path: Path) -> None:
    """A damaged bundle fails, so nothing after it runs."""
    from pipelines.console import Console

    folder = fresh_folder(tmp_path / "run")
    commands = [["verify", str(tmp_path / "one")], ["verify", str(tmp_path / "two")]]
    with pytest.raises(ValueError, match="one: is no bundle"):
        run_stages(commands, folder, Console(quiet=True))
    assert json.loads((folder / "stages.json").read_text(encoding="utf-8")) == {}
