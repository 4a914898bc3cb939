"""FuxiCTR's own path: FeatureProcessor, build_dataset, RankDataLoader (on Ray), fit.

Its users bring three files, so the log is cut first. It embeds numeric features too.
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

import os  # noqa: E402

# its loader starts Ray, which would wait for any cluster that was ever started on this machine
os.environ["RAY_ADDRESS"] = "local"
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import ray  # noqa: E402
import torch  # noqa: E402
from fuxictr.features import FeatureMap  # noqa: E402
from fuxictr.preprocess import FeatureProcessor, build_dataset  # noqa: E402
from fuxictr.pytorch.dataloaders import RankDataLoader  # noqa: E402
from fuxictr.pytorch.torch_utils import seed_everything  # noqa: E402
from fuxictr_mmoe import model_class  # noqa: E402

stopwatch.mark("imported")
torch.set_num_threads(arguments.threads)
seed_everything(seed=arguments.seed)
log, size = describe(arguments.data), describe(arguments.data).size

data = pd.read_parquet(arguments.data / "log.parquet")
validation, test = split_bounds(data["time_ms"], log)
used = log.categorical + log.numeric + log.tasks
parts = {"train": data[:validation], "valid": data[validation:test], "test": data[test:]}
raw = arguments.output / "raw"
raw.mkdir(exist_ok=True)
for name, part in parts.items():
    part[used].to_parquet(raw / f"{name}.parquet", index=False)
params = {
    "dataset_id": "log",
    "data_root": str(arguments.output),
    "data_format": "parquet",
    **{f"{name}_data": str(raw / f"{name}.parquet") for name in parts},
    "min_categr_count": 1,
    "feature_cols": [
        {"name": log.categorical, "active": True, "dtype": "int", "type": "categorical"},
        {
            "name": log.numeric,
            "active": True,
            "dtype": "float",
            "type": "numeric",
            "normalizer": "StandardScaler",
        },
    ],
    "label_col": [{"name": task, "dtype": "float"} for task in log.tasks],
    "model_root": str(arguments.output / "checkpoints"),
    "model_id": "MMoE",
    "loss": ["binary_crossentropy"] * len(log.tasks),
    "metrics": ["logloss", "AUC"],
    "task": ["binary_classification"] * len(log.tasks),
    "num_tasks": len(log.tasks),
    "optimizer": "adam",
    "learning_rate": size.rate,
    "num_experts": size.num_experts,
    "expert_hidden_units": list(size.expert_widths),
    "gate_hidden_units": [],
    "tower_hidden_units": list(size.tower_widths),
    "batch_size": arguments.batch,
    "embedding_dim": size.embedding_width,
    "epochs": 1,
    "shuffle": True,
    "num_workers": 3,
    "verbose": 1,
    "monitor": "AUC",
    "monitor_mode": "max",
    "gpu": -1,
    "seed": arguments.seed,
}
processor = FeatureProcessor(**params)
params["train_data"], params["valid_data"], params["test_data"] = build_dataset(processor, **params)
feature_map = FeatureMap(params["dataset_id"], processor.data_dir)
feature_map.load(processor.json_file, params)
# predictions are matched with rows by their order, which Ray keeps only when told to
ray.data.DataContext.get_current().execution_options.preserve_order = True
train_loader, validation_loader = RankDataLoader(feature_map, stage="train", **params)
stopwatch.mark("data_ready")

model = model_class()(feature_map, **params)
Path(model.model_dir).mkdir(parents=True)  # its set_logger does this for its users
stopwatch.watch_steps()
try:
    model.fit(train_loader, validation_data=validation_loader, **params)
except StepLimitError:
    stopwatch.save(rows=validation)
else:
    stopwatch.save(rows=validation)
    test_loader = RankDataLoader(feature_map, stage="test", **params)
    label = log.tasks[0]
    seen = np.concatenate([batch[label].numpy() for batch in test_loader])
    assert np.array_equal(seen, parts["test"][label].to_numpy()), "the loader changed the order"
    by_task = model.predict(test_loader)
    predictions = np.stack([by_task[task] for task in log.tasks], axis=1)
    save_predictions(arguments, predictions)
# Ray's own shutdown exits with 1 while a loader still reads ahead; its processes end with this one
os._exit(0)
