from __future__ import annotations

from pathlib import Path

import pytest

from ranker.config import ConfigError, digest, dump_yaml, parse_config
from ranker.schema import Schema, load_schema

FILES = sorted((Path(__file__).parents[1] / "configs" / "schema").glob("*.yaml"))
Values = dict[str, object]


def values_with(**changes: object) -> Values:
    values: Values = {
        "name": "small",
        "log": {"user": "u", "item": "i", "time": "t", "watch_time": "w"},
        "features": [
            {"name": "u", "kind": "categorical", "owner": "user"},
            {"name": "topic", "kind": "categorical", "owner": "item"},
            {"name": "place", "kind": "categorical", "owner": "context"},
            {"name": "size", "kind": "numeric", "owner": "item"},
        ],
        "tasks": [
            {"name": "click", "label": "c", "family": "engagement", "kind": "binary"},
            {"name": "stars", "label": "s", "family": "satisfaction", "kind": "regression"},
        ],
        "history": {
            "length": 3,
            "feedback": ["click"],
            "keys": ["topic"],
            "contexts": ["place"],
            "rates": ["click", "stars"],
        },
    }
    return values | changes


def with_feature(**feature: object) -> Values:
    features = values_with()["features"]
    assert isinstance(features, list)
    return values_with(features=[*features, {"owner": "item", **feature}])


def with_task(**task: object) -> Values:
    tasks = values_with()["tasks"]
    assert isinstance(tasks, list)
    return values_with(tasks=[*tasks, {"family": "engagement", "label": "x", **task}])


def with_history(**history: object) -> Values:
    return values_with(history={"length": 3, **history})


def test_there_are_schemas() -> None:
    assert {file.stem for file in FILES} >= {"kuairand", "movielens", "synthetic"}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_shipped_schemas_load(file: Path, tmp_path: Path) -> None:
    schema = load_schema(file)
    assert schema.name == file.stem
    (tmp_path / "again.yaml").write_text(dump_yaml(schema), encoding="utf-8")
    assert load_schema(tmp_path / "again.yaml") == schema


def test_computed_features_by_hand() -> None:
    schema = parse_config(Schema, values_with(), source="test")
    rates = ["count", "click_rate", "stars_rate"]
    counters = ["user", "item", "topic", "place", "user_x_topic", "user_x_place"]
    assert [f.name for f in schema.history_features] == [
        "query_item", "query_item_age_s", "history_item", "history_feedback",
        "query_topic", "query_same_topic", "history_topic",
        *(f"{counter}_{rate}" for counter in counters for rate in rates),
    ]  # fmt: skip
    assert schema.vocabularies == ("user", "item", "topic", "place")
    assert schema.num_feedback_codes == 3
    assert schema.task("stars").loss == "squared"
    assert schema.feature("size").column == "size" and schema.feature("size").vocabulary == ""
    owners = {counter.name: counter.owner for counter in schema.counters}
    assert owners["user_x_topic"] == "pair" and owners["user_x_place"] == "user"
    with pytest.raises(KeyError):
        schema.task("like")


BINARY: Values = {"name": "b", "kind": "binary"}
WRONG = {
    "feature twice": (
        with_feature(name="topic", kind="numeric"),
        "feature 'topic' is declared twice",
    ),
    "task twice": (with_task(name="click", kind="binary"), "task 'click' is declared twice"),
    "feature called like a computed one": (
        with_feature(name="user_count", kind="numeric"),
        "feature 'user_count' is declared twice",
    ),
    "label as feature": (
        with_feature(name="size2", kind="numeric", column="c"),
        "feature 'size2' reads column 'c', which is a label or the watch time",
    ),
    "watch time as feature": (
        with_feature(name="w", kind="numeric"),
        "feature 'w' reads column 'w', which is a label or the watch time",
    ),
    "query item feature": (
        with_feature(name="q", kind="numeric", owner="query_item"),
        "feature 'q': query_item features are computed",
    ),
    "path as name": (with_feature(name="../x", kind="numeric"), "feature '../x': a name holds"),
    "empty name": (with_feature(name="", kind="numeric"), "feature '': a name holds"),
    "path as task": (with_task(name="a/b", kind="binary"), "task 'a/b': a name holds"),
    "log1p of an id": (
        with_feature(name="x", kind="categorical", transform="log1p"),
        "feature 'x': log1p needs kind numeric",
    ),
    "hour as number": (
        with_feature(name="x", kind="numeric", transform="hour"),
        "feature 'x': transform hour needs kind categorical",
    ),
    "length of a number": (
        with_feature(name="x", kind="numeric", length=3),
        "feature 'x': only a sequence has a length",
    ),
    "feedback vocabulary": (
        with_feature(name="x", kind="sequence", vocabulary="feedback"),
        "vocabulary 'feedback' is computed",
    ),
    "loss": (
        with_task(name="b", kind="binary", loss="squared"),
        "task 'b': loss squared does not fit a binary task",
    ),
    "cap": (with_task(**BINARY, cap=3), "task 'b': a binary label has no factor and no cap"),
    "threshold": (
        with_task(name="r", kind="regression", threshold=3),
        "task 'r': only a binary label has a threshold",
    ),
    "negative log1p": (
        with_task(name="r", kind="regression", loss="squared_log1p", minimum=-1),
        "task 'r': squared_log1p needs labels >= 0",
    ),
    "condition on itself": (
        with_task(**BINARY, conditional_on="b"),
        "task 'b': conditional_on 'b' must be another binary task",
    ),
    "condition on a number": (
        with_task(**BINARY, conditional_on="stars"),
        "task 'b': conditional_on 'stars' must be another binary task",
    ),
    "chained conditions": (
        values_with(
            tasks=[
                {**BINARY, "name": n, "label": n, "family": "engagement", "conditional_on": on}
                for n, on in [("x", None), ("y", "x"), ("z", "y")]
            ],
            history={},
        ),
        "task 'z': conditional_on can't be chained",
    ),
    "unknown feedback": (
        with_history(feedback=["stars"]),
        "history.feedback: 'stars' is not one of ['click']",
    ),
    "unknown rate": (
        with_history(rates=["like"]),
        "history.rates: 'like' is not one of ['click', 'stars']",
    ),
    "unknown key": (with_history(keys=["tag"]), "history.keys: 'tag' is not one of ['topic']"),
    "context as key": (
        with_history(keys=["place"]),
        "history.keys: 'place' is not one of ['topic']",
    ),
    "unknown context": (
        with_history(contexts=["topic"]),
        "history.contexts: 'topic' is not one of ['place']",
    ),
    "unknown watched": (
        with_history(watched="stars"),
        "history.watched: 'stars' is not one of ['click']",
    ),
    "key twice": (with_history(keys=["topic", "topic"]), "is declared twice"),
    "kept less than length": (
        with_history(length=60),
        "history: kept (50) must be at least length (60)",
    ),
    "too much feedback": (
        with_history(feedback=["click"] * 9),
        "history: at most 8 feedback tasks",
    ),
    "time zone": (values_with(time_zone="Mars/Olympus"), "unknown time zone 'Mars/Olympus'"),
    "no task": (values_with(tasks=[], history={}), "key 'tasks': "),
    "unknown key of the schema": (
        values_with(feature=[]),
        "key 'feature' is unknown; did you mean 'features'?",
    ),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_wrong_schemas(values: Values, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(Schema, values, source="log.yaml")
    assert str(caught.value).startswith("log.yaml: ")
    assert message in str(caught.value)


def test_keys_must_be_counted_apart() -> None:
    features = values_with()["features"]
    assert isinstance(features, list)
    second = {"name": "second", "kind": "categorical", "owner": "item", "vocabulary": "topic"}
    values = values_with(features=[*features, second], history={"keys": ["topic", "second"]})
    with pytest.raises(ConfigError, match="'topic' shares the vocabulary 'topic' with another"):
        parse_config(Schema, values, source="log.yaml")
    item = {"name": "i", "kind": "categorical", "owner": "item"}
    values = values_with(features=[*features, item], history={"keys": ["i"]})
    with pytest.raises(ConfigError, match="'i' shares the vocabulary 'item'"):
        parse_config(Schema, values, source="log.yaml")
    # Sharing it with a feature that is not counted is fine.
    values = values_with(features=[*features, second])
    assert parse_config(Schema, values, source="log.yaml").vocabularies[2] == "topic"


def test_without_a_history_the_declared_features_are_all() -> None:
    schema = Schema.model_validate(values_with(history=None))
    assert schema.all_features == schema.features
    assert [feature.name for feature in schema.features] == ["u", "topic", "place", "size"]
    assert (schema.counters, schema.rates) == ((), ())
    with pytest.raises(ValueError, match="earlier_history seeds the history, which is null"):
        Schema.model_validate(values_with(history=None, earlier_history={"order": "position"}))


def test_a_null_history_is_written_and_read_back(tmp_path: Path) -> None:
    schema = Schema.model_validate(values_with(history=None))
    (tmp_path / "again.yaml").write_text(dump_yaml(schema), encoding="utf-8")
    assert load_schema(tmp_path / "again.yaml") == schema


def test_a_share_of_kept_negatives_changes_the_digest_only_where_there_is_one() -> None:
    schema = load_schema(next(path for path in FILES if path.stem == "kuairand"))
    assert "negatives_kept" not in dump_yaml(schema)
    values = schema.model_dump(mode="json")
    values["tasks"][0]["negatives_kept"] = 1.0
    same = parse_config(Schema, values, source="same")
    assert digest(same) == digest(schema)
    values["tasks"][0]["negatives_kept"] = 0.25
    short = parse_config(Schema, values, source="short")
    assert digest(short) != digest(schema)
    assert "negatives_kept: 0.25" in dump_yaml(short)
    for task, share in ((0, 0.0), (0, 1.5), (2, 0.5)):
        values = schema.model_dump(mode="json")
        values["tasks"][task]["negatives_kept"] = share
        with pytest.raises(ConfigError, match="negatives_kept"):
            parse_config(Schema, values, source="bad")
