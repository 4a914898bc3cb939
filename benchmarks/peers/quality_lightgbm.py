"""LightGBM, one model a task, stopped early on the validation days as its documentation advises."""

import lightgbm as lgb
import numpy as np
import pandas as pd
from quality_job import (
    TASKS,
    Features,
    Job,
    predicted_rows,
    read_features,
    read_job,
    read_labels,
    write_result,
)

LARGE = 255  # its histograms' bins
MAX_TREES, PATIENCE = 600, 50


def read_frame(job: Job, features: Features) -> pd.DataFrame:
    """All columns, ids of few values as categories."""
    columns = {}
    for name, indices in features.categorical.items():
        size = features.sizes[features.vocabulary[name]]
        if size <= LARGE:
            columns[name] = pd.Categorical(indices, categories=np.arange(size))
        elif job.settings["large_ids"] == "numbers":
            columns[name] = indices
    return pd.DataFrame({**columns, **features.numeric})


def fit_task(job: Job, frame: pd.DataFrame, task: str) -> tuple[np.ndarray, int]:
    """Probabilities [N] of the predicted rows, and the number of trees that gave them."""
    labels = read_labels(job, stop=job.stop if job.choose_length else job.train_stop)[task]
    model = lgb.LGBMClassifier(
        n_estimators=MAX_TREES if job.choose_length else job.length[task],
        learning_rate=0.05,
        num_leaves=job.settings["num_leaves"],
        min_child_samples=100,
        reg_lambda=1.0,
        colsample_bytree=0.5,
        subsample=0.8,
        subsample_freq=1,
        random_state=job.seed,
        n_jobs=job.threads,
        verbosity=-1,
    )
    train, predicted = frame[: job.train_stop], frame[job.train_stop :]
    if not job.choose_length:
        model.fit(train, labels)
        return model.predict_proba(predicted)[:, 1], job.length[task]
    model.fit(
        train,
        labels[: job.train_stop],
        eval_X=predicted,
        eval_y=labels[job.train_stop :],
        eval_metric="auc",
        callbacks=[lgb.early_stopping(PATIENCE, first_metric_only=True, verbose=False)],
    )
    return model.predict_proba(predicted)[:, 1], int(model.best_iteration_)


def main() -> None:
    job = read_job()
    frame = read_frame(job, read_features(job))
    fitted = {task: fit_task(job, frame, task) for task in TASKS}
    write_result(
        job,
        {task: values for task, (values, _) in fitted.items()},
        rows=predicted_rows(job),
        length={task: num_trees for task, (_, num_trees) in fitted.items()},
    )


if __name__ == "__main__":
    main()
