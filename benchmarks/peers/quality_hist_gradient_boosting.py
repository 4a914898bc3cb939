"""scikit-learn's histogram boosting, one model a task."""

import numpy as np
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
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

MAX_CATEGORIES = 255  # its bins
MAX_TREES, LOOK_EVERY = 300, 5


def read_matrix(job: Job, features: Features) -> tuple[np.ndarray, list[bool]]:
    """All columns side by side [N, F], and which of them are categories."""
    small, large = [], []
    for name, indices in features.categorical.items():
        size = features.sizes[features.vocabulary[name]]
        (small if size <= MAX_CATEGORIES else large).append(indices)
    columns = [*small, *features.numeric.values()]
    if job.settings["large_ids"] == "numbers":
        columns += large
    is_category = [number < len(small) for number in range(len(columns))]
    return np.stack([column.astype(np.float32) for column in columns], axis=1), is_category


def fit_task(
    job: Job, matrix: np.ndarray, is_category: list[bool], task: str
) -> tuple[np.ndarray, int]:
    """Probabilities [N] of the predicted rows, and the number of trees that gave them."""
    labels = read_labels(job, stop=job.stop if job.choose_length else job.train_stop)[task]
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=MAX_TREES if job.choose_length else job.length[task],
        max_leaf_nodes=job.settings["max_leaf_nodes"],
        min_samples_leaf=100,
        l2_regularization=1.0,
        max_features=0.5,
        categorical_features=is_category,
        early_stopping=False,
        random_state=job.seed,
    )
    model.fit(matrix[: job.train_stop], labels[: job.train_stop])
    if not job.choose_length:
        return model.predict_proba(matrix[job.train_stop :])[:, 1], job.length[task]
    best_auc, best, num_trees = 0.0, np.empty(0), 0
    for number, staged in enumerate(model.staged_predict_proba(matrix[job.train_stop :]), start=1):
        if number % LOOK_EVERY == 0:
            auc = roc_auc_score(labels[job.train_stop :], staged[:, 1])
            if auc > best_auc:
                best_auc, best, num_trees = auc, staged[:, 1], number
    return best, num_trees


def main() -> None:
    job = read_job()
    matrix, is_category = read_matrix(job, read_features(job))
    fitted = {task: fit_task(job, matrix, is_category, task) for task in TASKS}
    write_result(
        job,
        {task: values for task, (values, _) in fitted.items()},
        rows=predicted_rows(job),
        length={task: num_trees for task, (_, num_trees) in fitted.items()},
    )


if __name__ == "__main__":
    main()
