"""Configs of the model, and how they and a schema become a `RankingModel`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from ranker.config import Config, ConfigError
from ranker.data.encode import Scale
from ranker.models.embedder import FEEDBACK as FEEDBACK_SEQUENCE
from ranker.models.embedder import Embedder, InputNormalization
from ranker.models.embedding_table import EmbeddingTable
from ranker.models.heads import BinaryHead, Head, SquaredHead, SquaredLog1pHead
from ranker.models.initial_rows import fill_initial_rows
from ranker.models.input_layout import InputLayout
from ranker.models.layers import Activation, LayerStyle, Normalization
from ranker.models.mmoe import GateInput, MMoE
from ranker.models.position import PositionTower
from ranker.models.ranking_model import Bottom, RankingModel
from ranker.models.shared_bottom import SharedBottom
from ranker.models.towers import Towers
from ranker.schema import FeatureSpec, Schema, TaskSpec

Ids = Sequence[int] | Sequence[str] | NDArray[np.generic]
Width = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
FEEDBACK = "feedback"
DEVICE = "device"
INITIAL_RATE_WEIGHT = 0.7


class SharedBottomConfig(Config):
    """See `ranker.models.shared_bottom.SharedBottom`."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    widths: tuple[Width, ...] = Field(default=(256, 128), min_length=1)


class MMoEConfig(Config):
    """See `ranker.models.mmoe.MMoE`; without ``shared_widths`` experts sit on the input."""

    kind: Literal["mmoe"] = "mmoe"
    shared_widths: tuple[Width, ...] = (128,)
    num_experts: int = Field(default=8, ge=1)
    expert_widths: tuple[Width, ...] = Field(default=(128, 64), min_length=1)
    gate_input: GateInput = "shared"
    expert_dropout: Probability = 0.1


class PositionTowerConfig(Config):
    """See `ranker.models.position.PositionTower`; built only where the log has positions."""

    kind: Literal["shallow"] = "shallow"
    dropout: Probability = 0.1


class NoPositionTowerConfig(Config):
    """Leave positions unexplained even where the log has them."""

    kind: Literal["none"] = "none"


class ModelConfig(Config):
    """The model but for what the schema says.

    Attributes:
        normalization: of hidden layers; ``input_normalization`` of the embedded columns.
        dropout: of hidden units.
        id_dropout: of categorical features, which become unknown.
        admit_after: how often an id must have occurred before it gets an embedding of its own.
        exclude_features: declared or computed features that the model doesn't read.
        linear_part: add a linear function of the numeric features to every logit.
    """

    embedding_width: Width = 16
    bottom: Annotated[SharedBottomConfig | MMoEConfig, Field(discriminator="kind")] = MMoEConfig()
    tower_widths: tuple[Width, ...] = (32,)
    position_tower: Annotated[
        PositionTowerConfig | NoPositionTowerConfig, Field(discriminator="kind")
    ] = PositionTowerConfig()
    activation: Activation = "relu"
    normalization: Normalization = "batch"
    input_normalization: InputNormalization = "batch"
    dropout: Probability = 0.0
    id_dropout: Probability = 0.05
    admit_after: int = Field(default=0, ge=0)
    exclude_features: tuple[str, ...] = ()
    linear_part: bool = True


def build_model(
    config: ModelConfig,
    schema: Schema,
    *,
    ids_by_vocabulary: Mapping[str, Ids],
    label_scales: Mapping[str, Scale],
    standardisers: Mapping[str, Scale],
    seed: int,
    initial_embeddings: bool = True,
) -> RankingModel:
    """Build the model of ``schema``'s features and tasks, all weights a function of ``seed``.

    Row i + 1 of a vocabulary's table belongs to its i-th id. The dense layers' weights depend on
    neither ids nor their number, so a model grown later equals one built with all ids. The global
    random state stays as it was. Without ``initial_embeddings`` the embeddings are left undefined:
    to draw those of many ids takes a while, in vain where trained ones take their place.

    Raises:
        ValueError: ids or a label scale that are missing or unusable; see also `input_layout`.
    """
    tasks = tuple(task.name for task in schema.tasks)
    missing = [task for task in tasks if task not in label_scales]
    if missing:
        raise ValueError(f"model: no label scale for tasks {missing}; fit_scales gives them")
    inputs = input_layout(schema, exclude=config.exclude_features)
    table = _embedding_table(
        config, inputs, schema, ids_by_vocabulary, seed=seed if initial_embeddings else None
    )
    style = LayerStyle(
        activation=config.activation, normalization=config.normalization, dropout=config.dropout
    )
    heads = {task.name: _head(task, label_scales[task.name]) for task in schema.tasks}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedder = Embedder(
            inputs=inputs,
            table=table,
            id_dropout=config.id_dropout,
            normalization=config.input_normalization,
        )
        bottom = _bottom(config.bottom, in_width=embedder.out_width, tasks=tasks, style=style)
        return RankingModel(
            embedder=embedder,
            bottom=bottom,
            towers=Towers(
                in_width=bottom.out_width,
                widths=config.tower_widths,
                initial_logits={task: head.initial_logit for task, head in heads.items()},
                style=style,
            ),
            heads=heads,
            position_tower=_position_tower(config.position_tower, schema, ids_by_vocabulary),
            linear=_linear_part(embedder, schema, standardisers) if config.linear_part else None,
        )


def input_layout(schema: Schema, *, exclude: Iterable[str] = ()) -> InputLayout:
    """How the model reads the schema's features, without those in ``exclude``.

    The candidate's counterparts of the history are the item's categorical features that share a
    vocabulary with it; the query item's share it too, but are no property of the candidate.

    Raises:
        ConfigError: ``exclude`` names no feature, or leaves none.
    """
    excluded = set(exclude)
    names = [feature.name for feature in schema.all_features]
    for name in sorted(excluded - set(names)):
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f" ({', '.join(names)})"
        raise ConfigError(f"model: exclude_features names {name!r}, which is no feature{hint}")
    features = [feature for feature in schema.all_features if feature.name not in excluded]
    computed = {feature.name for feature in schema.history_features}
    sequences = [feature for feature in features if feature.kind == "sequence"]
    history = _vocabularies(schema, [f for f in sequences if f.name in computed])
    categorical = [feature for feature in features if feature.kind == "categorical"]
    of_item = _vocabularies(schema, [f for f in categorical if f.owner == "item"])
    numeric = [feature for feature in features if feature.kind == "numeric"]
    return InputLayout(
        categorical=_vocabularies(schema, categorical),
        sequences=_vocabularies(schema, [f for f in sequences if f.name not in computed]),
        history=history,
        candidate=tuple(name for name, v in of_item.items() if v in set(history.values())),
        numeric=tuple(feature.name for feature in numeric if not feature.nullable),
        nullable=tuple(feature.name for feature in numeric if feature.nullable),
        num_outcomes=(
            len(schema.history.feedback) if schema.history and FEEDBACK_SEQUENCE in history else 0
        ),
    )


def _linear_part(
    embedder: Embedder, schema: Schema, standardisers: Mapping[str, Scale]
) -> nn.Linear | None:
    """A linear map of the numbers, starting as naive Bayes over a task's own smoothed rates.

    The rates are log odds, so their sum over user and item is naive Bayes (see
    `ranker.evaluation.baselines.combine_rates`); as the two overlap, each counts for less than 1.
    All else starts at 0.
    """
    if embedder.numeric_width == 0:
        return None
    names = (*embedder.inputs.nullable, *embedder.inputs.numeric)
    linear = nn.Linear(embedder.numeric_width, len(schema.tasks), bias=False)
    with torch.no_grad():
        linear.weight.zero_()
        for row, task in enumerate(schema.tasks):
            for owner in ("user", "item"):
                rate = f"{owner}_{task.name}_rate"
                if task.kind == "binary" and rate in names and rate in standardisers:
                    weight = INITIAL_RATE_WEIGHT * standardisers[rate].scale
                    linear.weight[row, names.index(rate)] = weight
    return linear


def _vocabularies(schema: Schema, features: Sequence[FeatureSpec]) -> dict[str, str]:
    return {feature.name: schema.vocabulary_of(feature) for feature in features}


def _embedding_table(
    config: ModelConfig,
    inputs: InputLayout,
    schema: Schema,
    ids_by_vocabulary: Mapping[str, Ids],
    *,
    seed: int | None,
) -> EmbeddingTable | None:
    """A row for each id, and one for unknown ids, of every vocabulary in use.

    Without a seed their values are undefined.
    """
    used = {**inputs.categorical, **inputs.sequences, **inputs.history}
    ids: dict[str, Ids] = {}
    for vocabulary in dict.fromkeys(used.values()):
        if vocabulary == FEEDBACK and vocabulary not in schema.vocabularies:
            ids[vocabulary] = np.arange(1, schema.num_feedback_codes)
        else:
            ids[vocabulary] = _ids_of(vocabulary, ids_by_vocabulary)
    if not ids:
        return None
    table = EmbeddingTable(
        {vocabulary: len(known) + 1 for vocabulary, known in ids.items()},
        width=config.embedding_width,
        admit_after=config.admit_after,
        zeros=seed is not None,
    )
    if seed is not None:
        for vocabulary, known in ids.items():
            rows = table.rows(vocabulary)[1:]
            fill_initial_rows(rows, known, seed=seed, vocabulary=vocabulary)
    return table


def _ids_of(vocabulary: str, ids_by_vocabulary: Mapping[str, Ids]) -> Ids:
    if vocabulary not in ids_by_vocabulary:
        raise ValueError(
            f"model: no ids for vocabulary {vocabulary!r}; got {sorted(ids_by_vocabulary)}"
        )
    return ids_by_vocabulary[vocabulary]


def _bottom(
    config: SharedBottomConfig | MMoEConfig,
    *,
    in_width: int,
    tasks: Sequence[str],
    style: LayerStyle,
) -> Bottom:
    match config:
        case SharedBottomConfig():
            return SharedBottom(in_width=in_width, widths=config.widths, tasks=tasks, style=style)
        case MMoEConfig():
            return MMoE(
                in_width=in_width,
                shared_widths=config.shared_widths,
                num_experts=config.num_experts,
                expert_widths=config.expert_widths,
                tasks=tasks,
                gate_input=config.gate_input,
                expert_dropout=config.expert_dropout,
                style=style,
            )
        case _:
            assert_never(config)


def _head(task: TaskSpec, scale: Scale) -> Head:
    try:
        match task.loss:
            case "log_loss":
                return BinaryHead(base_rate=scale.mean)
            case "squared":
                return SquaredHead(mean=scale.mean, scale=scale.scale)
            case "squared_log1p":
                return SquaredLog1pHead(mean=scale.mean, scale=scale.scale)
            case "":
                raise AssertionError("a TaskSpec fills in its loss")
            case _:
                assert_never(task.loss)
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from None


def _position_tower(
    config: PositionTowerConfig | NoPositionTowerConfig,
    schema: Schema,
    ids_by_vocabulary: Mapping[str, Ids],
) -> PositionTower | None:
    if schema.log.position is None:
        return None
    match config:
        case NoPositionTowerConfig():
            return None
        case PositionTowerConfig():
            num_devices = 0
            if schema.log.device is not None:
                num_devices = len(_ids_of(DEVICE, ids_by_vocabulary))
            return PositionTower(
                num_positions=schema.max_positions,
                num_devices=num_devices,
                tasks=[task.name for task in schema.tasks],
                dropout=config.dropout,
            )
        case _:
            assert_never(config)
