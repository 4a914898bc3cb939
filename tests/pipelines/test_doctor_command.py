"""What `ranker doctor` finds out, complains of, prints and exits with."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from chain_run import run_ranker

from pipelines import doctor, environment
from pipelines.environment import (
    GIB,
    Environment,
    Package,
    group_cores,
    group_memory_bytes,
    installed_packages,
    place_in_range,
    problems_of,
    read_environment,
)
from ranker.config import load_config
from ranker.training import machine_check
from ranker.training.settings import TrainConfig
from ranker.training.trial_model import TrialSizes

ROOT = Path(__file__).resolve().parents[2]
HEALTHY = Environment(
    packages=(Package(name="torch", version="2.9.1", tested=">=2.8,<2.14"),),
    cores=3,
    machine_cores=5,
    memory_gib=7.0,
    free_memory_gib=6.0,
    folder="/somewhere",
    free_disk_gib=11.0,
    writable=True,
    load=0.5,
    gpu_files=False,
)


@pytest.mark.parametrize(
    ("version", "tested", "place"),
    [
        ("2.8", ">=2.8,<2.14", 0),
        ("2.8.0", ">=2.8,<2.14", 0),
        ("2.13.0+cpu", ">=2.8,<2.14", 0),
        ("2.14.0rc1", ">=2.8,<2.14", 1),
        ("2.7.9", ">=2.8,<2.14", -1),  # as text, 2.7.9 < 2.8 but 2.10 < 2.8 too
        ("2.10", ">=2.8,<2.14", 0),
        ("10.1", ">=9", 0),
        ("3", ">=2.5,<3", 1),
        ("3.0.0", ">=2.5,<3", 1),
        ("0.0.1", "", 0),
    ],
)
def test_versions_are_compared_as_numbers(version: str, tested: str, place: int) -> None:
    assert place_in_range(version, tested) == place


def test_packages_are_those_of_the_project() -> None:
    packages = {package.name: package for package in installed_packages()}
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    declared = [line.partition(">")[0] for line in project["dependencies"]]
    assert list(packages) == ["python", *declared]
    assert f"torch{packages['torch'].tested}" in project["dependencies"]
    assert packages["python"].tested == project["requires-python"]
    assert packages["torch"].version == importlib.metadata.version("torch")
    assert problems_of(dataclasses.replace(HEALTHY, packages=tuple(packages.values()))) == []


@pytest.mark.parametrize(
    ("change", "text", "fatal"),
    [
        (
            {"packages": (Package(name="torch", version="2.7.1", tested=">=2.8,<2.14"),)},
            "torch 2.7.1 is outside the tested range >=2.8,<2.14: pip install 'torch>=2.8,<2.14'",
            True,
        ),
        (
            {"packages": (Package(name="torch", version="2.15.0", tested=">=2.8,<2.14"),)},
            "torch 2.15.0 is outside the tested range",
            False,
        ),
        (
            {"packages": (Package(name="pyarrow", version="", tested=">=17"),)},
            "pyarrow is not installed: pip install 'pyarrow>=17'",
            True,
        ),
        (
            {"packages": (Package(name="python", version="3.10.2", tested=">=3.11"),)},
            "make the virtual environment with a Python >=3.11",
            True,
        ),
        ({"cores": 1}, "train with threads: 1", False),
        ({"free_memory_gib": 1.5}, "1.5 GiB of memory are free", False),
        ({"free_memory_gib": 0.1}, "0.1 GiB of memory are free", True),
        ({"free_disk_gib": 1.5}, "1.5 GiB are free where /somewhere is", False),
        ({"free_disk_gib": 0.1}, "make room", True),
        ({"writable": False}, "/somewhere may not be written to", False),
    ],
)
def test_problems_come_with_a_remedy(change: dict[str, object], text: str, fatal: bool) -> None:
    assert problems_of(HEALTHY) == []
    (problem,) = problems_of(dataclasses.replace(HEALTHY, **change))
    assert text in problem.text
    assert problem.fatal is fatal


def write(folder: Path, values: dict[str, str]) -> None:
    for name, text in values.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_limits_of_control_groups(tmp_path: Path) -> None:
    """Version 2: the tightest of a group and those above it."""
    assert group_cores(tmp_path, "a/b") is None
    assert group_memory_bytes(tmp_path, "a/b") is None
    write(tmp_path, {"a/cpu.max": "250000 100000", "a/memory.max": str(3 * GIB)})
    write(tmp_path, {"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"})
    assert group_cores(tmp_path, "a/b") == 2.5
    assert group_memory_bytes(tmp_path, "a/b") == 3 * GIB
    write(tmp_path, {"a/b/cpu.max": "50000 100000", "a/b/memory.max": "7"})
    assert group_cores(tmp_path, "a/b") == 0.5
    assert group_memory_bytes(tmp_path, "a/b") == 7
    assert group_cores(tmp_path, "") is None


def test_limits_of_older_control_groups(tmp_path: Path) -> None:
    unlimited = str(2**63 - 4096)
    write(tmp_path, {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"})
    write(tmp_path, {"memory/a/memory.limit_in_bytes": unlimited})
    assert group_cores(tmp_path, "a") is None
    assert group_memory_bytes(tmp_path, "a") is None
    write(tmp_path, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"})
    write(tmp_path, {"memory/memory.limit_in_bytes": str(5 * GIB)})
    assert group_cores(tmp_path, "a") == 3
    assert group_memory_bytes(tmp_path, "a") == 5 * GIB


def test_a_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"cpu.max": "50000 100000", "memory.max": str(GIB // 2)})
    monkeypatch.setattr(environment, "CGROUPS", tmp_path)
    found = read_environment(tmp_path)
    assert found.cores == 1, "half a core is one thread"
    assert found.memory_gib == 0.5
    assert found.free_memory_gib <= 0.5
    assert found.machine_cores == os.cpu_count()
    assert found.free_disk_gib > 0
    assert found.writable


def test_facts_alone() -> None:
    ran = run_ranker("doctor", "--measure", "none", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = ran.json["environment"]
    assert facts["folder"] == str(Path.cwd())
    assert 1 <= facts["cores"] <= facts["machine_cores"]
    assert ran.json["measured"] is None
    assert ran.json["recommended"] is None
    for_people = run_ranker("doctor", "--measure", "none")
    assert (for_people.code, for_people.err) == (0, "")
    assert f"{importlib.metadata.version('torch')} (tested: >=2.8,<2.14)" in for_people.out


def test_an_unusable_machine_ends_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Package(name="torch", version="2.7.1", tested=">=2.8,<2.14")
    monkeypatch.setattr(
        doctor, "read_environment", lambda _: dataclasses.replace(HEALTHY, packages=(old,))
    )
    ran = run_ranker("doctor")
    assert (ran.code, ran.err) == (4, "")
    assert "PROBLEM: torch 2.7.1 is outside the tested range" in ran.out
    assert "matrix products" not in ran.out, "nothing is measured then"


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_look_with_torch", fail)
    ran = run_ranker("doctor")
    assert ran.code == 4
    assert "PROBLEM: torch can't be imported (libfoo.so: cannot" in ran.out


@pytest.fixture
def tiny_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core, and 64 rows of a model of no two sizes alike, whose rounds are made up."""
    tiny = TrialSizes(
        batch_rows=64,
        num_categorical=5,
        num_numeric=3,
        largest_vocabulary=50,
        embedding_width=4,
        num_experts=6,
        expert_widths=(9, 8),
        tower_widths=(7,),
    )
    check = machine_check.check_machine
    monkeypatch.setattr(
        machine_check, "check_machine", lambda **named: check(**{**named, "sizes": tiny})
    )
    monkeypatch.setattr(machine_check, "_MATRIX_ROWS", 50)
    monkeypatch.setattr(machine_check, "MICRO_BATCHES", (19,))
    monkeypatch.setattr(machine_check.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("ranker.training.step_trials._TRIAL_S", 0.0)
    monkeypatch.setattr(doctor, "read_environment", lambda _: dataclasses.replace(HEALTHY, cores=1))
    seconds = {"micro_batch_rows: 19": 0.5, "precision: bf16": 0.94, "baseline": 1.0}
    monkeypatch.setattr(
        "ranker.training.step_trials.StepTrials._trial",
        lambda _, variant: seconds.get(variant.name, 0.4),
    )


def test_recommendations_go_into_a_training_config(tiny_measurements: None, tmp_path: Path) -> None:
    ran = run_ranker("doctor", "--measure", "quick")
    assert ran.code == 0
    assert "measuring: round 3" in ran.err
    assert "micro_batch_rows: 19 500 ms 2.00 [2.00, 2.00]" in " ".join(ran.out.split())
    assert "compile_model" not in ran.out
    # together 0.4 s beats 0.5 s
    assert "micro_batch_rows: 19, precision: bf16" in ran.out
    lines = ran.out[ran.out.index("for the training config:") :].splitlines()[1:]
    file = tmp_path / "train.yaml"
    file.write_text("\n".join(line for line in lines if line.startswith("  ")))
    assert yaml.safe_load(file.read_text()) == {"micro_batch_rows": 19, "precision": "bf16"}
    config = load_config(TrainConfig, file)
    assert (config.micro_batch_rows, config.precision) == (19, "bf16")
    assert "compare the metrics of both" in ran.out


def test_measurements_as_one_object(
    tiny_measurements: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    ran = run_ranker("doctor", "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["recommended"] == {"micro_batch_rows": 19, "precision": "bf16"}
    baseline, micro, bf16, compiled = ran.json["measured"]["steps"]
    assert baseline["variant"]["name"] == "baseline"
    assert micro["speedup"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert bf16["variant"]["step"]["precision"] == "bf16"
    assert "'no-such-compiler'" in compiled["left_out"]
    assert compiled["speedup"] is None
    assert len(ran.json["measured"]["together"]) == 2
    assert "compile_model: true was left out: compile_model: needs" in run_ranker("doctor").out


def test_a_busy_machine_is_told_to_wait(
    tiny_measurements: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_check.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    ran = run_ranker("doctor", "--measure", "quick")
    assert ran.code == 0
    assert "too busy to tell: 9.0 programs at a time wanted" in ran.out
    assert "for the training config" not in ran.out


@pytest.mark.slow
def test_the_real_thing() -> None:
    """With torch.compile, on one core: several threads on a busy machine would take for ever."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system can't bind a process to a core")
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "doctor", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["measured"]
    assert json.loads(done.stdout)["environment"]["cores"] == 1
    names = [step["variant"]["name"] for step in measured["steps"]]
    assert names[0] == "baseline"
    assert {"precision: bf16", "compile_model: true", "micro_batch_rows: 512"} <= set(names)
    for step in measured["steps"]:
        assert bool(step["seconds"]) != bool(step["left_out"])
        assert all(seconds > 0 for seconds in step["seconds"])
    assert set(measured["sgemm_gflops"]) == {"1"}
