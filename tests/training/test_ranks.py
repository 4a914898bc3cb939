"""Two processes train what one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ranker.bundle import load_bundle
from ranker.data.batch import Batch
from ranker.data.store import EncodedStore
from ranker.models.build import MMoEConfig
from ranker.scoring.verification import verify
from ranker.training.fit import train
from ranker.training.ranks import Ranks, started_ranks
from ranker.training.settings import TrainConfig


@pytest.mark.parametrize(("num_rows", "size"), [(1, 3), (7, 2), (11, 4), (0, 2)])
def test_every_row_is_one_ranks(num_rows: int, size: int) -> None:
    rows = torch.arange(num_rows)
    batch = Batch(features={"x": rows}, labels={"y": rows + 0.5}, position={})
    parts = [Ranks(rank=rank, size=size).part(batch) for rank in range(size)]
    assert torch.equal(torch.cat([part.features["x"] for part in parts]), rows)
    assert torch.equal(torch.cat([part.labels["y"] for part in parts]), rows + 0.5)
    sizes = [part.num_rows for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture
def without_chance(three_days: TrainConfig) -> TrainConfig:
    """No dropout and no batch statistics: what is left is a function of the batch."""
    bottom = MMoEConfig(shared_widths=(9,), num_experts=3, expert_widths=(8,), expert_dropout=0.0)
    position = three_days.model.position_tower.model_copy(update={"dropout": 0.0})
    model = three_days.model.model_copy(
        update={
            "normalization": "layer",
            "input_normalization": "none",
            "dropout": 0.0,
            "id_dropout": 0.0,
            "bottom": bottom,
            "position_tower": position,
            "admit_after": 2,
        }
    )
    return three_days.model_copy(update={"model": model})


ORPHAN = """
import multiprocessing, os, time
from ranker.training.ranks import end_with_parent

def follow():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(120)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=follow)
    process.start()
    process.join()
"""


@pytest.mark.slow
def test_no_rank_outlives_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(ORPHAN)
    words = [sys.executable, str(script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        follower = int(run.stdout.readline())
        run.kill()
    for _ in range(200):
        if not Path(f"/proc/{follower}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("still there after ten seconds")


@pytest.mark.slow
def test_two_processes_equal_one(
    store: EncodedStore, without_chance: TrainConfig, tmp_path: Path
) -> None:
    """The last batch of a window has fewer rows; surveys are observed on one side only."""
    one = train(store, without_chance, tmp_path / "one")
    config = without_chance.model_copy(update={"processes": 2, "micro_batch_rows": 19})
    two = train(store, config, tmp_path / "two")
    assert (one.steps, one.rows_trained) == (two.steps, two.rows_trained)
    mine, theirs = (load_bundle(tmp_path / name / "bundle") for name in ("one", "two"))
    for name, values in mine.model.state_dict().items():
        other = theirs.model.state_dict()[name]
        if not name.rpartition(".")[2].startswith("sum_"):  # means over ranks; their ratio counts
            torch.testing.assert_close(other, values, rtol=2e-3, atol=2e-4, msg=name)
    smearings = [bundle.model.heads["watch_time_s"].smearing for bundle in (mine, theirs)]  # type: ignore[attr-defined]
    torch.testing.assert_close(*smearings, rtol=1e-3, atol=0)
    assert verify(tmp_path / "two" / "bundle").problems == ()
    losses = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["mean_loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_two_processes_with_dropout_repeat_and_resume(
    store: EncodedStore, three_days: TrainConfig, tmp_path: Path
) -> None:
    config = three_days.model_copy(update={"processes": 2, "checkpoint_every_s": 0.0})
    whole = train(store, config, tmp_path / "whole")

    def stop(progress: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt

    calls = 0
    with pytest.raises(KeyboardInterrupt):
        train(store, config, tmp_path / "run", on_progress=stop)
    (tmp_path / "run" / ".ranks").write_bytes(b"of a killed run")
    resumed = train(store, config, tmp_path / "run", resume=True)
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (resumed.bundle / name).read_bytes() == (whole.bundle / name).read_bytes()
    assert not (tmp_path / "run" / ".ranks").exists()


def die(ranks: Ranks) -> None:
    sys.exit(7)


class DiesWhileStarting:
    """Can be sent to another process, but not be unpacked there."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)


@pytest.mark.slow
@pytest.mark.parametrize("follow", [die, DiesWhileStarting()])
def test_a_process_that_died_is_told(follow: Callable[[Ranks], None], tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        pytest.raises(RuntimeError, match=r"a training process \(pid \d+\) ended with exit code 7"),
        started_ranks(2, follow, backend="gloo", rendezvous=tmp_path / "ranks"),
    ):
        pass
    assert time.monotonic() - started < 60
    assert not (tmp_path / "ranks").exists()
