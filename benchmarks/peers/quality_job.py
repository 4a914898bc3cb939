"""What the arms of the quality contest read and write, each run by its own interpreter.

    python quality_NAME.py JOB

JOB is a folder with job.json. The arm trains on the rows before ``train_stop``, predicts the rows
``train_stop:stop``, and leaves predictions.parquet (``row`` and a probability a task) and
result.json there. Unless it chooses a length, it predicts these rows a second time, as members of
their lists: with the request's features of their list's first impression (``list.`` and the task).
The features were prepared once, by `ranker prepare`, and are the same for every arm. Labels of the
days that are judged are not among the files.

Shapes: N rows, L elements of a sequence, F numbers.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STARTED_S = time.perf_counter()
TASKS = ("click", "long_view", "like")
JOB, PREDICTIONS, RESULT = "job.json", "predictions.parquet", "result.json"
FEATURES, LABELS, LAYOUT = "features.parquet", "labels.parquet", "layout.json"
REQUESTS = "requests.npy"  # [N], the row whose request a row is ranked by


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training of one arm.

    Attributes:
        folder: the job's own.
        prepared: what `ranker prepare` wrote.
        exported: the same features as Parquet, with the labels of the days before the judged ones.
        train_before: first window that is not trained on.
        train_stop, stop: rows before the first are trained on, those between are predicted.
        sizes: by vocabulary, at the end of training: an index not below it was not known then.
        progressive: a window in training that has to be predicted by the model that had not seen
            it, besides the others; "" for none.
        length: how long to train, by task: trees, or epochs; empty for an arm that chooses none.
        choose_length: choose the length by AUC on the predicted rows instead.
    """

    folder: Path
    prepared: Path
    exported: Path
    train_before: str
    train_stop: int
    stop: int
    sizes: dict[str, int]
    progressive: str
    settings: dict[str, object]
    length: dict[str, int]
    choose_length: bool
    seed: int
    threads: int

    @property
    def in_lists(self) -> bool:
        """Whether the predicted rows are predicted as members of their lists, too."""
        return not self.choose_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Rows 0:stop, then the predicted ones again as members of their lists (`Job.in_lists`).

    Indices are 0 for what was unknown when training ended; null numbers are NaN.

    Attributes:
        categorical: feature -> [N].
        sequences: feature -> [N, L], newest last, 0 in front.
        numeric: feature -> [N].
        vocabulary: of each categorical feature and sequence.
        sizes: by vocabulary.
        nullable: those of the numbers that may be null.
    """

    categorical: dict[str, np.ndarray]
    sequences: dict[str, np.ndarray]
    numeric: dict[str, np.ndarray]
    vocabulary: dict[str, str]
    sizes: dict[str, int]
    nullable: list[str]


def read_job() -> Job:
    """The job whose folder the command line names."""
    folder = Path(sys.argv[1])
    document = json.loads((folder / JOB).read_text())
    for name in ("prepared", "exported"):
        document[name] = Path(document[name])
    return Job(folder=folder, **document)


def read_features(job: Job) -> Features:
    """All prepared features up to the last row predicted, and of rows in their lists."""
    layout = json.loads((job.exported / LAYOUT).read_text())
    table = pq.read_table(job.exported / FEATURES)
    own = asked = np.arange(job.stop)
    if job.in_lists:
        again = np.arange(job.train_stop, job.stop)
        own, asked = (
            np.concatenate([own, rows]) for rows in (again, np.load(job.exported / REQUESTS)[again])
        )
    of_request = set(layout["of_request"])
    table = pa.table(
        {
            name: table.column(name).take(pa.array(asked if name in of_request else own))
            for name in table.column_names
        }
    )
    sizes = {**layout["fixed_sizes"], **job.sizes}
    vocabulary = {**layout["categorical"], **layout["sequences"]}

    def known(name: str, indices: np.ndarray) -> np.ndarray:
        return np.where(indices < sizes[vocabulary[name]], indices, 0)

    sequences = {}
    for name in layout["sequences"]:
        elements = table.column(name).combine_chunks().flatten().to_numpy()
        sequences[name] = known(name, elements).reshape(table.num_rows, -1)
    return Features(
        categorical={n: known(n, table.column(n).to_numpy()) for n in layout["categorical"]},
        sequences=sequences,
        numeric={name: table.column(name).to_numpy() for name in layout["numeric"]},
        vocabulary=vocabulary,
        sizes=sizes,
        nullable=layout["nullable"],
    )


def read_labels(job: Job, *, stop: int) -> dict[str, np.ndarray]:
    """Task -> labels [N] of rows 0:stop.

    Raises:
        ValueError: some of these rows are on a day that is judged.
    """
    table = pq.read_table(job.exported / LABELS)
    if stop > table.num_rows:
        raise ValueError(
            f"{job.exported}: holds the labels of {table.num_rows} rows, got stop={stop}; those of "
            "the judged days are kept away from the arms"
        )
    return {task: table.column(task).to_numpy()[:stop] for task in TASKS}


def write_result(
    job: Job, predictions: dict[str, np.ndarray], *, rows: np.ndarray, length: dict[str, int]
) -> None:
    """Write the probabilities of ``rows`` by task, then, as a mark of the end, result.json.

    Where ``job.in_lists``, those of the same rows in their lists follow in ``predictions``.
    """
    columns = {}
    for task in TASKS:
        values = np.asarray(predictions[task], dtype=np.float64)
        columns[task] = pa.array(values[: len(rows)])
        if job.in_lists:
            columns[f"list.{task}"] = pa.array(values[len(rows) :])
    pq.write_table(pa.table({"row": pa.array(rows), **columns}), job.folder / PREDICTIONS)
    result = {"length": length, "seconds": time.perf_counter() - STARTED_S}
    temporary = job.folder / f"{RESULT}.tmp"
    temporary.write_text(json.dumps(result))
    temporary.replace(job.folder / RESULT)


def predicted_rows(job: Job) -> np.ndarray:
    """The rows every arm predicts."""
    return np.arange(job.train_stop, job.stop)
