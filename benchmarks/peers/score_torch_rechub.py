"""torch-rechub's own way to predict: PredictDataset, DataLoader, MTLTrainer.predict."""

from score_protocol import BATCH_ROWS, read_job, time_predict

job = read_job()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch_rechub.basic.features import DenseFeature, SparseFeature  # noqa: E402
from torch_rechub.models.multi_task import MMOE  # noqa: E402
from torch_rechub.trainers import MTLTrainer  # noqa: E402
from torch_rechub.utils.data import PredictDataset  # noqa: E402

torch.set_num_threads(job.threads)
features = [
    SparseFeature(name, vocab_size=size, embed_dim=job.size.embedding_width)
    for name, size in job.num_ids.items()
] + [DenseFeature(name) for name in job.numeric]
task_types = ["classification"] * len(job.tasks)
model = MMOE(
    features,
    task_types,
    job.size.num_experts,
    expert_params={"dims": list(job.size.expert_widths)},
    tower_params_list=[{"dims": list(job.size.tower_widths)}] * len(job.tasks),
)
trainer = MTLTrainer(model, task_types=task_types, device="cpu", model_path=str(job.output))


def predict(columns: dict[str, np.ndarray]) -> object:
    loader = DataLoader(PredictDataset(columns), batch_size=BATCH_ROWS)
    return trainer.predict(trainer.model, loader)


time_predict(job, predict)
