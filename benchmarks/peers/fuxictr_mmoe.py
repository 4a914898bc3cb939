"""An MMoE on FuxiCTR's base classes, built like the one its users copy from its model zoo.

FuxiCTR's wheel holds the parts but not the model. Set FUXICTR_MMOE to the file
model_zoo/multitask/MMoE/src/MMoE.py of a checkout of theirs to run that one instead.
"""

import importlib.util
import os

import torch
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import MultiTaskModel
from torch import nn


class MMoE(MultiTaskModel):
    """Experts and gates are MLP blocks in a loop over the flat embeddings; then a tower a task."""

    def __init__(
        self,
        feature_map,
        *,
        embedding_dim,
        num_experts,
        expert_hidden_units,
        gate_hidden_units,
        tower_hidden_units,
        learning_rate,
        **params,
    ):
        super().__init__(feature_map, **params)
        width = embedding_dim * feature_map.num_fields
        self.embedding_layer = FeatureEmbedding(feature_map, embedding_dim)
        self.experts = nn.ModuleList(
            MLP_Block(input_dim=width, hidden_units=expert_hidden_units, hidden_activations="relu")
            for _ in range(num_experts)
        )
        self.gates = nn.ModuleList(
            MLP_Block(
                input_dim=width,
                hidden_units=gate_hidden_units,
                output_dim=num_experts,
                hidden_activations="relu",
            )
            for _ in range(self.num_tasks)
        )
        self.towers = nn.ModuleList(
            MLP_Block(
                input_dim=expert_hidden_units[-1],
                hidden_units=tower_hidden_units,
                output_dim=1,
                hidden_activations="relu",
            )
            for _ in range(self.num_tasks)
        )
        self.compile(params["optimizer"], params["loss"], learning_rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        x = self.embedding_layer(self.get_inputs(inputs)).flatten(start_dim=1)  # [B, D]
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)  # [B, E, H]
        predictions = {}
        for number, label in enumerate(self.feature_map.labels):
            weights = self.gates[number](x).softmax(dim=1)[:, :, None]  # [B, E, 1]
            logit = self.towers[number]((weights * experts).sum(dim=1))
            predictions[f"{label}_pred"] = self.output_activation[number](logit)
        return predictions


def model_class() -> type:
    """The class of the file that FUXICTR_MMOE names, or the one above."""
    path = os.environ.get("FUXICTR_MMOE", "")
    if not path:
        return MMoE
    spec = importlib.util.spec_from_file_location("model_zoo_mmoe", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MMoE
