"""What a model reads: a few rows of the encoded store as tensors, looked up by name.

Shapes: ``B`` rows, ``L`` elements of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Features, labels and positions of ``B`` impressions or candidates.

    Attributes:
        features: categorical [B] int32, 0 = unknown; numeric [B] float32, standardised, NaN =
            null; sequence [B, L] int32, 0 = no element, right-aligned with the newest last. L is
            the same for aligned sequences, and at most the schema's length.
        labels: task -> [B] float32 in the task's unit, NaN = not observed; empty when scoring.
        position: ``position`` [B] int32, 0 = missing, else the 0-based position + 1; ``device``
            [B] int32, 0 = unknown. Empty where the log has neither.
    """

    features: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    position: Mapping[str, Tensor]

    @property
    def num_rows(self) -> int:
        """``B``; 0 for a batch without any tensor."""
        for columns in (self.features, self.labels, self.position):
            for column in columns.values():
                return column.shape[0]
        return 0

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``."""
        return Batch(
            features={name: column.to(device) for name, column in self.features.items()},
            labels={name: column.to(device) for name, column in self.labels.items()},
            position={name: column.to(device) for name, column in self.position.items()},
        )
