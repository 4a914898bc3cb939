from __future__ import annotations

import pytest
import torch

from ranker.data.batch import Batch
from ranker.diagnosis.cost import ParameterCount, count_parameters, multiplications_per_example
from ranker.models.embedder import Embedder, InputLayout
from ranker.models.embedding_table import EmbeddingTable
from ranker.models.heads import BinaryHead
from ranker.models.layers import LayerStyle
from ranker.models.mmoe import MMoE
from ranker.models.position import PositionTower
from ranker.models.ranking_model import RankingModel
from ranker.models.towers import Towers

TASKS = ("click", "like", "share")
STYLE = LayerStyle(normalization="batch")


def model() -> RankingModel:
    """x: 5 (item) + 5 (mean) + 5 (attention) + 1 (price) = 16 wide."""
    inputs = InputLayout(
        categorical={"item": "item"},
        sequences={},
        history={"history_item": "item"},
        candidate=("item",),
        numeric=("price",),
        nullable=(),
    )
    return RankingModel(
        embedder=Embedder(inputs=inputs, table=EmbeddingTable({"item": 9}, width=5)),
        bottom=MMoE(
            in_width=16,
            shared_widths=[7],
            num_experts=4,
            expert_widths=[6, 2],
            tasks=TASKS,
            style=STYLE,
        ),
        towers=Towers(
            in_width=2, widths=[8], initial_logits=dict.fromkeys(TASKS, 0.0), style=STYLE
        ),
        heads={task: BinaryHead(base_rate=0.1) for task in TASKS},
        position_tower=PositionTower(num_positions=10, num_devices=0, tasks=TASKS),
    )


def batch(num_rows: int) -> Batch:
    return Batch(
        features={
            "item": torch.ones(num_rows, dtype=torch.int64),
            "history_item": torch.ones(num_rows, 13, dtype=torch.int64),
            "price": torch.zeros(num_rows),
        },
        labels={},
        position={},
    )


@pytest.mark.parametrize("num_rows", [1, 11])
def test_multiplications_by_hand(num_rows: int) -> None:
    attention = 5 * 5 + 13 * 5 + 2 * 13 * 5  # projected query; scores; mean and attention
    shared = 16 * 7
    experts = 4 * (7 * 6 + 6 * 2)
    gates = 7 * 3 * 4 + 3 * 4 * 2  # logits; mixing
    towers = 3 * (2 * 8 + 8)
    expected = attention + shared + experts + gates + towers
    assert multiplications_per_example(model(), batch(num_rows)) == expected


def test_counting_leaves_the_model_as_it_was() -> None:
    counted = model()
    before = {name: value.clone() for name, value in counted.state_dict().items()}
    multiplications_per_example(counted, batch(7))
    assert counted.training
    for name, value in counted.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_parameters_by_hand() -> None:
    attention = 5 * 5
    shared = 16 * 7 + 2 * 7
    experts = 4 * (7 * 6 + 2 * 6 + 6 * 2 + 2 * 2)
    gates = 7 * 12 + 12
    towers = 3 * (2 * 8 + 2 * 8 + 8 + 1)
    position = 3 * (11 + 1 + 11)
    dense = attention + shared + experts + gates + towers + position
    assert count_parameters(model()) == ParameterCount(embedding=9 * 5, dense=dense)


def test_a_batch_without_rows_costs_nothing_knowable() -> None:
    with pytest.raises(ValueError, match="no rows; give at least one"):
        multiplications_per_example(model(), batch(0))
