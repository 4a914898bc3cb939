"""What a log means: its columns, features and tasks, declared once and looked up by name.

A `Schema` is written once in YAML and travels in every bundle. The features computed from a
user's past (`Schema.history_features`) follow from it too, so that nothing downstream has to name
a feature or a task again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from ranker.config import Config, load_config

Owner = Literal["user", "item", "query_item", "context", "pair"]
EVERY_IMPRESSION = "every_impression"
MS_PER_UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# Only ratios of weights count. Larger ones make sums overflow; to the power of smaller ones,
# numbers that differ as float32 predictions do are equal.
MIN_WEIGHT, MAX_WEIGHT = 1e-8, 1e8


def _require_weight(weight: float) -> float:
    if weight != 0 and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise ValueError(
            f"a weight is 0 or between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}; only the ratios of "
            "weights count, so multiply them all by one number"
        )
    return weight


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_require_weight)]


class LogColumns(Config):
    """The names of the log's structural columns.

    ``request``, ``position``, ``device`` and ``watch_time`` are left out where the log has none.
    ``position`` is 0-based. ``watch_time`` delays the moment at which feedback becomes visible.
    """

    user: str
    item: str
    time: str
    time_unit: Literal["s", "ms", "us"] = "ms"
    request: str | None = None
    position: str | None = None
    device: str | None = None
    watch_time: str | None = None
    watch_time_unit: Literal["s", "ms", "us"] = "ms"


class FeatureSpec(Config):
    """One input of the model.

    Attributes:
        kind: ``categorical`` (one id), ``numeric`` (one number) or ``sequence`` (several ids).
        owner: whose property it is; a ``pair`` feature belongs to one user and one item.
        column: the raw column it is read from; the feature's name where not given.
        vocabulary: features with the same vocabulary share ids and embeddings.
        transform: ``log1p`` of a count or duration, ``age_days`` from a date column to the
            impression, ``hour`` of the day in the schema's time zone from the time column.
        separator: splits a string column into a sequence (a list column needs none).
        length: at most so many elements of a sequence are kept, the last ones.
        nullable: a null is a value of its own; in other features a null makes the row bad.
    """

    name: str
    kind: Literal["categorical", "numeric", "sequence"]
    owner: Owner
    column: str = ""
    vocabulary: str = ""
    transform: Literal["none", "log1p", "age_days", "hour"] = "none"
    separator: str = ""
    length: int = Field(default=1, ge=1)
    nullable: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_names(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("name"), str):
            values = {"column": values["name"], **values}
            if values.get("kind") != "numeric":
                values = {"vocabulary": values["name"], **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_file_name("feature", self.name)
        if self.kind != "numeric" and self.transform in ("log1p", "age_days"):
            raise ValueError(f"feature {self.name!r}: {self.transform} needs kind numeric")
        if self.transform == "hour" and self.kind != "categorical":
            raise ValueError(f"feature {self.name!r}: transform hour needs kind categorical")
        if self.kind != "sequence" and self.length != 1:
            raise ValueError(f"feature {self.name!r}: only a sequence has a length")
        return self


class TaskSpec(Config):
    """A quantity predicted for each candidate. A null label means *not observed*.

    Attributes:
        label: the raw column; multiplied by ``label_factor`` it is in the task's unit.
        direction: ``negative`` where more is worse (a dismissal).
        cap: larger labels are cut to it (in the task's unit).
        threshold: a binary label read from a number: 1 where the column is at least this.
        minimum, maximum: labels outside are errors (binary labels are 0 or 1 anyway).
        loss: ``log_loss`` for binary; ``squared`` or ``squared_log1p`` for regression.
        loss_weight: the task's share of the objective.
        score_weight: its default share of the score.
        conditional_on: a binary task without which this one can't be observed; labels elsewhere
            are masked, and for the score the prediction is multiplied by that task's, once.
        negatives_kept: of a binary task, the share of its negatives that the log kept, if some
            were left out at random to save room; predictions are corrected to all of them.
    """

    name: str
    label: str
    family: Literal["engagement", "satisfaction"]
    kind: Literal["binary", "regression"]
    direction: Literal["positive", "negative"] = "positive"
    label_factor: float = Field(default=1.0, gt=0)
    cap: float | None = None
    threshold: float | None = None
    minimum: float = 0.0
    maximum: float | None = None
    loss: Literal["", "log_loss", "squared", "squared_log1p"] = ""
    loss_weight: Weight = 1.0
    score_weight: Weight = 0.0
    conditional_on: str | None = None
    negatives_kept: float = Field(default=1.0, gt=0, le=1)

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # a schema that says nothing of it keeps the digest it had before there was such a field
        values: dict[str, object] = handler(self)
        if self.negatives_kept == 1:
            del values["negatives_kept"]
        return values

    @model_validator(mode="before")
    @classmethod
    def _fill_loss(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("loss"):
            default = "log_loss" if values.get("kind") == "binary" else "squared"
            values = {**values, "loss": default}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_file_name("task", self.name)
        if (self.kind == "binary") != (self.loss == "log_loss"):
            raise ValueError(
                f"task {self.name!r}: loss {self.loss} does not fit a {self.kind} task"
            )
        if self.kind == "binary" and (self.label_factor != 1 or self.cap is not None):
            raise ValueError(f"task {self.name!r}: a binary label has no factor and no cap")
        if self.kind == "regression" and self.threshold is not None:
            raise ValueError(f"task {self.name!r}: only a binary label has a threshold")
        if self.kind == "regression" and self.negatives_kept != 1:
            raise ValueError(f"task {self.name!r}: only a binary task has negatives_kept")
        if self.loss == "squared_log1p" and self.minimum < 0:
            raise ValueError(f"task {self.name!r}: squared_log1p needs labels >= 0")
        return self


class HistorySpec(Config):
    """Which point-in-time features are computed from the past of the log itself.

    Attributes:
        length: the model sees the user's last so many watched items.
        kept: the state keeps so many for each user (candidate generators use them).
        watched: ``every_impression``, or the binary task that says an item was watched.
        feedback: binary tasks whose outcomes are attached to each watched item.
        keys: categorical item features that are counted, and matched with the user's past.
        contexts: categorical context features that are counted with the user.
        rates: tasks whose smoothed means are features.
        prior_strength: how many impressions the overall mean weighs in a smoothed mean.
    """

    length: int = Field(default=20, ge=1)
    kept: int = Field(default=50, ge=1)
    watched: str = EVERY_IMPRESSION
    feedback: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    prior_strength: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kept < self.length:
            raise ValueError(f"history: kept ({self.kept}) must be at least length ({self.length})")
        if len(self.feedback) > 8:
            raise ValueError("history: at most 8 feedback tasks")
        return self


class EarlierHistory(Config):
    """A table of impressions older than the log, ordered within a user but without times.

    It has the log's user and item columns, ``order`` (ascending), and any of the label columns.
    """

    order: str


class CounterSpec(Config):
    """Impressions and outcomes counted by ``parts``: vocabularies whose values form the key."""

    name: str
    owner: Owner
    parts: tuple[str, ...]


class Schema(Config):
    """A log's columns, features and tasks.

    Attributes:
        list_by: what a ranked list is in metrics: a request, or a user's impressions in a window.
        scale_rows: standardisers and label scales are fitted on the first windows that together
            hold so many rows, and frozen.
        max_positions: deeper positions share the last one's parameters.
        history: None where nothing is computed from the past: the declared features are all.
    """

    name: str
    log: LogColumns
    user_table: bool = False
    item_table: bool = False
    time_zone: str = "UTC"
    window_hours: int = Field(default=24, ge=1, le=24 * 31)
    list_by: Literal["request", "user_window"] = "request"
    reporting_delay_s: float = Field(default=0.0, ge=0)
    max_positions: int = Field(default=50, ge=1)
    scale_rows: int = Field(default=5_000, ge=1)
    features: tuple[FeatureSpec, ...]
    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    history: HistorySpec | None = HistorySpec()
    earlier_history: EarlierHistory | None = None

    @field_validator("time_zone")
    @classmethod
    def _known_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"unknown time zone {value!r}; use names like 'UTC'") from None
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_unique("task", [task.name for task in self.tasks])
        binary = {task.name for task in self.tasks if task.kind == "binary"}
        for task in self.tasks:
            if task.conditional_on is not None and (
                task.conditional_on not in binary or task.conditional_on == task.name
            ):
                raise ValueError(
                    f"task {task.name!r}: conditional_on {task.conditional_on!r} must be "
                    "another binary task"
                )
            if task.conditional_on and self.task(task.conditional_on).conditional_on:
                raise ValueError(f"task {task.name!r}: conditional_on can't be chained")
        if self.history is not None:
            self._check_history(self.history)
        elif self.earlier_history is not None:
            raise ValueError("earlier_history seeds the history, which is null: leave one out")
        _require_unique("feature", [feature.name for feature in self.all_features])
        labels = {task.label for task in self.tasks} | {self.log.watch_time}
        for feature in self.features:
            if feature.column in labels:
                raise ValueError(
                    f"feature {feature.name!r} reads column {feature.column!r}, which is a label "
                    "or the watch time: the model would see what it has to predict"
                )
            if feature.owner == "query_item":
                raise ValueError(f"feature {feature.name!r}: query_item features are computed")
        return self

    def _check_history(self, history: HistorySpec) -> None:
        binary = {task.name for task in self.tasks if task.kind == "binary"}
        _require_known("history.feedback", history.feedback, binary)
        _require_known("history.rates", history.rates, {task.name for task in self.tasks})
        if history.watched != EVERY_IMPRESSION:
            _require_known("history.watched", [history.watched], binary)
        categorical = [f for f in self.features if f.kind == "categorical"]
        items = {f.name for f in categorical if f.owner == "item"}
        contexts = {f.name for f in categorical if f.owner == "context"}
        _require_known("history.keys", history.keys, items)
        _require_known("history.contexts", history.contexts, contexts)
        if "feedback" in self.vocabularies:
            raise ValueError("vocabulary 'feedback' is computed: give the feature's another name")
        vocabularies = ["user", "item", *self.counted_vocabularies.values()]
        for name, vocabulary in self.counted_vocabularies.items():
            if vocabularies.count(vocabulary) > 1:
                raise ValueError(
                    f"history: {name!r} shares the vocabulary {vocabulary!r} with another key or "
                    "context, or with the ids; each needs its own to be counted apart"
                )

    def task(self, name: str) -> TaskSpec:
        """The task called ``name`` (KeyError if there is none)."""
        return {task.name: task for task in self.tasks}[name]

    def feature(self, name: str) -> FeatureSpec:
        """The declared or computed feature called ``name`` (KeyError if there is none)."""
        return {feature.name: feature for feature in self.all_features}[name]

    def vocabulary_of(self, feature: FeatureSpec) -> str:
        """The vocabulary whose ids ``feature`` holds; ``user`` and ``item`` for the log's ids."""
        if feature.column == self.log.user and feature.owner == "user":
            return "user"
        if feature.column == self.log.item and feature.owner == "item":
            return "item"
        return feature.vocabulary

    @property
    def rates(self) -> tuple[str, ...]:
        """The tasks whose outcomes are counted; none without a history."""
        return () if self.history is None else self.history.rates

    @cached_property
    def counted_vocabularies(self) -> dict[str, str]:
        """The history's keys and contexts -> their vocabularies; empty without a history."""
        if self.history is None:
            return {}
        counted = (*self.history.keys, *self.history.contexts)
        return {name: self.vocabulary_of(self._declared(name)) for name in counted}

    @cached_property
    def counters(self) -> tuple[CounterSpec, ...]:
        """What is counted: users, items, keys, contexts, and user × key, user × context."""
        if self.history is None:
            return ()
        keys = {name: self.counted_vocabularies[name] for name in self.history.keys}
        contexts = {name: self.counted_vocabularies[name] for name in self.history.contexts}
        return (
            CounterSpec(name="user", owner="user", parts=("user",)),
            CounterSpec(name="item", owner="item", parts=("item",)),
            *(CounterSpec(name=n, owner="item", parts=(v,)) for n, v in keys.items()),
            *(CounterSpec(name=n, owner="context", parts=(v,)) for n, v in contexts.items()),
            *(
                CounterSpec(name=f"user_x_{n}", owner="pair", parts=("user", v))
                for n, v in keys.items()
            ),
            *(
                CounterSpec(name=f"user_x_{n}", owner="user", parts=("user", v))
                for n, v in contexts.items()
            ),
        )

    @cached_property
    def history_features(self) -> tuple[FeatureSpec, ...]:
        """The point-in-time features, all computed by `ranker.data.history`."""
        history = self.history
        if history is None:
            return ()
        numeric: list[tuple[str, Owner]] = []
        for counter in self.counters:
            numeric.append((f"{counter.name}_count", counter.owner))
            numeric += [(f"{counter.name}_{task}_rate", counter.owner) for task in history.rates]
        features = [
            FeatureSpec(
                name="query_item", kind="categorical", owner="query_item", vocabulary="item"
            ),
            FeatureSpec(name="query_item_age_s", kind="numeric", owner="query_item", nullable=True),
            FeatureSpec(
                name="history_item",
                kind="sequence",
                owner="user",
                vocabulary="item",
                length=history.length,
            ),
            FeatureSpec(
                name="history_feedback",
                kind="sequence",
                owner="user",
                vocabulary="feedback",
                length=history.length,
            ),
        ]
        for name in history.keys:
            vocabulary = self.counted_vocabularies[name]
            features += [
                FeatureSpec(
                    name=f"query_{name}",
                    kind="categorical",
                    owner="query_item",
                    vocabulary=vocabulary,
                ),
                FeatureSpec(name=f"query_same_{name}", kind="numeric", owner="pair"),
                FeatureSpec(
                    name=f"history_{name}",
                    kind="sequence",
                    owner="user",
                    vocabulary=vocabulary,
                    length=history.length,
                ),
            ]
        features += [FeatureSpec(name=n, kind="numeric", owner=owner) for n, owner in numeric]
        return tuple(features)

    @cached_property
    def all_features(self) -> tuple[FeatureSpec, ...]:
        """Declared and computed features: the columns of the encoded store, the model's inputs."""
        return (*self.features, *self.history_features)

    @cached_property
    def vocabularies(self) -> tuple[str, ...]:
        """Every learned vocabulary, in a fixed order (``feedback`` is fixed and not learned)."""
        names = ["user", "item"]
        names += [self.vocabulary_of(f) for f in self.features if f.kind != "numeric"]
        if self.log.device is not None:
            names.append("device")
        return tuple(dict.fromkeys(names))

    @property
    def num_feedback_codes(self) -> int:
        """Size of the feedback vocabulary: 0 = no item, then one code per outcome combination."""
        return 1 if self.history is None else 1 + (1 << len(self.history.feedback))

    def _declared(self, name: str) -> FeatureSpec:
        return {feature.name: feature for feature in self.features}[name]


def load_schema(path: Path) -> Schema:
    """Read a schema from YAML (`ranker.config.ConfigError` names file and key)."""
    return load_config(Schema, path)


def _require_unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} {name!r} is declared twice")


def _require_file_name(what: str, name: str) -> None:
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):
        raise ValueError(
            f"{what} {name!r}: a name holds letters, digits, '_', '-', '.' and spaces only, begins "
            "with one of the first three, and has at most 100; files are named after it"
        )


def _require_known(where: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not one of {sorted(known)}")
