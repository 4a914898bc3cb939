"""Ours: what `ranker train` does, with the shipped config and the setting's overrides."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from quality_job import TASKS, predicted_rows, read_job, write_result

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
    predictions, _ = predict_rows(load_bundle(run / "bundle"), store, unlabelled)
    if job.progressive:
        before = pq.read_table(run / "progressive" / f"{job.progressive}.parquet")
        rows = np.concatenate([before.column("row").to_numpy(), rows])
        predictions = {
            task: np.concatenate([before.column(task).to_numpy(), predictions[task]])
            for task in TASKS
        }
    shutil.rmtree(run)
    write_result(job, predictions, rows=rows, length={})


if __name__ == "__main__":
    main()
