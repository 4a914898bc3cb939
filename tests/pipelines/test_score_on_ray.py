"""Ray computes the same bytes, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from chain_run import Chain
from scoring_processes import command, end, finish, partial_of, start, wait_for_parts

from ranker.atomic import sha256_of

pytestmark = pytest.mark.ray

SHARDS = ["--set", "shard_rows=200"]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "slates"
    done = finish(command(chain, output, *SHARDS))
    assert done.returncode == 0, done.stderr
    return output


def on_ray(chain: Chain, output: Path, workers: int, *more: str) -> list[str]:
    return command(
        chain, output, *SHARDS, "--engine", "ray", "--workers", str(workers), "--json", *more
    )


@pytest.mark.parametrize("workers", [1, 3])  # 2 are killed at work below
def test_any_number_of_workers_writes_the_same_bytes(
    workers: int, chain: Chain, whole: Path, tmp_path: Path
) -> None:
    done = finish(on_ray(chain, tmp_path / "slates", workers, "--quiet"))
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["run"]["shards_kept"] == 0
    assert digests(tmp_path / "slates") == digests(whole)


def ray_workers(driver: int) -> list[int]:
    """The processes below the driver that run shards."""
    parents = {}
    names = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    below, grown = {driver}, True
    while grown:
        new = {child for child, parent in parents.items() if parent in below} - below
        below, grown = below | new, bool(new)
    return [pid for pid in below if b"ray::_score_shard" in names.get(pid, b"")]


def test_a_killed_worker_costs_nothing(chain: Chain, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "slates"
    process = start(on_ray(chain, output, 2))
    wait_for_parts(process, output, 2)
    killed = []
    while process.poll() is None and len(killed) < 2:
        busy = [pid for pid in ray_workers(process.pid) if pid not in killed]
        for pid in busy[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        time.sleep(0.01)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert killed, "no worker was caught at work"
    assert digests(output) == digests(whole)


def test_a_killed_driver_is_resumed(chain: Chain, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "slates"
    process = start(on_ray(chain, output, 2))
    wait_for_parts(process, output, 4)
    code, errors = end(process, signal.SIGKILL)
    assert code == -signal.SIGKILL, errors
    assert not output.exists()
    kept = len(list(partial_of(output).glob(".part-*.json")))
    done = finish(command(chain, output, *SHARDS, "--resume", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["shards_kept"] >= kept
    assert digests(output) == digests(whole)


def test_a_rejected_input_is_no_crash(chain: Chain, tmp_path: Path) -> None:
    """What a worker finds is said as if found here."""
    import pandas as pd

    path = tmp_path / "candidates.parquet"
    frame = pd.read_parquet(chain.candidates)
    frame.loc[203, "item_id"] = None
    frame.to_parquet(path, row_group_size=100)
    words = [*on_ray(chain, tmp_path / "slates", 1), "--candidates", str(path)]
    done = finish(words)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert f"{path}: row group 2, row 3, column 'item_id': null" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["candidates.parquet"]


def test_a_cluster_that_is_not_there(chain: Chain, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    words = command(chain, tmp_path / "slates", "--engine", "ray", "--ray-address", address)
    done = finish(words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert f"--ray-address {address}: nobody answers there" in done.stderr
    assert "Traceback" not in done.stderr
