"""Jobs killed, starved of disk and grown large: the same bytes, bounded memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain_run import Chain, run_ranker
from scoring_processes import (
    ROOT,
    WAIT_S,
    command,
    end,
    finish,
    partial_of,
    repeated,
    start,
    wait_for_parts,
)

from ranker.atomic import sha256_of

NUM_KILLS = 5
SHARDS = ["--set", "shard_rows=100"]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_job_killed_five_times_ends_in_the_same_bytes(
    seed: int, chain: Chain, tmp_path: Path
) -> None:
    done = finish(command(chain, tmp_path / "whole", *SHARDS))
    assert done.returncode == 0, done.stderr
    num_parts = len(digests(tmp_path / "whole")) - 1
    assert num_parts > 60
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(np.arange(num_parts - 5), size=NUM_KILLS, replace=False))
    delays_s = rng.uniform(0, 0.05, size=NUM_KILLS)
    sys.stdout.write(f"seed {seed}: killed after {numbers} parts and {delays_s} s\n")
    output, kept = tmp_path / "killed", 0
    for attempt, (number, delay_s) in enumerate(zip(numbers, delays_s, strict=True)):
        more = ["--resume"] if attempt else []
        process = start(command(chain, output, *SHARDS, *more))
        wait_for_parts(process, output, int(number) + 1)
        time.sleep(delay_s)
        code, errors = end(process, signal.SIGKILL)
        assert code == -signal.SIGKILL, errors
        assert not output.exists()
        found = len(list(partial_of(output).glob(".part-*.json")))
        assert found > kept or found > number
        kept = found
    done = finish(command(chain, output, *SHARDS, "--resume", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["shards_kept"] >= kept - 1
    assert digests(output) == digests(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_is_obeyed_and_resumed(chain: Chain, tmp_path: Path) -> None:
    output = tmp_path / "slates"
    process = start(command(chain, output, *SHARDS))
    wait_for_parts(process, output, 7)
    code, errors = end(process, signal.SIGINT)
    assert code == 130, errors
    assert errors.splitlines()[-1].startswith("ranker: interrupted; to go on: ranker score ")
    assert errors.splitlines()[-1].endswith(" --resume")
    done = finish(command(chain, output, *SHARDS, "--resume", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"]["shards_kept"] >= 7


@pytest.mark.parametrize("tiny_disk", [2048], indirect=True)
def test_a_disk_that_is_full_and_then_is_not(chain: Chain, tmp_path: Path, tiny_disk: Path) -> None:
    shards = ["--set", "shard_rows=1000"]
    words = ["score", *command(chain, tiny_disk / "slates", *shards, "--json")[4:]]
    assert run_ranker(*words).code == 0
    whole = digests(tiny_disk / "slates")
    size = sum(file.stat().st_size for file in (tiny_disk / "slates").iterdir())
    (tiny_disk / "ballast").write_bytes(bytes(2 * 2**20 - size - size // 2 - 20_000))
    ran = run_ranker(*words)
    assert ran.code == 5, ran
    assert "the disk is full" in ran.err and ran.err.endswith(" --resume\n")
    assert digests(tiny_disk / "slates") == whole, "the earlier output is intact"
    num_kept = len(list(partial_of(tiny_disk / "slates").glob(".part-*.json")))
    assert num_kept > 0
    (tiny_disk / "ballast").unlink()
    assert run_ranker(*words, "--resume").json["run"]["shards_kept"] == num_kept
    assert digests(tiny_disk / "slates") == whole


PEAK = """
import resource, sys
from pipelines.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
raise SystemExit(code)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(chain: Chain, tmp_path: Path) -> None:
    frame = pd.read_parquet(chain.candidates)
    peaks = []
    for times in (8, 80):
        path = tmp_path / f"{times}.parquet"
        repeated(frame, times).to_parquet(path, row_group_size=50_000)
        words = command(
            chain, tmp_path / f"slates-{times}", "--set", "shard_rows=20000", candidates=path
        )
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *words[3:], "--quiet"],
            cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stderr.splitlines()[-1]))
    sys.stdout.write(f"peak memory, kB: {peaks}\n")
    assert peaks[1] < 1.1 * peaks[0]
