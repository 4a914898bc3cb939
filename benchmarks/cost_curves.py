"""Cost curves: time and memory of `ranker prepare` and `ranker train` as rows and ids grow.

    python benchmarks/cost_curves.py [--quick] [--rows 1500000 6000000 30000000 75000000]

The log is workload B of `make_data.py`: one vocabulary of two thirds as many ids as there are rows,
so that both grow together; the embedding is 32 wide. Every command is a process of its own. Costs
are given per row (near linear: they stay level) and per step of one batch (flat in ids: likewise).
"""

import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from arms import Run, RunPlan, run_arm, run_process
from make_data import TRAIN_DAYS, workload_b, write_log
from record import REPOSITORY, Arguments, Figure, make_parser, progress, publish

from ranker.data.store import EncodedStore

BATCH_ROWS = 4_096
QUICK_ROWS, FULL_ROWS = (60_000, 240_000), (1_500_000, 6_000_000, 30_000_000, 75_000_000)
THREADS = 2


def measure_size(folder: Path, *, num_rows: int) -> dict[str, Figure]:
    """Prepare and train on a log of ``num_rows``, written below ``folder`` and deleted after."""
    progress(f"writing {num_rows:,} rows")
    write_log(workload_b(num_rows * 2 // 3), folder, num_rows=num_rows, seed=0)
    words = ["--schema", folder / "schema.yaml", "--log", folder / "log.parquet"]
    words += ["--output", folder / "prepared", "--quiet"]
    progress("ranker prepare")
    prepare_s, prepare_mb = run_process(
        [sys.executable, "-m", "pipelines.cli", "prepare", *map(str, words)],
        folder / "prepare.txt",
        threads=THREADS,
    )
    progress("ranker train")
    plan = RunPlan(
        arm="ranker", data=folder, batch=BATCH_ROWS, threads=THREADS, train_days=TRAIN_DAYS
    )
    run = run_arm(plan, folder / "trained")
    windows = EncodedStore(folder / "prepared").windows[:TRAIN_DAYS]
    num_ids = max(windows[-1].vocabulary_sizes.values())
    trained_rows = sum(window.num_rows for window in windows)
    figures = {
        "ids": float(num_ids),
        "prepare_s": prepare_s,
        "prepare_us_per_row": prepare_s / num_rows * 1e6,
        "prepare_peak_mb": prepare_mb,
        "train_s": run.timing["saved_s"],
        "train_us_per_row": run.timing["saved_s"] / trained_rows * 1e6,
        "train_step_ms": BATCH_ROWS / run.timing["examples_per_s"] * 1e3,
        "train_peak_mb": run.timing["peak_rss_mb"],  # until the bundle is saved
        "bundle_mb": _folder_mb(run),
    }
    return {f"rows_{num_rows}_{name}": Figure(value=value) for name, value in figures.items()}


def growth(figures: dict[str, Figure], sizes: Sequence[int]) -> dict[str, Figure]:
    """Exponent of cost between neighbouring sizes: 1 is linear in rows, 0 is flat."""
    found = {}
    for small, large in pairwise(sizes):
        for name in ("prepare_s", "train_s", "train_step_ms", "prepare_peak_mb", "train_peak_mb"):
            before, after = (figures[f"rows_{n}_{name}"].value or 1.0 for n in (small, large))
            exponent = math.log(after / before) / math.log(large / small)
            found[f"exponent_{small}_to_{large}_{name}"] = Figure(value=exponent)
    return found


def _folder_mb(run: Run) -> float:
    files = (run.folder / "run" / "bundle").rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20


def main() -> None:
    """Measure and publish."""
    parser = make_parser("cost_curves", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", help="sizes of the log, ascending")
    parsed = parser.parse_args()
    sizes = parsed.rows or (QUICK_ROWS if parsed.quick else FULL_ROWS)
    below = REPOSITORY / "runs" / "benchmarks"
    below.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="cost_curves_", dir=below) as name:
        for num_rows in sizes:
            folder = Path(name) / str(num_rows)
            figures |= measure_size(folder, num_rows=num_rows)
            shutil.rmtree(folder)
    figures |= growth(figures, sizes)
    publish(
        "cost_curves",
        figures,
        arguments=Arguments(quick=parsed.quick, output=parsed.output),
        seeds=[0],
        settings={"rows": list(sizes), "batch_rows": BATCH_ROWS, "threads": THREADS},
    )


if __name__ == "__main__":
    main()
