from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from ranker.atomic import sha256_of
from ranker.config import dump_yaml
from ranker.manifest import folder_digests
from ranker.training.checkpoint import list_checkpoints
from ranker.training.settings import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120


@pytest.fixture
def config_file(tmp_path: Path, small_train_config: TrainConfig) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(dump_yaml(small_train_config))
    return path


def train_words(config: Path, data: Path, output: Path, *more: str) -> list[str]:
    words = ["train", "--config", str(config), "--data", str(data), "--output", str(output)]
    return [*words, *more]


def command(config: Path, data: Path, output: Path, *more: str) -> list[str]:
    """The same for a process of its own."""
    return [sys.executable, "-m", "pipelines.cli", *train_words(config, data, output, *more)]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def digests(run_folder: Path) -> dict[str, str]:
    """Of the whole bundle: weights, optimizer state, calibrators and all."""
    return folder_digests(run_folder / "bundle")


def signal_after(
    words: list[str], folder: Path, step: int, number: signal.Signals
) -> tuple[int, str]:
    """Start a run, signal it once it has saved a checkpoint after ``step`` or a later one.

    It runs in a process group of its own, whose members get the signal, as from a terminal.
    """
    process = subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    give_up = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < give_up:
        names = [path.stem for path in list_checkpoints(folder / "checkpoints")]
        if names and int(names[-1].removeprefix("step-")) >= step:
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, errors


def test_equal_runs_are_equal_bytes_and_silent(
    tmp_path: Path, config_file: Path, prepared_synthetic: Path
) -> None:
    """In another process, too; with nothing of Lightning's hints on either stream."""
    days = ["--set", "before_window=2024-03-06"]
    done = run(command(config_file, prepared_synthetic, tmp_path / "one", *days))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert main(train_words(config_file, prepared_synthetic, tmp_path / "two", *days)) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.slow
def test_ctrl_c_names_the_command_that_resumes(
    tmp_path: Path, config_file: Path, prepared_synthetic: Path
) -> None:
    more = ["--set", "checkpoint_every_s=0", "--set", "passes_per_window=30"]
    words = command(config_file, prepared_synthetic, tmp_path / "run", *more)
    code, errors = signal_after(words, tmp_path / "run", 3, signal.SIGINT)
    assert code == 130, errors
    (line,) = errors.splitlines()
    assert line.startswith("ranker: interrupted; to go on: ranker train --config ")
    assert line.endswith(" --resume")
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    step = int(newest.stem.removeprefix("step-")) + 2
    code, errors = signal_after([*words, "--resume"], tmp_path / "run", step, signal.SIGINT)
    assert code == 130, errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [1])
def test_a_run_killed_three_times_ends_in_the_same_bytes(
    seed: int, workers: int, tmp_path: Path, config_file: Path, prepared_synthetic: Path
) -> None:
    more = ["--set", f"loader_workers={workers}"]
    whole = run(command(config_file, prepared_synthetic, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    steps = np.sort(np.random.default_rng(seed).choice(np.arange(2, 110), size=3, replace=False))
    sys.stdout.write(f"seed {seed}: killed after steps {steps}\n")
    output = tmp_path / "killed"
    words = command(config_file, prepared_synthetic, output, *more, "--set", "checkpoint_every_s=0")
    for count, step in enumerate(steps):
        resume = ["--resume"] if count else []
        code, errors = signal_after([*words, *resume], output, int(step), signal.SIGKILL)
        assert code == -signal.SIGKILL, errors
        assert not (output / "bundle").exists()
    done = run([*words, "--resume"])
    assert done.returncode == 0, done.stderr
    assert digests(output) == digests(tmp_path / "whole")


@pytest.mark.parametrize("tiny_disk", [1024], indirect=True)
def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path,
    tiny_disk: Path,
    config_file: Path,
    prepared_synthetic: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    days = ["--set", "before_window=2024-03-07"]
    assert main(train_words(config_file, prepared_synthetic, tmp_path / "whole", *days)) == 0
    words = train_words(config_file, prepared_synthetic, tiny_disk / "run", *days)
    # room for one checkpoint of about 75 kB, not for the second
    (tiny_disk / "ballast").write_bytes(bytes(2**20 - 150_000))
    assert main(words) == 5
    errors = capsys.readouterr().err
    assert "the disk is full" in errors
    assert "intact" in errors
    (kept,) = list_checkpoints(tiny_disk / "run" / "checkpoints")
    assert kept.with_name(kept.name + ".sha256").read_text() == sha256_of(kept)
    (tiny_disk / "ballast").unlink()
    assert main([*words, "--resume"]) == 0
    assert digests(tiny_disk / "run") == digests(tmp_path / "whole")


def test_a_disk_too_full_for_the_bundle_says_so(
    tmp_path: Path,
    config_file: Path,
    prepared_synthetic: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write_tensors(path: Path, *_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    words = train_words(config_file, prepared_synthetic, tmp_path / "run")
    words += ["--set", "before_window=2024-03-05"]
    with monkeypatch.context() as patched:
        patched.setattr("ranker.bundle.write_tensors", write_tensors)
        assert main(words) == 5
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "run" / "bundle").exists()
    assert main([*words, "--resume"]) == 0
    assert main(["verify", str(tmp_path / "run" / "bundle")]) == 0


def test_days_that_nobody_trains_on_are_said(
    tmp_path: Path,
    config_file: Path,
    prepared_synthetic: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = train_words(config_file, prepared_synthetic, tmp_path / "run")
    assert main([*words, "--set", "before_window=2024-03-05"]) == 0
    for first, gap in (("2024-03-05", False), ("2024-03-06", True)):
        more = ["--continue", str(tmp_path / "run" / "bundle"), "--set", f"first_window={first}"]
        words = train_words(config_file, prepared_synthetic, tmp_path / first)
        assert main([*words, *more, "--set", "before_window=2024-03-07"]) == 0
        said = "holds nothing between 2024-03-04, the last window" in capsys.readouterr().err
        assert said is gap


def test_resuming_with_another_config_leaves_the_run_as_it_was(
    tmp_path: Path,
    config_file: Path,
    prepared_synthetic: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = train_words(config_file, prepared_synthetic, tmp_path / "run")
    words += ["--set", "before_window=2024-03-05"]
    assert main(words) == 0
    before = (tmp_path / "run" / "config.yaml").read_text()
    assert main([*words, "--resume", "--seed", "77"]) == 3
    assert "belong to another config or other data" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert main(words) == 2
    assert "give --resume to go on with it" in capsys.readouterr().err
