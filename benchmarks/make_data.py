"""Write a seeded synthetic log of any size, whose best possible AUC is known.

    python benchmarks/make_data.py --workload a --rows 2000000 --seed 0 --output DIR

DIR gets log.parquet (ten days in time order: eight to train on, one to validate, one to test),
truth.parquet (the tasks' true probabilities, row by row; no ranker may see them), schema.yaml for
`ranker`, and data.json, which tells peers what the columns are. Rows are made in chunks, so memory
does not grow with their number.

Workload A is bound by computing: 20 categorical features (10 to 200,000 ids), 10 numbers. Workload
B is bound by memory: one feature of 20 M ids, every one of which occurs in the first eight days.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from truth import FloatArray, Inputs, IntArray, Task, Truth, bayes_auc, draw_zipf

START_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
DAY_MS = 86_400_000
NUM_DAYS = 10
TRAIN_DAYS = 8
CHUNK_ROWS = 131_072
PILOT_ROWS = 50_000
SCRAMBLE = 2_654_435_761  # a prime: multiplying by it permutes the residues of any vocabulary
TASKS = (
    Task(name="engage", positive_rate=0.30, bayes_auc=0.80),
    Task(name="satisfy", positive_rate=0.04, bayes_auc=0.80),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A log's shape: ids by categorical feature, the number of numbers, and who owns a feature.

    ``swept`` is the feature whose every id occurs in the train days; "" if ids are drawn alone.
    """

    name: str
    vocabularies: dict[str, int]
    num_numbers: int
    default_rows: int
    swept: str = ""

    @property
    def numbers(self) -> list[str]:
        """Names of the numeric features."""
        return [f"num_{i:02d}" for i in range(1, self.num_numbers + 1)]


def workload_a() -> Workload:
    """20 vocabularies in a geometric row from 10 to 200,000; the largest two are user and item."""
    sizes = np.geomspace(10, 200_000, 20).round().astype(int).tolist()
    names = [*(f"cat_{i:02d}" for i in range(1, 19)), "item_id", "user_id"]
    return Workload(
        name="a",
        vocabularies=dict(zip(names, sizes, strict=True)),
        num_numbers=10,
        default_rows=2_000_000,
    )


def workload_b(num_ids: int = 20_000_000) -> Workload:
    """One vocabulary of ``num_ids`` beside four small ones; half as many rows again as ids."""
    small = {"cat_01": 11, "cat_02": 130, "item_id": 1_700}
    return Workload(
        name="b",
        vocabularies={**small, "user_id": num_ids},
        num_numbers=3,
        default_rows=num_ids * 3 // 2,
        swept="user_id",
    )


def write_log(workload: Workload, folder: Path, *, num_rows: int, seed: int) -> None:
    """Write the log, its truth, and its two descriptions into ``folder``.

    Raises:
        ValueError: too few rows for ten days, or for every id of a swept feature.
    """
    _check_rows(workload, num_rows)
    folder.mkdir(parents=True, exist_ok=True)
    truth = draw_truth(workload, seed=seed)
    probabilities: list[FloatArray] = []
    with (
        pq.ParquetWriter(folder / "log.parquet", _log_schema(workload)) as log,
        pq.ParquetWriter(folder / "truth.parquet", _truth_schema()) as truths,
    ):
        for table, known in _chunks(workload, truth, num_rows=num_rows, seed=seed):
            log.write_table(table)
            truths.write_table(known)
            in_test = table.column("time_ms").to_numpy() >= START_MS + (NUM_DAYS - 1) * DAY_MS
            probabilities.append(np.stack([known.column(t.name) for t in TASKS], axis=1)[in_test])
    test = np.concatenate(probabilities)
    best = {task.name: bayes_auc(test[:, k]) for k, task in enumerate(TASKS)}
    document = _description(workload, num_rows=num_rows, seed=seed) | {"bayes_auc_test": best}
    (folder / "data.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "schema.yaml").write_text(yaml.safe_dump(ranker_schema(workload), sort_keys=False))


def draw_truth(workload: Workload, *, seed: int) -> Truth:
    """The effects behind a log, calibrated on pilot rows that are not part of it."""
    rng = np.random.default_rng([seed, 0])
    truth = Truth(
        vocabularies=workload.vocabularies,
        num_numbers=workload.num_numbers,
        tasks=TASKS,
        rng=rng,
    )
    truth.calibrate(_draw_inputs(workload, PILOT_ROWS, rng=rng))
    return truth


def ranker_schema(workload: Workload) -> dict[str, object]:
    """The log's schema as `ranker` reads it: nothing is computed from the past."""
    owners = {"user_id": "user", "item_id": "item"}
    categorical = [
        {"name": name, "kind": "categorical", "owner": owners.get(name, "context")}
        for name in workload.vocabularies
    ]
    numeric = [{"name": n, "kind": "numeric", "owner": "context"} for n in workload.numbers]
    families = ("engagement", "satisfaction")
    return {
        "name": f"workload_{workload.name}",
        "log": {"user": "user_id", "item": "item_id", "time": "time_ms"},
        "list_by": "user_window",
        "features": [*categorical, *numeric],
        "tasks": [
            {
                "name": task.name,
                "label": task.name,
                "family": family,
                "kind": "binary",
                "score_weight": 1.0,
            }
            for task, family in zip(TASKS, families, strict=True)
        ],
        "history": None,
    }


def _chunks(
    workload: Workload, truth: Truth, *, num_rows: int, seed: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows and their true probabilities; a chunk depends on nothing but the seed and its number."""
    for number, start in enumerate(range(0, num_rows, CHUNK_ROWS)):
        rng = np.random.default_rng([seed, 1, number])
        row = np.arange(start, min(start + CHUNK_ROWS, num_rows))
        inputs = _draw_inputs(workload, len(row), rng=rng)
        if workload.swept:
            _sweep(workload, inputs, row, num_rows)
        probabilities = truth.probabilities(inputs)
        labels = rng.random(probabilities.shape) < probabilities  # [N, K]
        columns = {
            "time_ms": START_MS + row * (NUM_DAYS * DAY_MS) // num_rows,
            **{
                name: 1 + ranks * SCRAMBLE % workload.vocabularies[name]
                for name, ranks in inputs.ranks.items()
            },
            **dict(zip(workload.numbers, inputs.numbers.T.astype(np.float32), strict=True)),
            **{task.name: labels[:, k].astype(np.int8) for k, task in enumerate(TASKS)},
        }
        known = {task.name: probabilities[:, k] for k, task in enumerate(TASKS)}
        yield pa.table(columns, schema=_log_schema(workload)), pa.table(known)


def _draw_inputs(workload: Workload, num_rows: int, *, rng: np.random.Generator) -> Inputs:
    return Inputs(
        ranks={
            name: draw_zipf(num_rows, size, rng=rng) for name, size in workload.vocabularies.items()
        },
        numbers=rng.standard_normal((num_rows, workload.num_numbers)),
    )


def _sweep(workload: Workload, inputs: Inputs, row: IntArray, num_rows: int) -> None:
    """Let every id of the swept feature occur once, spread evenly over the train days."""
    num_ids, train_rows = workload.vocabularies[workload.swept], _train_rows(num_rows)
    # row r takes the ids from r * ids / rows on, if a new one begins there
    first, following = row * num_ids // train_rows, (row + 1) * num_ids // train_rows
    taken = (row < train_rows) & (following > first)
    inputs.ranks[workload.swept][taken] = first[taken]


def _train_rows(num_rows: int) -> int:
    """Rows of the train days: row r lies in them if r * NUM_DAYS // num_rows < TRAIN_DAYS."""
    return -(-num_rows * TRAIN_DAYS // NUM_DAYS)


def _check_rows(workload: Workload, num_rows: int) -> None:
    least = NUM_DAYS
    if workload.swept:
        least = -(-workload.vocabularies[workload.swept] * NUM_DAYS // TRAIN_DAYS)
    if num_rows < least:
        raise ValueError(
            f"--rows: workload {workload.name} needs at least {least:,}, got {num_rows:,}"
        )


def _log_schema(workload: Workload) -> pa.Schema:
    return pa.schema(
        [
            ("time_ms", pa.int64()),
            *((name, pa.int64()) for name in workload.vocabularies),
            *((name, pa.float32()) for name in workload.numbers),
            *((task.name, pa.int8()) for task in TASKS),
        ]
    )


def _truth_schema() -> pa.Schema:
    return pa.schema([(task.name, pa.float64()) for task in TASKS])


def _description(workload: Workload, *, num_rows: int, seed: int) -> dict[str, object]:
    return {
        "workload": workload.name,
        "rows": num_rows,
        "seed": seed,
        "categorical": list(workload.vocabularies),
        "vocabularies": workload.vocabularies,
        "numeric": workload.numbers,
        "tasks": [asdict(task) for task in TASKS],
        "validation_from_ms": START_MS + TRAIN_DAYS * DAY_MS,
        "test_from_ms": START_MS + (NUM_DAYS - 1) * DAY_MS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--workload", choices=["a", "b"], required=True)
    parser.add_argument("--rows", type=int, help="2 M for A, half as many again as ids for B")
    parser.add_argument("--ids", type=int, default=20_000_000, help="of workload B's large feature")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    workload = workload_a() if arguments.workload == "a" else workload_b(arguments.ids)
    num_rows = workload.default_rows if arguments.rows is None else arguments.rows
    try:
        write_log(workload, arguments.output, num_rows=num_rows, seed=arguments.seed)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
