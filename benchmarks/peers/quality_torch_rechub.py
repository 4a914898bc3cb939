"""torch-rechub's MMOE by its own path: feature columns, DataGenerator, MMOE, MTLTrainer.

Ids are SparseFeatures, histories SequenceFeatures pooled by their mean, sharing the embedding of
the item's feature; numbers are one vector-valued DenseFeature, null = 0 with an indicator. Its
likes learn for longer than its clicks: each task is predicted by the epoch that serves it best.
"""

import numpy as np
import torch
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
from torch.utils.data import DataLoader
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE
from torch_rechub.trainers import MTLTrainer
from torch_rechub.utils.data import DataGenerator, PredictDataset

BATCH_ROWS, MAX_EPOCHS = 1024, 6
WATCHED_ROWS = 20_000  # its trainer always evaluates: on the last trained rows, when all is chosen
NUMBERS = "numbers"


def feature_columns(job: Job, features: Features) -> list[object]:
    """What its models are built from; the first feature of a vocabulary owns the embedding."""
    width = job.settings["embedding_width"]
    owner: dict[str, str] = {}
    columns: list[object] = []
    for name in features.categorical:
        vocabulary = features.vocabulary[name]
        columns.append(
            SparseFeature(
                name,
                vocab_size=features.sizes[vocabulary],
                embed_dim=width,
                shared_with=owner.get(vocabulary),
            )
        )
        owner.setdefault(vocabulary, name)
    for name in features.sequences:
        vocabulary = features.vocabulary[name]
        columns.append(
            SequenceFeature(
                name,
                vocab_size=features.sizes[vocabulary],
                embed_dim=width,
                pooling="mean",
                shared_with=owner.get(vocabulary),
                padding_idx=0,
            )
        )
        owner.setdefault(vocabulary, name)
    return [*columns, DenseFeature(NUMBERS, embed_dim=_numbers(features).shape[1])]


def _numbers(features: Features) -> np.ndarray:
    """[N, F + nullable ones]."""
    values = np.stack(list(features.numeric.values()), axis=1)
    is_null = np.stack([np.isnan(features.numeric[name]) for name in features.nullable], axis=1)
    return np.concatenate([np.nan_to_num(values), is_null], axis=1).astype(np.float32)


def build_trainer(job: Job, columns: list[object]) -> MTLTrainer:
    dropout = job.settings["dropout"]
    tower = {"dims": job.settings["tower_widths"], "dropout": dropout}
    model = MMOE(
        columns,
        ["classification"] * len(TASKS),
        job.settings["num_experts"],
        expert_params={"dims": job.settings["expert_widths"], "dropout": dropout},
        tower_params_list=[tower] * len(TASKS),
    )
    return MTLTrainer(
        model,
        task_types=["classification"] * len(TASKS),
        optimizer_params={"lr": 1e-3, "weight_decay": job.settings["weight_decay"]},
        n_epoch=1,
        device="cpu",
        model_path=str(job.folder),
    )


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    features = read_features(job)
    for name in job.settings["leave_out"]:
        del features.categorical[name]
    inputs = {**features.categorical, **features.sequences, NUMBERS: _numbers(features)}
    stop = job.stop if job.choose_length else job.train_stop
    by_task = read_labels(job, stop=stop)
    labels = np.stack([by_task[task] for task in TASKS], axis=1).astype(np.float32)
    watched = slice(job.train_stop if job.choose_length else stop - WATCHED_ROWS, stop)
    train_loader, watch_loader, _ = DataGenerator(
        {name: values[: job.train_stop] for name, values in inputs.items()},
        labels[: job.train_stop],
    ).generate_dataloader(
        x_val={name: values[watched] for name, values in inputs.items()},
        y_val=labels[watched],
        x_test={},
        y_test=[],
        batch_size=BATCH_ROWS,
    )
    predicted = PredictDataset({name: values[job.train_stop :] for name, values in inputs.items()})
    predict_loader = DataLoader(predicted, batch_size=BATCH_ROWS)
    trainer = build_trainer(job, feature_columns(job, features))
    best_auc, length = dict.fromkeys(TASKS, 0.0), dict(job.length)
    predictions: dict[str, np.ndarray] = {}
    for epoch in range(1, (MAX_EPOCHS if job.choose_length else max(length.values())) + 1):
        (log,) = trainer.fit(train_loader, watch_loader)  # its last entries: each task's AUC
        if job.choose_length:
            aucs = dict(zip(TASKS, log[-len(TASKS) :], strict=True))
            better = {task: epoch for task in TASKS if aucs[task] > best_auc[task]}
            if not better:
                break
            best_auc |= {task: aucs[task] for task in better}
            length |= better
        values = np.array(trainer.predict(trainer.model, predict_loader))
        for number, task in enumerate(TASKS):
            if length[task] == epoch:
                predictions[task] = values[:, number]
    write_result(job, predictions, rows=predicted_rows(job), length=length)
    (job.folder / "model_base_0.pth").unlink()


if __name__ == "__main__":
    main()
