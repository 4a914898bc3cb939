"""LightGBM as its documentation advises: one boosted model a task, stopped early on validation.

Features of up to 250 ids are categorical; larger ones become numbers, as its documentation
recommends: how often an id has been seen and its smoothed positive rate, both from earlier rows
alone, so that no row's own label is among its features.
"""

from protocol import Stopwatch, describe, parse_arguments, save_predictions, split_bounds

arguments = parse_arguments()
stopwatch = Stopwatch(arguments)

import lightgbm as lgb  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

MAX_CATEGORIES = 250  # its histograms have 255 bins
PRIOR_ROWS = 20

stopwatch.mark("imported")
log = describe(arguments.data)
data = pd.read_parquet(arguments.data / "log.parquet")
validation, test = split_bounds(data["time_ms"], log)
distinct = data[log.categorical].nunique()
small = [name for name in log.categorical if distinct[name] <= MAX_CATEGORIES]
large = [name for name in log.categorical if distinct[name] > MAX_CATEGORIES]
inputs = data[log.numeric].copy()
for name in small:
    inputs[name] = data[name].astype("category")


def past_rates(ids: pd.Series, label: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Times an id was seen before, and its positive rate then; frozen at the end of training."""
    frozen = np.arange(len(ids)) >= validation
    counted = pd.Series((~frozen).astype(np.float32))
    hits = label.reset_index(drop=True).where(~frozen, 0).astype(np.float32)
    groups = ids.to_numpy()
    seen = counted.groupby(groups).cumsum() - counted
    positive = hits.groupby(groups).cumsum() - hits
    prior = label[:validation].mean()
    rate = (positive + PRIOR_ROWS * prior) / (seen + PRIOR_ROWS)
    return seen.to_numpy(), rate.to_numpy()


def columns_of(task: str) -> pd.DataFrame:
    columns = inputs.copy()
    for name in large:
        columns[f"{name}_seen"], columns[f"{name}_rate"] = past_rates(data[name], data[task])
    return columns


columns_by_task = {task: columns_of(task) for task in log.tasks}
stopwatch.mark("data_ready")

predictions = np.zeros((len(data) - test, len(log.tasks)))
for number, (task, columns) in enumerate(columns_by_task.items()):
    model = lgb.LGBMClassifier(
        n_estimators=arguments.limit_steps or 1_000,
        learning_rate=0.05,
        num_leaves=63,
        min_child_samples=100,
        random_state=arguments.seed,
        n_jobs=arguments.threads,
    )
    model.fit(
        columns[:validation],
        data[task][:validation],
        eval_X=columns[validation:test],
        eval_y=data[task][validation:test],
        eval_metric="auc",
        callbacks=[lgb.early_stopping(30), lgb.log_evaluation(100)],
    )
    predictions[:, number] = model.predict_proba(columns[test:])[:, 1]
stopwatch.mark("trained")
stopwatch.save(rows=validation)
save_predictions(arguments, predictions)
