"""The model's predictions as a function of plain tensors, as compilers and exporters want them.

Shapes: ``B`` batch, ``L`` length of a sequence.
"""

from __future__ import annotations

from torch import Tensor, nn

from ranker.data.batch import Batch
from ranker.models.ranking_model import RankingModel


class PredictionModule(nn.Module):
    """Maps columns of a batch to predictions [B], one a task in the order of ``outputs``.

    Attributes:
        inputs: the features that the model reads, in the order of the columns. Where there is a
            position tower, the device [B] follows as the last column.
        outputs: the tasks.
    """

    def __init__(self, model: RankingModel) -> None:
        super().__init__()
        self.model = model
        self.inputs = model.embedder.inputs.features()
        self.outputs = model.tasks
        self.reads_device = model.position_tower is not None

    def input_names(self) -> list[str]:
        """The columns' names, those of the encoded store."""
        names = [f"feature.{name}" for name in self.inputs]
        return [*names, "device"] if self.reads_device else names

    def columns(self, batch: Batch) -> tuple[Tensor, ...]:
        """What `forward` takes of ``batch``."""
        columns = tuple(batch.features[name] for name in self.inputs)
        return (*columns, batch.position["device"]) if self.reads_device else columns

    def forward(self, *columns: Tensor) -> tuple[Tensor, ...]:
        """Predictions in the labels' units, the position missing."""
        features = dict(zip(self.inputs, columns, strict=False))
        position = {"device": columns[-1]} if self.reads_device else {}
        predictions = self.model.predict(Batch(features=features, labels={}, position=position))
        return tuple(predictions.values())
