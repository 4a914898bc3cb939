"""DeepCTR-Torch's own path: label encoders, SparseFeat and DenseFeat, MMOE.compile and fit.

It hands ids to the model as float32: above 2 ** 24 neighbouring ids share an embedding.
"""

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

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from deepctr_torch.inputs import DenseFeat, SparseFeat, get_feature_names  # noqa: E402
from deepctr_torch.models import MMOE  # noqa: E402
from sklearn.preprocessing import LabelEncoder, MinMaxScaler  # noqa: E402

stopwatch.mark("imported")
torch.set_num_threads(arguments.threads)
log, size = describe(arguments.data), describe(arguments.data).size

data = pd.read_parquet(arguments.data / "log.parquet")
for column in log.categorical:
    data[column] = LabelEncoder().fit_transform(data[column])
data[log.numeric] = MinMaxScaler().fit_transform(data[log.numeric])
features = [
    SparseFeat(name, vocabulary_size=data[name].max() + 1, embedding_dim=size.embedding_width)
    for name in log.categorical
] + [DenseFeat(name, 1) for name in log.numeric]
names = get_feature_names(features)
validation, test = split_bounds(data["time_ms"], log)
train_rows, validation_rows, test_rows = data[:validation], data[validation:test], data[test:]
inputs, validation_inputs, test_inputs = (
    {name: part[name].values for name in names} for part in (train_rows, validation_rows, test_rows)
)
stopwatch.mark("data_ready")

model = MMOE(
    features,
    num_experts=size.num_experts,
    expert_dnn_hidden_units=size.expert_widths,
    gate_dnn_hidden_units=(),
    tower_dnn_hidden_units=size.tower_widths,
    task_types=["binary"] * len(log.tasks),
    task_names=log.tasks,
    seed=arguments.seed,
    device="cpu",
)
model.compile(
    torch.optim.Adam(model.parameters(), lr=size.rate),
    loss=["binary_crossentropy"] * len(log.tasks),
    metrics=["binary_crossentropy"],
)
stopwatch.watch_steps()
try:
    model.fit(
        inputs,
        train_rows[log.tasks].values,
        batch_size=arguments.batch,
        epochs=1,
        verbose=1,
        validation_data=(validation_inputs, validation_rows[log.tasks].values),
    )
except StepLimitError:
    stopwatch.save(rows=validation)
else:
    stopwatch.save(rows=validation)
    predictions = model.predict(test_inputs, arguments.batch)
    save_predictions(arguments, predictions)
