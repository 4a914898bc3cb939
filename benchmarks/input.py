"""From raw Parquet to batches: `ranker prepare` and the loader, beside plain pyarrow dictionaries.

    python benchmarks/input.py [--quick] [--rows N]

The log is workload A of `make_data.py`, in time order and shuffled. Each preparation is a process
of its own, imports included. The yardstick reads the same file and encodes every id column with
pyarrow's dictionaries, without checking, sorting, windows, a state or imports.
"""

import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from arms import run_process
from make_data import workload_a, write_log
from record import (
    Arguments,
    Figure,
    make_parser,
    median_figure,
    progress,
    publish,
    ratio_figure,
)

from ranker.data.loader import ShuffleSettings, WindowBatches
from ranker.data.store import EncodedStore

BATCH_ROWS = 4_096
QUICK_ROWS, FULL_ROWS = 200_000, 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def prepare(schema: Path, log: Path, output: Path) -> Cost:
    """`ranker prepare` as a user runs it."""
    words = ["prepare", "--schema", schema, "--log", log, "--output", output, "--quiet"]
    command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
    before = _cpu_s_of_children()
    wall_s, peak_mb = run_process(command, output.with_suffix(".txt"), threads=os.cpu_count() or 1)
    return Cost(wall_s=wall_s, cpu_s=_cpu_s_of_children() - before, peak_mb=peak_mb)


def _cpu_s_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_with_dictionaries(log: Path) -> float:
    """The least that has to be done: read, number the ids, standardise the numbers."""
    start = time.perf_counter()
    table = pq.read_table(log)
    for name in table.column_names:
        values = table.column(name).combine_chunks()
        if pa.types.is_floating(values.type):
            numbers = values.to_numpy(zero_copy_only=False)
            ((numbers - numbers.mean()) / numbers.std()).astype(np.float32)
        else:
            np.asarray(pc.dictionary_encode(values).indices, dtype=np.int32)
    return time.perf_counter() - start


def rows_per_s_of_loader(prepared: Path) -> float:
    """One shuffled pass over every window, batches made and not looked at."""
    store = EncodedStore(prepared)
    shuffle = ShuffleSettings(seed=0, block_rows=256, buffer_rows=131_072)
    start = time.perf_counter()
    for window in store.windows:
        batches = WindowBatches(
            store, window, pass_number=0, batch_rows=BATCH_ROWS, shuffle=shuffle
        )
        for number in range(len(batches)):
            _ = batches[number]
    return store.num_rows / (time.perf_counter() - start)


def shuffle_log(log: Path, shuffled: Path) -> None:
    """The same rows in random order."""
    table = pq.read_table(log)
    order = np.random.default_rng(0).permutation(table.num_rows)
    pq.write_table(table.take(pa.array(order)), shuffled, row_group_size=131_072)


def measure(folder: Path, *, num_rows: int, num_rounds: int) -> dict[str, Figure]:
    """Interleaved rounds of everything, on a log written below ``folder``."""
    write_log(workload_a(), folder, num_rows=num_rows, seed=0)
    schema, log, shuffled = (folder / n for n in ("schema.yaml", "log.parquet", "shuffled.parquet"))
    shuffle_log(log, shuffled)
    costs: dict[str, list[Cost]] = {"prepare": [], "prepare_shuffled": [], "prepare_again": []}
    yardstick_s, loader = [], []
    for number in range(num_rounds):
        progress(f"round {number + 1} of {num_rounds}")
        yardstick_s.append(seconds_with_dictionaries(log))
        output = folder / f"prepared-{number}"
        costs["prepare"].append(prepare(schema, log, output))
        costs["prepare_again"].append(prepare(schema, log, output))
        costs["prepare_shuffled"].append(prepare(schema, shuffled, folder / f"other-{number}"))
        loader.append(rows_per_s_of_loader(output))
    figures: dict[str, Figure] = {}
    for name, several in costs.items():
        figures[f"{name}_s"] = median_figure([cost.wall_s for cost in several])
        figures[f"{name}_cpu_s"] = median_figure([cost.cpu_s for cost in several])
        figures[f"{name}_peak_mb"] = median_figure([cost.peak_mb for cost in several])
    figures["yardstick_s"] = median_figure(yardstick_s)
    walls_s = [cost.wall_s for cost in costs["prepare"]]
    figures["prepare_over_yardstick"] = ratio_figure(walls_s, yardstick_s)
    figures["loader_rows_per_s"] = median_figure(loader)
    return figures


def main() -> None:
    """Measure and publish."""
    parser = make_parser("input", description=__doc__)
    parser.add_argument("--rows", type=int, help=f"rows of the log; {FULL_ROWS:,} in the full run")
    parsed = parser.parse_args()
    num_rows = parsed.rows or (QUICK_ROWS if parsed.quick else FULL_ROWS)
    num_rounds = 1 if parsed.quick else 5
    with tempfile.TemporaryDirectory(prefix="ranker-input-") as folder:
        figures = measure(Path(folder), num_rows=num_rows, num_rounds=num_rounds)
    publish(
        "input",
        figures,
        arguments=Arguments(quick=parsed.quick, output=parsed.output),
        seeds=[0],
        settings={"rows": num_rows, "rounds": num_rounds, "batch_rows": BATCH_ROWS},
    )


if __name__ == "__main__":
    main()
