"""Ours: what `ranker train` does, with the shipped config and the setting's overrides."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from quality_job import REQUESTS, TASKS, predicted_rows, read_job, write_result

from pipelines.predicted_rows import predict_rows
from ranker.bundle import load_bundle
from ranker.config import load_config
from ranker.data.store import EncodedStore
from ranker.evaluation.rows import EvaluationRows
from ranker.training.fit import TrainConfig, train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "train" / "kuairand.yaml"


def main() -> None:
    job = read_job()
    overrides = [
        *(f"{key}={json.dumps(value)}" for key, value in job.settings.items()),
        *(f"before_window='{job.train_before}'", f"seed={job.seed}", f"threads={job.threads}"),
    ]
    store, run = EncodedStore(job.prepared), job.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    train(store, load_config(TrainConfig, CONFIG, overrides), run)
    rows = predicted_rows(job)
    unlabelled = EvaluationRows(
        start=job.train_stop, stop=job.stop, labels={}, users=rows, lists=rows
    )
    bundle = load_bundle(run / "bundle")
    predictions, _ = predict_rows(bundle, store, unlabelled)
    requests = np.load(job.exported / REQUESTS)[rows]
    in_lists, _ = predict_rows(bundle, store, unlabelled, requests=requests)
    parts = {task: [predictions[task], in_lists[task]] for task in TASKS}
    if job.progressive:
        before = pq.read_table(run / "progressive" / f"{job.progressive}.parquet")
        rows = np.concatenate([before.column("row").to_numpy(), rows])
        unknown = np.full(before.num_rows, np.nan)  # in lists: nobody asks for them
        parts = {
            task: [before.column(task).to_numpy(), own, unknown, lists]
            for task, (own, lists) in parts.items()
        }
    shutil.rmtree(run)
    found = {task: np.concatenate(values) for task, values in parts.items()}
    write_result(job, found, rows=rows, length={})


if __name__ == "__main__":
    main()
