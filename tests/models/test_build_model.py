from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from ranker.config import ConfigError, parse_config
from ranker.data.batch import Batch
from ranker.data.encode import Scale
from ranker.models.build import (
    MMoEConfig,
    ModelConfig,
    PositionTowerConfig,
    SharedBottomConfig,
    build_model,
    input_layout,
)
from ranker.models.heads import SquaredLog1pHead
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
    assert "color.name" not in model.embedder.vocabulary_sizes


def test_tables_have_a_row_for_each_id(make_model: MakeModel) -> None:
    embedder = make_model(ModelConfig(embedding_width=3)).embedder
    assert embedder.vocabulary_sizes == {
        "user": 7,
        "item": 10,
        "type": 5,
        "color.name": 4,
        "feedback": 3,
    }
    for vocabulary in embedder.vocabulary_sizes:
        weight = embedder.table(vocabulary).weight
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
    from ranker.models.initial_rows import initial_rows

    config = ModelConfig(embedding_width=3)
    fewer = {**ids_by_vocabulary, "item": ids_by_vocabulary["item"][:4], "user": []}
    model = build_model(
        config, schema, ids_by_vocabulary=fewer, label_scales=label_scales, standardisers={}, seed=9
    )
    for vocabulary in ("item", "user"):
        new = ids_by_vocabulary[vocabulary][len(fewer[vocabulary]) :]
        rows = initial_rows(new, seed=9, vocabulary=vocabulary, width=3)
        model.embedder.grow(vocabulary, rows)
    full = build_model(
        config,
        schema,
        ids_by_vocabulary=ids_by_vocabulary,
        label_scales=label_scales,
        standardisers={},
        seed=9,
    )
    assert model.state_dict().keys() == full.state_dict().keys()
    for name, weights in full.state_dict().items():
        assert torch.equal(weights, model.state_dict()[name]), name


def test_logits_start_at_the_base_rate(make_model: MakeModel) -> None:
    towers = make_model(ModelConfig()).towers
    assert towers.final.bias is not None
    assert torch.sigmoid(towers.final.bias[0]).item() == pytest.approx(0.2)
    assert towers.final.bias[1:].tolist() == [[0.0], [0.0]]


def test_heads_follow_the_losses(make_model: MakeModel) -> None:
    heads = make_model(ModelConfig()).heads
    assert list(heads) == ["click", "rating", "watch_time_s"]
    assert heads["rating"].prediction(torch.ones(1)).item() == pytest.approx(3.5 + 1.2)
    assert isinstance(heads["watch_time_s"], SquaredLog1pHead)


def test_the_position_tower_needs_positions(
    schema: Schema, ids_by_vocabulary: Ids, label_scales: Scales, make_model: MakeModel
) -> None:
    tower = make_model(ModelConfig()).position_tower
    assert tower is not None
    assert tower.pairs.shape == (3, 11, 3)
    log = schema.log.model_copy(update={"position": None})
    without = schema.model_copy(update={"log": log})
    model = build_model(
        ModelConfig(position_tower=PositionTowerConfig()),
        without,
        ids_by_vocabulary=ids_by_vocabulary,
        label_scales=label_scales,
        standardisers={},
        seed=0,
    )
    assert model.position_tower is None


def test_configs_are_read_by_kind() -> None:
    values = {
        "bottom": {"kind": "shared_bottom", "widths": [5]},
        "position_tower": {"kind": "none"},
        "exclude_features": ["age"],
    }
    config = parse_config(ModelConfig, values, source="train.yaml")
    assert config.bottom == SharedBottomConfig(widths=(5,))
    assert config.position_tower.kind == "none"
    assert parse_config(ModelConfig, {}, source="train.yaml").bottom == MMoEConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bottom": {"kind": "ple"}}, "bottom"),
        ({"bottom": {"kind": "mmoe", "widths": [5]}}, "'bottom.mmoe.widths' is unknown"),
        ({"bottom": {"kind": "mmoe", "expert_widths": []}}, "expert_widths"),
        ({"bottom": {"kind": "shared_bottom", "widths": [0]}}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
        ({"embedding_width": 0}, "embedding_width"),
    ],
)
def test_impossible_configs_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ModelConfig, values, source="train.yaml")


def test_what_is_missing_is_named(
    schema: Schema, ids_by_vocabulary: Ids, label_scales: Scales
) -> None:
    def build(
        *, exclude: tuple[str, ...] = (), without_ids: str = "", without_scale: str = ""
    ) -> RankingModel:
        return build_model(
            ModelConfig(exclude_features=exclude),
            schema,
            ids_by_vocabulary={k: v for k, v in ids_by_vocabulary.items() if k != without_ids},
            label_scales={k: v for k, v in label_scales.items() if k != without_scale},
            standardisers={},
            seed=0,
        )

    with pytest.raises(ValueError, match="'prise', which is no feature; did you mean 'price'"):
        build(exclude=("prise",))
    with pytest.raises(ValueError, match=r"no label scale for tasks \['rating'\]"):
        build(without_scale="rating")
    for vocabulary in ("type", "device"):
        with pytest.raises(ValueError, match=f"no ids for vocabulary '{vocabulary}'"):
            build(without_ids=vocabulary)


def test_a_wrong_label_scale_names_its_task(
    schema: Schema, ids_by_vocabulary: Ids, label_scales: Scales
) -> None:
    scales = {**label_scales, "rating": Scale(mean=float("nan"), scale=1.0)}
    with pytest.raises(ValueError, match="task 'rating': regression labels"):
        build_model(
            ModelConfig(),
            schema,
            ids_by_vocabulary=ids_by_vocabulary,
            label_scales=scales,
            standardisers={},
            seed=0,
        )
