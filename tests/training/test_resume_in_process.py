from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ranker.atomic import sha256_of
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore
from ranker.training.checkpoint import AtomicCheckpointIO, list_checkpoints, newest_intact
from ranker.training.settings import TrainConfig, TrainProgress

TrainInto = Callable[..., dict[str, str]]


class StopHereError(Exception):
    pass


def stop_after(steps: int) -> Callable[[TrainProgress], None]:
    """Raise after so many steps of a process."""
    done = 0

    def on_progress(progress: TrainProgress) -> None:
        nonlocal done
        done += 1
        if done == steps:
            raise StopHereError

    return on_progress


@pytest.fixture
def each_step(three_days: TrainConfig) -> TrainConfig:
    return three_days.model_copy(update={"checkpoint_every_s": 0.0})


@pytest.fixture
def stopped(
    tmp_path: Path, store: EncodedStore, each_step: TrainConfig, train_into: TrainInto
) -> Path:
    """A run stopped after 11 steps, in the middle of the second day."""
    folder = tmp_path / "stopped"
    with pytest.raises(StopHereError):
        train_into(folder, store, each_step, on_progress=stop_after(11))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
    prepared_synthetic: Path,
    small_train_config: TrainConfig,
) -> Path:
    from ranker.training.fit import train

    folder = tmp_path_factory.mktemp("uninterrupted")
    config = small_train_config.model_copy(update={"before_window": "2024-03-07"})
    train(EncodedStore(prepared_synthetic), config, folder)
    return folder


def digests_of(folder: Path) -> dict[str, str]:
    names = ("weights.safetensors", "optimizer.safetensors")
    return {name: sha256_of(folder / "bundle" / name) for name in names}


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_stopped_three_times_ends_in_the_same_bytes(
    seed: int,
    tmp_path: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    stops = np.random.default_rng(seed).integers(1, 8, size=3)  # 24 steps at least are to be done
    for count, steps in enumerate(stops):
        with pytest.raises(StopHereError):
            train_into(
                tmp_path, store, each_step, on_progress=stop_after(int(steps)), resume=count > 0
            )
    assert train_into(tmp_path, store, each_step, resume=True) == digests_of(uninterrupted)
    assert metrics_of(tmp_path) == metrics_of(uninterrupted)
    for day in ("2024-03-05", "2024-03-06"):
        resumed, whole = (
            pq.read_table(folder / "progressive" / f"{day}.parquet")
            for folder in (tmp_path, uninterrupted)
        )
        assert resumed.equals(whole)


def test_a_run_stopped_rarely_saving_repeats_what_it_has_to(
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    """Checkpoints at the ends of windows alone: the second day is begun again."""
    with pytest.raises(StopHereError):
        train_into(tmp_path, store, three_days, on_progress=stop_after(14))
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 1
    assert train_into(tmp_path, store, three_days, resume=True) == digests_of(uninterrupted)
    assert metrics_of(tmp_path) == metrics_of(uninterrupted)


def test_a_finished_run_can_be_resumed(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    first = train_into(tmp_path, store, three_days)
    assert train_into(tmp_path, store, three_days, resume=True) == first


def test_an_interrupt_stays_one_and_the_next_is_heard(
    tmp_path: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    """Lightning would exit with 1 and ignore Ctrl-C from then on."""
    handler = signal.getsignal(signal.SIGINT)

    def press_ctrl_c(progress: TrainProgress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    for count in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_into(tmp_path, store, each_step, on_progress=press_ctrl_c, resume=count > 0)
    assert signal.getsignal(signal.SIGINT) is handler
    assert train_into(tmp_path, store, each_step, resume=True) == digests_of(uninterrupted)


def test_two_checkpoints_are_kept(stopped: Path) -> None:
    files = sorted(path.name for path in (stopped / "checkpoints").iterdir())
    steps = ["step-000000000010.ckpt", "step-000000000011.ckpt"]
    assert files == sorted(["run_key", *steps, *(f"{step}.sha256" for step in steps)])


def test_a_damaged_checkpoint_is_passed_over(
    stopped: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    older, newest = list_checkpoints(stopped / "checkpoints")
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    assert newest_intact(stopped / "checkpoints") == older
    with pytest.raises(StopHereError):
        train_into(stopped, store, each_step, resume=True, on_progress=stop_after(3))
    kept = [path.stem for path in list_checkpoints(stopped / "checkpoints")]
    assert kept == ["step-000000000012", "step-000000000013"]
    assert train_into(stopped, store, each_step, resume=True) == digests_of(uninterrupted)


def test_without_an_intact_checkpoint_a_run_starts_afresh(
    stopped: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    """The damaged ones must not count as the newest, or each new one would be deleted at once."""
    for path in list_checkpoints(stopped / "checkpoints"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StopHereError):
        train_into(stopped, store, each_step, resume=True, on_progress=stop_after(3))
    assert newest_intact(stopped / "checkpoints") is not None
    assert train_into(stopped, store, each_step, resume=True) == digests_of(uninterrupted)
    assert metrics_of(stopped) == metrics_of(uninterrupted)


def test_a_new_run_in_an_old_folder_forgets_its_checkpoints(
    stopped: Path, store: EncodedStore, each_step: TrainConfig, train_into: TrainInto
) -> None:
    (stopped / "checkpoints" / ".step-000000000012.ckpt.77.tmp").write_bytes(b"of a crash")
    with pytest.raises(StopHereError):
        train_into(stopped, store, each_step, on_progress=stop_after(2))
    names = {path.name for path in (stopped / "checkpoints").iterdir()}
    assert not any("11" in name or name.endswith(".tmp") for name in names)


@pytest.mark.parametrize("change", [{"seed": 6}, {"batch_rows": 65}, {"before_window": ""}])
def test_another_config_is_refused(
    change: dict[str, object],
    stopped: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    train_into: TrainInto,
) -> None:
    other = each_step.model_copy(update=change)
    with pytest.raises(DataError, match="belong to another config or other data"):
        train_into(stopped, store, other, resume=True)


def test_what_changes_no_result_may_change(
    stopped: Path,
    store: EncodedStore,
    each_step: TrainConfig,
    uninterrupted: Path,
    train_into: TrainInto,
) -> None:
    other = each_step.model_copy(update={"loader_workers": 1, "checkpoint_every_s": 77.0})
    assert train_into(stopped, store, other, resume=True) == digests_of(uninterrupted)


def test_other_data_is_refused(
    stopped: Path, store: EncodedStore, each_step: TrainConfig, train_into: TrainInto
) -> None:
    store.sha256_by_column["label.click"] = "0" * 64
    with pytest.raises(DataError, match="other data"):
        train_into(stopped, store, each_step, resume=True)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize(
    "write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))]
)
def test_code_in_a_checkpoint_is_refused(
    write: Callable[[object, Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "step-000000000001.ckpt"
    write({"weights": Bomb()}, path)
    with pytest.raises(DataError, match="is no checkpoint of ours"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_checkpoint_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "step-000000000001.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"step-000000000001.ckpt: is no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path)
