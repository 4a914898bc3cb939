"""What the peers' scoring scripts share: arguments, what is to be scored, the time it takes.

    python score_NAME.py --data DIR --output DIR [--threads 2]

DIR of the data holds rows.parquet, candidates side by side with all their features, ids from 0 and
numbers ready for use, and rows.json, which names the columns. OUTPUT gets timing.json. Only the
peer's own predict is timed, once to warm up and `ROUNDS` times: no reading, encoding or ranking.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from protocol import MODEL_SIZES, ModelSize

BATCH_ROWS = 4096
WARM_UP_ROWS = 16_384
ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringJob:
    """The rows' columns, how many ids each categorical one has, and the model wanted."""

    columns: dict[str, np.ndarray]
    num_ids: dict[str, int]
    numeric: list[str]
    tasks: list[str]
    size: ModelSize
    threads: int
    output: Path


def read_job() -> ScoringJob:
    """Read the command line and the rows."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = pd.read_parquet(arguments.data / "rows.parquet")
    document = json.loads((arguments.data / "rows.json").read_text())
    return ScoringJob(
        columns={name: rows[name].to_numpy() for name in rows.columns},
        num_ids=document["num_ids"],
        numeric=document["numeric"],
        tasks=document["tasks"],
        size=MODEL_SIZES["a"],
        threads=arguments.threads,
        output=arguments.output,
    )


def time_predict(job: ScoringJob, predict: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Call ``predict`` with the columns and write how many rows it predicts a second."""
    predict({name: values[:WARM_UP_ROWS] for name, values in job.columns.items()})
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        predict(job.columns)
        seconds.append(time.perf_counter() - started)
    num_rows = len(next(iter(job.columns.values())))
    timing = {"rows": num_rows, "rows_per_s": num_rows / float(np.median(seconds))}
    (job.output / "timing.json").write_text(json.dumps(timing) + "\n")
