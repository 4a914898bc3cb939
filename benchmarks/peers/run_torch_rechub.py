"""torch-rechub's own path: label encoders, DataGenerator, MMOE, MTLTrainer."""

from protocol import (
    StepLimitError,
    Stopwatch,
    describe,
    parse_arguments,
    save_predictions,
    split_bounds,
)

arguments = parse_arguments()
stopwatch = Stopwatch(arguments)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from sklearn.preprocessing import LabelEncoder, MinMaxScaler  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch_rechub.basic.features import DenseFeature, SparseFeature  # noqa: E402
from torch_rechub.models.multi_task import MMOE  # noqa: E402
from torch_rechub.trainers import MTLTrainer  # noqa: E402
from torch_rechub.utils.data import DataGenerator, PredictDataset  # noqa: E402

stopwatch.mark("imported")
torch.set_num_threads(arguments.threads)
torch.manual_seed(arguments.seed)
log, size = describe(arguments.data), describe(arguments.data).size

data = pd.read_parquet(arguments.data / "log.parquet")
for column in log.categorical:
    data[column] = LabelEncoder().fit_transform(data[column])
data[log.numeric] = MinMaxScaler().fit_transform(data[log.numeric])
features = [
    SparseFeature(name, vocab_size=data[name].max() + 1, embed_dim=size.embedding_width)
    for name in log.categorical
] + [DenseFeature(name) for name in log.numeric]
validation, test = split_bounds(data["time_ms"], log)
columns = {name: data[name].values for name in log.categorical + log.numeric}
labels = data[log.tasks].values


def rows(start: int, stop: int | None) -> dict[str, np.ndarray]:
    return {name: values[start:stop] for name, values in columns.items()}


train_loader, validation_loader, _ = DataGenerator(
    rows(0, validation), labels[:validation]
).generate_dataloader(
    x_val=rows(validation, test),
    y_val=labels[validation:test],
    x_test=rows(test, None),
    y_test=labels[test:],
    batch_size=arguments.batch,
)
stopwatch.mark("data_ready")

tower = {"dims": list(size.tower_widths)}
model = MMOE(
    features,
    ["classification"] * len(log.tasks),
    size.num_experts,
    expert_params={"dims": list(size.expert_widths)},
    tower_params_list=[tower] * len(log.tasks),
)
trainer = MTLTrainer(
    model,
    task_types=["classification"] * len(log.tasks),
    optimizer_params={"lr": size.rate, "weight_decay": 1e-5},
    n_epoch=1,
    device="cpu",
    model_path=str(arguments.output),
)
stopwatch.watch_steps()
try:
    trainer.fit(train_loader, validation_loader)
except StepLimitError:
    stopwatch.save(rows=validation)
else:
    stopwatch.save(rows=validation)
    test_loader = DataLoader(PredictDataset(rows(test, None)), batch_size=arguments.batch)
    predictions = np.array(trainer.predict(trainer.model, test_loader))
    save_predictions(arguments, predictions)
