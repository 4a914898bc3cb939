"""Workload C: one progressive pass over KuaiRand's 14 days, sequences and all, as users run it."""

import os
import shutil
import sys
from pathlib import Path

from arms import run_process
from quality_data import prepare, raw_inputs
from record import REPOSITORY, Figure, median_figure, progress

CONFIG = REPOSITORY / "configs" / "train" / "kuairand.yaml"
RAW = "kuairand_pure_0425_0508"


def real_figures(work: Path, *, rounds: int) -> dict[str, Figure]:
    """Wall time of `ranker train`, imports and the bundle included; none without RANKER_DATA."""
    if "RANKER_DATA" not in os.environ:
        progress("workload C is left out: RANKER_DATA is not set")
        return {}
    store = prepare(raw_inputs(Path(os.environ["RANKER_DATA"]) / RAW), work / "c")
    walls_s = []
    for number in range(rounds):
        progress(f"workload C, round {number + 1} of {rounds}")
        output = work / f"c_{number}"
        shutil.rmtree(output, ignore_errors=True)
        command = [
            *(sys.executable, "-m", "pipelines.cli", "train", "--data", str(store.folder)),
            *("--config", str(CONFIG), "--set", 'before_window=""', "--output", str(output)),
        ]
        wall_s, _ = run_process(command, work / f"c_{number}.txt", threads=2)
        walls_s.append(wall_s)
    return {
        "c_ranker_wall_s": median_figure(walls_s),
        "c_ranker_rows_per_s": median_figure([store.num_rows / wall_s for wall_s in walls_s]),
    }
