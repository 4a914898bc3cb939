"""Candidate lists to slates: `ranker score` beside its own plain path and the peers' predict.

    python benchmarks/scoring.py [--quick] [--rounds N] [--environments DIR]

Workload A's model (8 experts [256, 128] on 20 embeddings and 10 numbers) scores lists of 300 from
100,000 items, half of its inputs the user's or the context's, half the item's. Its weights are
random: the time does not depend on them. `ranker score` runs as a process of its own, imports
included, from Parquet to the Parquet of the best 50; peers get rows that are joined, encoded and
in memory, and only their predict is timed.
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from arms import ENVIRONMENTS, PEERS, run_process
from record import (
    Arguments,
    Figure,
    make_parser,
    median_figure,
    progress,
    publish,
    ratio_figure,
)
from roofline import sgemm_gflops
from scoring_data import (
    LIST_LENGTH,
    MODEL,
    NUM_ITEMS,
    ScoringData,
    write_candidates,
    write_model,
    write_rows_for_peers,
)

SLATE_SIZE = 50
RUNTIMES = ("factorised", "plain")
SCORING_PEERS = ("torch_rechub", "deepctr_torch")
THREADS = 2
NUM_TASKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured: requests of the job, of the peers, of the memory runs; rounds."""

    requests: int
    peer_requests: int
    memory_requests: tuple[int, ...]
    ray_requests: tuple[int, ...]
    rounds: int


QUICK = Sizes(requests=400, peer_requests=100, memory_requests=(), ray_requests=(), rounds=1)
FULL = Sizes(
    requests=10_000,
    peer_requests=700,
    memory_requests=(3_334, 100_000),
    ray_requests=(3_000, 9_000),
    rounds=5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of `ranker score`: of the whole process, and what it says of itself."""

    wall_s: float
    peak_mb: float
    candidates: int
    seconds_by_stage: dict[str, float]


class Bench:
    """Data below a folder, and the ways to score it."""

    def __init__(self, folder: Path, environments: Path) -> None:
        self.folder, self.environments = folder, environments
        progress("writing the bundle and the state")
        self.data: ScoringData = write_model(folder, seed=0)

    def candidates(self, num_requests: int) -> Path:
        """Lists for so many requests, written once."""
        path = self.folder / f"candidates-{num_requests}.parquet"
        return path if path.exists() else write_candidates(path, num_requests=num_requests, seed=1)

    def score(self, num_requests: int, *, runtime: str, engine: str = "local") -> JobRun:
        """`ranker score` in a process of its own."""
        output, log = self.folder / "slates", self.folder / "score.json"
        shutil.rmtree(output, ignore_errors=True)
        words = ["score", "--bundle", self.data.bundle, "--state", self.data.state]
        words += ["--candidates", self.candidates(num_requests), "--output", output]
        words += ["--set", f"runtime={runtime}", "--set", f"slate.size={SLATE_SIZE}"]
        words += ["--set", f"threads={THREADS if engine == 'local' else 1}", "--json", "--quiet"]
        if engine == "ray":
            words += ["--engine", "ray", "--workers", "2"]
        command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
        wall_s, peak_mb = run_process(command, log, threads=THREADS)
        summary = json.loads(log.read_text().strip().splitlines()[-1])
        return JobRun(
            wall_s=wall_s,
            peak_mb=peak_mb,
            candidates=num_requests * LIST_LENGTH,
            seconds_by_stage=summary["run"]["seconds_by_stage"],
        )

    def peer_rows_per_s(self, peer: str, num_requests: int) -> float:
        """A peer's own predict, on rows that are ready."""
        rows, output = self.folder / "peer-rows", self.folder / f"peer-{peer}"
        if not rows.exists():
            write_rows_for_peers(rows, self.data, num_requests=num_requests, seed=2)
        output.mkdir(exist_ok=True)
        python = self.environments / peer / "bin" / "python"
        command = [str(python), str(PEERS / f"score_{peer}.py"), "--data", str(rows)]
        command += ["--output", str(output), "--threads", str(THREADS)]
        run_process(command, output / "log.txt", threads=THREADS)
        return float(json.loads((output / "timing.json").read_text())["rows_per_s"])

    def peers(self) -> list[str]:
        """The peers whose environments have been made."""
        return [peer for peer in SCORING_PEERS if (self.environments / peer / "bin").is_dir()]


def multiplications_left() -> int:
    """Multiply-adds a candidate still costs: all above the first layer."""
    bottom = MODEL["bottom"]
    assert isinstance(bottom, dict)
    first, second = bottom["expert_widths"]
    (tower,) = MODEL["tower_widths"]  # type: ignore[misc]
    experts = bottom["num_experts"] * first * second
    mixture = NUM_TASKS * bottom["num_experts"] * second
    return int(experts + mixture + NUM_TASKS * (second * tower + tower))


def measure(bench: Bench, sizes: Sizes) -> tuple[dict[str, Figure], dict[str, object]]:
    """Interleaved rounds of both runtimes and of every peer."""
    rates: dict[str, list[float]] = {name: [] for name in (*RUNTIMES, *bench.peers())}
    runs: dict[str, list[JobRun]] = {name: [] for name in RUNTIMES}
    gflops = []
    for number in range(sizes.rounds):
        progress(f"round {number + 1} of {sizes.rounds}")
        for runtime in RUNTIMES:
            run = bench.score(sizes.requests, runtime=runtime)
            runs[runtime].append(run)
            rates[runtime].append(run.candidates / run.wall_s)
        for peer in bench.peers():
            rates[peer].append(bench.peer_rows_per_s(peer, sizes.peer_requests))
        gflops.append(sgemm_gflops(threads=THREADS))
    figures = {f"{name}_rows_per_s": median_figure(several) for name, several in rates.items()}
    figures["factorised_over_plain"] = ratio_figure(rates["factorised"], rates["plain"])
    if bench.peers():
        best = [max(several) for several in zip(*(rates[p] for p in bench.peers()), strict=True)]
        figures["factorised_over_best_peer"] = ratio_figure(rates["factorised"], best)
    figures |= _shares(runs["factorised"])
    figures |= _roofline(runs["factorised"], rates["factorised"], gflops)
    details: dict[str, object] = {
        name: [run.seconds_by_stage for run in several] for name, several in runs.items()
    }
    return figures, details


def _shares(runs: list[JobRun]) -> dict[str, Figure]:
    """Each stage's share of the seconds of all stages; some stages run beside each other."""
    names = runs[0].seconds_by_stage
    return {
        f"share_{name.replace('-', '_')}": median_figure(
            [run.seconds_by_stage[name] / sum(run.seconds_by_stage.values()) for run in runs]
        )
        for name in names
    }


def _roofline(runs: list[JobRun], rates: list[float], gflops: list[float]) -> dict[str, Figure]:
    """What the products left would take if the machine did nothing else, beside what is taken."""
    possible = [1e9 * speed / (2 * multiplications_left()) for speed in gflops]
    forward = [run.candidates / run.seconds_by_stage["forward"] for run in runs]
    return {
        "sgemm_gflops": median_figure(gflops),
        "multiplications_left": Figure(value=multiplications_left()),
        "roofline_rows_per_s": median_figure(possible),
        "forward_rows_per_s": median_figure(forward),
        "forward_share_of_roofline": ratio_figure(forward, possible),
        "whole_job_share_of_roofline": ratio_figure(rates, possible),
    }


def measure_memory(bench: Bench, sizes: Sizes) -> dict[str, Figure]:
    """Peak memory by size of the input; the last one's over the first one's."""
    peaks = {}
    for requests in sizes.memory_requests:
        progress(f"memory with {requests * LIST_LENGTH:,} candidates")
        run = bench.score(requests, runtime="factorised")
        peaks[run.candidates] = run.peak_mb
    figures = {f"peak_mb_{num}": Figure(value=peak) for num, peak in peaks.items()}
    if len(peaks) > 1:
        first, *_, last = peaks.values()
        figures["peak_memory_ratio"] = Figure(value=last / first)
    return figures


def measure_ray(bench: Bench, sizes: Sizes) -> dict[str, Figure]:
    """Ray with two workers over local, per candidate once both have started.

    What starting costs falls out of the difference between a larger and a smaller job.
    """
    if not sizes.ray_requests or find_spec("ray") is None:
        return {}
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    for number in range(sizes.rounds):
        progress(f"ray, round {number + 1} of {sizes.rounds}")
        for engine, several in rates.items():
            small, large = (
                bench.score(requests, runtime="factorised", engine=engine)
                for requests in sizes.ray_requests
            )
            more = large.candidates - small.candidates
            several.append(more / (large.wall_s - small.wall_s))
    return {
        "local_started_rows_per_s": median_figure(rates["local"]),
        "ray_started_rows_per_s": median_figure(rates["ray"]),
        "ray_over_local": ratio_figure(rates["ray"], rates["local"]),
    }


def main() -> None:
    """Measure and publish."""
    parser = make_parser("scoring", description=__doc__)
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where the peers' environments are"
    )
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="of the full run")
    parsed = parser.parse_args()
    sizes = QUICK if parsed.quick else replace(FULL, rounds=parsed.rounds)
    with tempfile.TemporaryDirectory(prefix="ranker-scoring-") as folder:
        bench = Bench(Path(folder), parsed.environments)
        figures, details = measure(bench, sizes)
        figures |= measure_memory(bench, sizes) | measure_ray(bench, sizes)
    publish(
        "scoring",
        figures,
        arguments=Arguments(quick=parsed.quick, output=parsed.output),
        seeds=[0, 1, 2],
        settings={
            "requests": sizes.requests,
            "candidates_per_request": LIST_LENGTH,
            "catalogue": NUM_ITEMS,
            "slate": SLATE_SIZE,
            "threads": THREADS,
            "cores": os.cpu_count(),
            "rounds": sizes.rounds,
            "weights": "random",
        },
        details=details,
    )


if __name__ == "__main__":
    main()
