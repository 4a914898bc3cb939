"""DeepCTR-Torch's own way to predict: MMOE.predict."""

from score_protocol import BATCH_ROWS, read_job, time_predict

job = read_job()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from deepctr_torch.inputs import DenseFeat, SparseFeat  # noqa: E402
from deepctr_torch.models import MMOE  # noqa: E402

torch.set_num_threads(job.threads)
features = [
    SparseFeat(name, vocabulary_size=size, embedding_dim=job.size.embedding_width)
    for name, size in job.num_ids.items()
] + [DenseFeat(name, 1) for name in job.numeric]
model = MMOE(
    features,
    num_experts=job.size.num_experts,
    expert_dnn_hidden_units=job.size.expert_widths,
    gate_dnn_hidden_units=(),
    tower_dnn_hidden_units=job.size.tower_widths,
    task_types=["binary"] * len(job.tasks),
    task_names=job.tasks,
    device="cpu",
)


def predict(columns: dict[str, np.ndarray]) -> object:
    return model.predict(columns, BATCH_ROWS)


time_predict(job, predict)
