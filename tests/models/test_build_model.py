from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ranker.data.batch import Batch
from ranker.data.encode import Scale
from ranker.models.build import (
    ModelConfig,
    build_model,
    input_layout,
)
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema

MakeModel = Callable[..., RankingModel]
Ids = Mapping[str, list[int] | list[str]]
Scales = Mapping[str, Scale]


def test_layout_follows_the_schema(schema: Schema) -> None:
    inputs = input_layout(schema)
    assert inputs.categorical == {
        "user_id": "user",
        "item_id": "item",
        "type": "type",
        "query_item": "item",
        "query_type": "type",
    }
    assert inputs.sequences == {"colors": "color.name"}
    assert inputs.history == {
        "history_item": "item",
        "history_feedback": "feedback",
        "history_type": "type",
    }
    assert inputs.candidate == ("item_id", "type")
    assert inputs.nullable == ("age", "query_item_age_s")
    assert "price" in inputs.numeric
    assert "user_x_type_click_rate" in inputs.numeric
    read = {*inputs.categorical, *inputs.sequences, *inputs.history}
    read |= {*inputs.numeric, *inputs.nullable}
    assert read == {feature.name for feature in schema.all_features}


def test_excluded_features_are_not_read(
    schema: Schema, ids_by_vocabulary: Ids, label_scales: Scales, make_batch: Callable[..., Batch]
) -> None:
    excluded = ("item_id", "history_feedback", "age", "colors")
    inputs = input_layout(schema, exclude=excluded)
    assert inputs.candidate == ("type",)
    config = ModelConfig(exclude_features=excluded)
    model = build_model(
        config,
        schema,
        ids_by_vocabulary=ids_by_vocabulary,
        label_scales=label_scales,
        standardisers={},
        seed=0,
    )
    batch = make_batch()
    for name in excluded:
        del batch.features[name]  # type: ignore[attr-defined]
    assert model.eval().predict(batch)["click"].isfinite().all()
    assert model.embedder.table is not None
    assert "color.name" not in model.embedder.table.sizes


def test_tables_have_a_row_for_each_id(make_model: MakeModel) -> None:
    table = make_model(ModelConfig(embedding_width=3)).embedder.table
    assert table is not None
    assert table.sizes == {
        "user": 7,
        "item": 10,
        "type": 5,
        "color.name": 4,
        "feedback": 3,
    }
    for vocabulary in table.sizes:
        weight = table.rows(vocabulary)
        assert (weight[0] == 0).all()
        assert (weight[1:] != 0).all()


def test_same_seed_same_weights_and_the_global_random_state_is_left_alone(
    make_model: MakeModel,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = make_model(ModelConfig(), seed=1)
    assert torch.equal(torch.rand(3), expected)
    second, other = make_model(ModelConfig(), seed=1), make_model(ModelConfig(), seed=2)
    states = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    for (name, mine), theirs in states:
        assert torch.equal(mine, theirs), name
    assert not torch.equal(first.bottom.gates.weight, other.bottom.gates.weight)  # type: ignore[attr-defined]


def test_growing_equals_building_with_all_ids(
    schema: Schema, ids_by_vocabulary: Ids, label_scales: Scales
) -> None:
    """Training 14 days must start like training ten and continuing with four."""
    config = ModelConfig(embedding_width=3)
    fewer = {**ids_by_vocabulary, "item": ids_by_vocabulary["item"][:4], "user": []}
    few, full = (
        build_model(
            config,
            schema,
            ids_by_vocabulary=ids,
            label_scales=label_scales,
            standardisers={},
            seed=9,
        )
        for ids in (fewer, ids_by_vocabulary)
    )
    assert few.embedder.table is not None
    assert full.embedder.table is not None
    for vocabulary, size in few.embedder.table.sizes.items():
        old, new = few.embedder.table.rows(vocabulary), full.embedder.table.rows(vocabulary)
        assert torch.equal(old, new[:size])
    table = "embedder.table.weight"
    dense = full.state_dict().keys() - {table}
    assert dense | {table} == few.state_dict().keys()
    for name in dense:
        assert torch.equal(few.state_dict()[name], full.state_dict()[name]), name
