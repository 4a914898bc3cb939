"""A schema drafted from a log: valid for `ranker.schema.Schema`, with the reasons as comments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranker.audit.column import Column
from ranker.audit.draft_text import TO_BE_NAMED, draft_text
from ranker.audit.features import FeatureGuesses, FoundFeature, find_log_features
from ranker.audit.names import words
from ranker.audit.roles import Guess, Roles
from ranker.audit.tasks import Entry, FoundTask, find_tasks
from ranker.config import parse_config
from ranker.schema import Owner, Schema

_KEY_WORDS = ("author", "creator", "tag", "topic", "category", "genre", "brand", "channel")
_MANY_DAYS = 120
_LONGEST_WINDOW_H = 24 * 31
_SCALE_SHARE = 10  # of a small log, what its scales are fitted on


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A schema and how it came about.

    Attributes:
        yaml_text: the schema with the reasons as comments.
        guesses: one for each column of the log.
        table_guesses: one for each column of the user and item tables, by owner.
    """

    schema: Schema
    yaml_text: str
    guesses: tuple[Guess, ...]
    table_guesses: Mapping[Owner, tuple[Guess, ...]]


def draft_schema(
    columns: Mapping[str, Column],
    roles: Roles,
    *,
    name: str,
    tables: Mapping[Owner, FeatureGuesses],
    time_zone: str,
    why_time_zone: str,
    span_days: float,
) -> Draft:
    """Put a schema together; what is missing but needed is called ``TO_BE_NAMED``.

    Args:
        columns: of the log.
        roles: of its columns; it learns which are labels.
        name: of the schema.
        tables: what was found in the tables that were given.
        time_zone: of its days.
        why_time_zone: how it was found.
        span_days: from the first to the last row.
    """
    tasks = find_tasks(columns, roles)
    of_log = find_log_features(columns, roles, owners_with_table=tables.keys())
    of_tables = [feature for table in tables.values() for feature in table.features]
    features = _named_apart([*_id_features(columns, roles), *of_log.features, *of_tables])
    history = _history(features, tasks)
    features = _clear_of_history(features, history)
    top = _top(columns, roles, tables, time_zone=time_zone, span_days=span_days) | {"name": name}
    top = {"name": top.pop("name"), **top}
    if not tasks:
        entry: Entry = {
            "name": "label",
            "label": TO_BE_NAMED,
            "family": "engagement",
            "kind": "binary",
        }
        tasks = [FoundTask(entry=entry, reason="no label was recognised: name its column")]
    values = {
        **top,
        "features": [feature.entry for feature in features],
        "tasks": [task.entry for task in tasks],
        "history": history,
    }
    return Draft(
        schema=parse_config(Schema, values, source="the drafted schema"),
        yaml_text=draft_text(
            top, features, tasks, history, roles=roles, why_time_zone=why_time_zone
        ),
        guesses=(*roles.guesses, *of_log.guesses),
        table_guesses={owner: tuple(table.guesses) for owner, table in tables.items()},
    )


def _top(
    columns: Mapping[str, Column],
    roles: Roles,
    tables: Mapping[Owner, FeatureGuesses],
    *,
    time_zone: str,
    span_days: float,
) -> Entry:
    log: Entry = {
        "user": roles.user or TO_BE_NAMED,
        "item": roles.item or TO_BE_NAMED,
        "time": roles.time or TO_BE_NAMED,
    }
    unit = None if roles.time is None else columns[roles.time].time_unit
    if unit in ("s", "us"):
        log["time_unit"] = unit
    for role in ("request", "position", "device", "watch_time"):
        if getattr(roles, role) is not None:
            log[role] = getattr(roles, role)
    if roles.watch_time is not None and roles.watch_time_unit != "ms":
        log["watch_time_unit"] = roles.watch_time_unit
    top: Entry = {"log": log}
    top |= {f"{owner}_table": True for owner in ("user", "item") if owner in tables}
    top["time_zone"] = time_zone
    if span_days > _MANY_DAYS:
        top["window_hours"] = int(min(_LONGEST_WINDOW_H, 24 * (1 + span_days // _MANY_DAYS)))
    listed = roles.request is not None
    if listed:
        request = columns[str(roles.request)]
        listed = len(request.values) > 1.2 * max(1, request.num_distinct)
    top["list_by"] = "request" if listed else "user_window"
    if roles.position is not None:
        deepest = int(columns[roles.position].finite.max()) + 1
        top["max_positions"] = min(50, deepest)
    num_rows = max((len(column.values) for column in columns.values()), default=0)
    usual = int(Schema.model_fields["scale_rows"].default)
    if num_rows // _SCALE_SHARE < usual:  # else a small log had most of its days to wait
        top["scale_rows"] = max(1, num_rows // _SCALE_SHARE)
    return top


def _id_features(columns: Mapping[str, Column], roles: Roles) -> list[FoundFeature]:
    """The ids themselves, the device, and the hour of the day."""
    found = []
    ids: list[tuple[Owner, str | None]] = [
        ("user", roles.user),
        ("item", roles.item),
        ("context", roles.device),
    ]
    for owner, name in ids:
        if name is not None:
            entry: Entry = {"name": name, "kind": "categorical", "owner": owner}
            if columns[name].is_null.any() and owner == "context":
                entry["nullable"] = True
            found.append(_found(entry, "its id" if owner != "context" else "where it was shown"))
    if roles.time is not None and columns[roles.time].time_unit not in (None, "date", "text"):
        entry = {"name": "hour", "kind": "categorical", "owner": "context"}
        entry |= {"column": roles.time, "transform": "hour"}
        found.append(_found(entry, "of the day, from the time"))
    return found


def _found(entry: Entry, reason: str) -> FoundFeature:
    return FoundFeature(entry=entry, reason=reason, num_distinct=0)


def _history(features: list[FoundFeature], tasks: list[FoundTask]) -> Entry:
    """Counts by the item's usual groupings and one context, rates of five tasks."""
    categorical = [f for f in features if f.entry["kind"] == "categorical" and f.num_distinct > 1]
    keys = [
        str(f.entry["name"])
        for word in _KEY_WORDS
        for f in categorical
        if f.entry["owner"] == "item" and word in words(str(f.entry["name"]))
    ]
    contexts = [
        str(f.entry["name"])
        for f in categorical
        if f.entry["owner"] == "context" and 2 < f.num_distinct <= 50
    ]
    names = [str(task.entry["name"]) for task in tasks]
    binary = [n for n, t in zip(names, tasks, strict=True) if t.entry["kind"] == "binary"]
    return {
        "watched": "every_impression",
        "feedback": binary[:3],
        "keys": list(dict.fromkeys(keys))[:2],
        "contexts": contexts[:1],
        "rates": names[:5],
    }


def _named_apart(features: list[FoundFeature]) -> list[FoundFeature]:
    """Features with names of their own: a table may repeat a column of the log."""
    taken: set[str] = set()
    named = []
    for feature in features:
        name = str(feature.entry["name"])
        if name in taken or name == "feedback":
            name = f"{name}_of_{feature.entry['owner']}"
        while name in taken:
            name += "_2"
        taken.add(name)
        named.append(_renamed(feature, name))
    return named


def _clear_of_history(features: list[FoundFeature], history: Entry) -> list[FoundFeature]:
    """No declared feature is called like one that the history computes."""
    counted = {*_strings(history["keys"]), *_strings(history["contexts"])}
    declared = [f.entry for f in features if f.entry["name"] in counted]
    rates = [
        {"name": name, "label": name, "family": "engagement", "kind": "binary"}
        for name in _strings(history["rates"])
    ]
    probe = parse_config(
        Schema,
        {
            "name": "names",
            "log": {"user": "u", "item": "i", "time": "t"},
            "features": declared,
            "tasks": rates
            or [{"name": "none", "label": "none", "family": "engagement", "kind": "binary"}],
            "history": {**history, "feedback": []},
        },
        source="the drafted schema",
    )
    computed = {feature.name for feature in probe.history_features}
    return [
        _renamed(f, f"{f.entry['name']}_logged") if f.entry["name"] in computed else f
        for f in features
    ]


def _strings(values: object) -> list[str]:
    assert isinstance(values, list)
    return [str(value) for value in values]


def _renamed(feature: FoundFeature, name: str) -> FoundFeature:
    if name == feature.entry["name"]:
        return feature
    entry = {"column": feature.entry["name"], **feature.entry, "name": name}
    return FoundFeature(entry=entry, reason=feature.reason, num_distinct=feature.num_distinct)
