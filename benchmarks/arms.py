"""The arms of the speed contest, each run in a process of its own and timed from outside.

An arm is `ranker`, our plain loop, or a peer whose environment has been made. All obey the protocol
of benchmarks/peers/protocol.py. What a run measured is kept in its folder, so that a long contest
can be taken up again.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
PEERS = BENCHMARKS / "peers"
ENVIRONMENTS = PEERS / ".environments"
RUN_FILE, FAILURE_FILE = "run.json", "failed.txt"
OURS = ("ranker", "plain_loop")
TORCH_PEERS = ("torch_rechub", "deepctr_torch", "fuxictr")
_SAMPLE_EVERY_S = 1.0  # a sample walks the page tables: five a second took a tenth of a core


class ArmError(Exception):
    """An arm's process failed; the message ends with what it last printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run of one arm: a peer stops after ``limit_steps``, ours train on ``train_days``."""

    arm: str
    data: Path
    batch: int
    seed: int = 0
    threads: int = 2
    limit_steps: int = 0
    train_days: int = 8
    overrides: tuple[str, ...] = ()  # of our own config


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run measured: wall time of the process, its timing.json, and the memory.

    ``peak_memory_mb`` is the sum over the process and all it started, shared pages counted once.
    """

    wall_s: float
    peak_memory_mb: float
    timing: dict[str, float]
    folder: Path

    @property
    def predictions(self) -> Path:
        """Where a whole pass leaves its test predictions."""
        return self.folder / "predictions.parquet"


def available_peers() -> list[str]:
    """The torch peers whose environments have been made, in their usual order."""
    return [name for name in TORCH_PEERS if has_peer(name)]


def has_peer(name: str) -> bool:
    """Whether a peer's environment has been made to the end."""
    return (ENVIRONMENTS / name / "installed.txt").is_file()


def run_arm(plan: RunPlan, folder: Path) -> Run:
    """Run an arm into ``folder``, or read what an earlier run of it left there.

    Raises:
        ArmError: its process failed, then or now.
    """
    kept, failed = folder / RUN_FILE, folder / FAILURE_FILE
    if kept.is_file():
        return Run(**{**json.loads(kept.read_text()), "folder": folder})
    if failed.is_file():
        raise ArmError(failed.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    python = Path(sys.executable) if plan.arm in OURS else _peer_python(plan.arm)
    limit_steps = 0 if plan.arm in OURS else plan.limit_steps
    command = [
        *(str(python), str(PEERS / f"run_{plan.arm}.py")),
        *("--data", str(plan.data), "--output", str(folder), "--batch", str(plan.batch)),
        *("--threads", str(plan.threads), "--seed", str(plan.seed)),
        *("--limit-steps", str(limit_steps), "--train-days", str(plan.train_days)),
        *(word for override in plan.overrides for word in ("--override", override)),
    ]
    try:
        wall_s, peak_memory_mb = run_process(command, folder / "output.txt", threads=plan.threads)
    except ArmError as error:
        failed.write_text(str(error))
        raise
    timing = json.loads((folder / "timing.json").read_text())
    run = Run(wall_s=wall_s, peak_memory_mb=peak_memory_mb, timing=timing, folder=folder)
    kept.write_text(json.dumps({k: v for k, v in asdict(run).items() if k != "folder"}))
    return run


def prepare(data: Path, *, threads: int = 2) -> float:
    """`ranker prepare` into DATA/prepared; seconds of the process, kept for the next time.

    Raises:
        ArmError: it failed.
    """
    kept = data / "prepare.json"
    if not kept.is_file():
        command = [
            *(sys.executable, "-m", "pipelines.cli", "prepare"),
            *("--schema", str(data / "schema.yaml"), "--log", str(data / "log.parquet")),
            *("--output", str(data / "prepared")),
        ]
        wall_s, _ = run_process(command, data / "prepare.txt", threads=threads)
        kept.write_text(json.dumps(wall_s))
    return float(json.loads(kept.read_text()))


def run_process(command: Sequence[str], output: Path, *, threads: int) -> tuple[float, float]:
    """Run ``command`` with its output in a file: wall time in s, peak memory of the tree in MB.

    Raises:
        ArmError: it exited with another code than 0.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with output.open("w") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=BENCHMARKS.parent,
            start_new_session=True,
        )
        memory = _MemoryWatch(process.pid)
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            peak_memory_mb = memory.stop()
        wall_s = time.perf_counter() - started
    if code != 0:
        tail = output.read_text(errors="replace")[-2_000:]
        words = " ".join(Path(word).name for word in command[:4])
        raise ArmError(f"{words} exited with {code}:\n{tail}")
    return wall_s, peak_memory_mb


class _MemoryWatch:
    """Samples the memory of a process and its descendants until stopped (Linux; elsewhere 0)."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak_kb = pid, 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """The highest sum seen, in MB."""
        self._stopped.set()
        self._thread.join()
        return self._peak_kb / 1024

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_EVERY_S):
            # the process's own peak so far, which no sample has to hit
            self._peak_kb = max(self._peak_kb, _kb(self._pid, "status", "VmHWM:"))
            family = _descendants(self._pid)
            # walking page tables stalls a process, the longer the more memory it has: only where
            # there is something to add up
            if len(family) > 1:
                self._peak_kb = max(self._peak_kb, sum(_proportional_kb(pid) for pid in family))


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _proportional_kb(pid: int) -> int:
    """Memory of a process with each shared page divided among its users."""
    return _kb(pid, "smaps_rollup", "Pss:")


def _kb(pid: int, file: str, key: str) -> int:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(key)), 0)


def _peer_python(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"
