"""The arms of the quality contest: who they are, and their runs, each in a process of its own.

A run is kept in a folder named after all it depends on, so that an interrupted contest goes on
where it stopped, and a change to an arm makes its runs anew.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import yaml
from arms import PEERS, has_peer
from peers.quality_job import JOB, PREDICTIONS, RESULT, TASKS
from quality_data import SCHEMA, Split, digest_of, run_to_file
from record import REPOSITORY, progress

from ranker.data.store import EncodedStore

CONFIG = Path(__file__).resolve().parent / "configs" / "quality.yaml"
OURS_SCRIPT = "quality_ranker"
FloatArray = npt.NDArray[np.float64]
Predictions = Mapping[str, FloatArray]  # task -> probabilities [N]
Settings = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A ranker that takes part.

    Attributes:
        script: in peers/.
        environment: the peer's; "" for ours.
        is_progressive: it predicts each day before training on it, so that one run gives the
            predictions of the calibration day as well.
        grid: the settings it may choose from.
        quick_length: how long to train where nothing is chosen; see `quality_job.Job.length`.
    """

    name: str
    script: str
    grid: tuple[Settings, ...]
    environment: str = ""
    is_progressive: bool = False
    quick_length: Mapping[str, int] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        if not self.environment:
            return Path(sys.executable)
        return PEERS / ".environments" / self.environment / "bin" / "python"

    @property
    def is_here(self) -> bool:
        """Whether its environment has been made."""
        return not self.environment or has_peer(self.environment)


def read_arms() -> list[Arm]:
    """All arms of configs/quality.yaml."""
    document = yaml.safe_load(CONFIG.read_text())
    return [
        Arm(name=name, **{**entry, "grid": tuple(entry["grid"])})
        for name, entry in document.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: an arm with some settings and a seed on a split; lengths as in `quality_job.Job`."""

    arm: Arm
    split: Split
    settings: Settings
    seed: int = 0
    length: Mapping[str, int] = field(default_factory=dict)
    choose_length: bool = False
    progressive: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run left."""

    folder: Path
    length: Mapping[str, int]
    seconds: float

    def predictions(self, *, start: int, stop: int, in_lists: bool = False) -> Predictions:
        """Those of the store's rows ``start:stop``, or of these as members of their lists.

        Raises:
            ValueError: it did not predict exactly these rows, or not with probabilities.
        """
        table = pq.read_table(self.folder / PREDICTIONS)
        rows = table.column("row").to_numpy()
        table = table.filter((rows >= start) & (rows < stop))
        if not np.array_equal(table.column("row").to_numpy(), np.arange(start, stop)):
            raise ValueError(f"{self.folder}: rows {start}:{stop} are not predicted once, in order")
        kind = "list." if in_lists else ""
        found = {task: table.column(f"{kind}{task}").to_numpy() for task in TASKS}
        for task, values in found.items():
            if not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{self.folder}: {task!r} holds other than probabilities")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where runs are made and kept, and how many at a time."""

    work: Path
    store: EncodedStore
    jobs: int

    @property
    def exported(self) -> Path:
        """The features as Parquet."""
        return self.work / "exported"

    def make(self, plans: Sequence[Plan]) -> list[Run]:
        """Run all ``plans``, or find what was kept of them.

        Raises:
            arms.ArmError: a run failed.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._make, plan) for plan in plans]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _make(self, plan: Plan) -> Run:
        document = self._document(plan)
        text = json.dumps([document, self._source(plan.arm)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = f"{plan.arm.name}_before_{plan.split.train_before}_seed_{plan.seed}_{digest}"
        folder = self.work / "runs" / name
        if not (folder / RESULT).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / JOB).write_text(json.dumps(document, indent=1))
            command = [str(plan.arm.python), str(PEERS / f"{plan.arm.script}.py"), str(folder)]
            run_to_file(command, folder / "output.txt")
            progress(f"made {name}")
        result = json.loads((folder / RESULT).read_text())
        return Run(folder=folder, length=result["length"], seconds=result["seconds"])

    def _document(self, plan: Plan) -> dict[str, object]:
        return {
            "prepared": str(self.store.folder),
            "exported": str(self.exported),
            "train_before": plan.split.train_before,
            "train_stop": plan.split.start,
            "stop": plan.split.stop,
            "sizes": plan.split.sizes,
            "progressive": plan.progressive,
            "settings": dict(plan.settings),
            "length": dict(plan.length),
            "choose_length": plan.choose_length,
            "seed": plan.seed,
            "threads": 1,
        }

    def _source(self, arm: Arm) -> list[str]:
        """What a run depends on besides its job: the data, and the code that reads it."""
        files = [PEERS / "quality_job.py", PEERS / f"{arm.script}.py", SCHEMA]
        if arm.script == OURS_SCRIPT:
            files.append(REPOSITORY / "configs" / "train" / "kuairand.yaml")
            files += sorted((REPOSITORY / "ranker").rglob("*.py"))
        code = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
        return [digest_of(self.store), code]
