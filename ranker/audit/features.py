"""Which columns can be features: kind by type, name and values; owner by what determines them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.audit.column import Column, determined_share
from ranker.audit.names import (
    AMOUNT_WORDS,
    CATEGORY_WORDS,
    ID_WORDS,
    ITEM_WORDS,
    USER_WORDS,
    word_set,
    words,
)
from ranker.audit.roles import Guess, Roles
from ranker.audit.tasks import Entry, file_name
from ranker.schema import Owner

CLEAR_KAPPA = 0.97
_MIN_ROWS_OF_OWNERS = 50
_CALENDAR = word_set("date dt day hour hourmin minute month year weekday dow week of p event local")
_SPREAD_WORDS = word_set("num cnt count counts days duration ms price amount length")
_LONG_TEXT = 60
_SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFeature:
    """A feature of the draft; ``num_distinct`` of its column."""

    entry: Entry
    reason: str
    num_distinct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGuesses:
    """The features of one table, and what was thought of each of its columns."""

    features: list[FoundFeature]
    guesses: list[Guess]


def find_log_features(
    columns: Mapping[str, Column], roles: Roles, *, owners_with_table: Collection[Owner]
) -> FeatureGuesses:
    """Features among the log's columns that have no other role.

    A schema reads an owner's features from that owner's table where there is one.
    """
    owners = {
        owner: columns[name].codes
        for owner, name in (("user", roles.user), ("item", roles.item))
        if name is not None
    }
    features, guesses = [], []
    for column in columns.values():
        if column.name in roles.taken:
            continue
        owner, why = _owner(column, owners)
        reason = _why_left_out(column, owner)
        if owner in owners_with_table and not reason:
            reason = f"{why}: to use it, copy it into the {owner} table"
        if reason:
            guesses.append(_left_out(column.name, reason))
            continue
        found = _feature(column, owner, why)
        features.append(found)
        unsure = column.is_binary and owner == "context"
        note = "; if it is known only after the impression, it is a label" if unsure else ""
        guesses.append(
            Guess(
                column=column.name,
                role=f"{owner} feature",
                sureness="unsure" if unsure else "likely",
                reason=found.reason + note,
            )
        )
    return FeatureGuesses(features=features, guesses=guesses)


def find_table_features(columns: Mapping[str, Column], *, key: str, owner: Owner) -> FeatureGuesses:
    """Features among the columns of a user or item table whose ids are in ``key``."""
    features, guesses = [], []
    for column in columns.values():
        if column.name == key:
            continue
        reason = _why_left_out(column, owner)
        if reason:
            guesses.append(_left_out(column.name, reason))
            continue
        found = _feature(column, owner, f"in the {owner} table")
        features.append(found)
        guesses.append(
            Guess(column=column.name, role=f"{owner} feature", sureness="sure", reason=found.reason)
        )
    return FeatureGuesses(features=features, guesses=guesses)


def _left_out(column: str, reason: str) -> Guess:
    return Guess(column=column, role="left out", sureness="likely", reason=reason)


def _why_left_out(column: Column, owner: Owner) -> str:
    """Why a column can't help a model; empty where it may."""
    found = words(column.name)
    if column.kind == "other":
        return f"type {column.values.type}: write its parts as columns of their own"
    if column.num_distinct < 2:
        return "one value in every row" if column.num_distinct else "null in every row"
    given = len(column.values) - int(column.is_null.sum())
    fractions = column.kind == "number" and not column.is_whole
    is_shared_id = bool(found & ID_WORDS) and column.num_distinct < given
    if given >= 20 and column.num_distinct >= 0.95 * given and not (fractions or is_shared_id):
        counts = column.kind == "number" and found & AMOUNT_WORDS
        if column.time_unit is None and not counts:
            return "a value of its own in (nearly) every row: it names the row, or is free text"
    if column.time_unit is not None and (owner == "context" or column.kind == "number"):
        return "a second time: only a user's or item's date can be a feature, as its age"
    if owner == "context" and found <= _CALENDAR:
        return "a date or hour: features of the time are computed from the time column"
    if column.kind == "text" and _mean_length(column.values) > _LONG_TEXT:
        return "long texts: embed them outside and bring numbers"
    return ""


def _owner(column: Column, owners: Mapping[str, np.ndarray]) -> tuple[Owner, str]:
    """Who determines the values better than chance does (Cohen's kappa); else by its name."""
    best, best_kappa = "", CLEAR_KAPPA
    counts = np.bincount(column.codes + 1) / max(1, len(column.codes))
    chance = float((counts**2).sum())
    for owner, codes in owners.items():
        share, rows = determined_share(codes, column.codes)
        if rows < _MIN_ROWS_OF_OWNERS or chance >= 1:
            continue
        kappa = (share - chance) / (1 - chance)
        if kappa > best_kappa:
            best, best_kappa = owner, kappa
    if best == "user":
        return "user", "the same in all rows of a user"
    if best == "item":
        return "item", "the same in all rows of an item"
    found = words(column.name)
    of_user, of_item = bool(found & set(USER_WORDS)), bool(found & set(ITEM_WORDS))
    if of_user and of_item:
        return "pair", "named after a user and an item"
    if of_user and "user" not in owners:
        return "user", "named after a user"
    if not owners:
        return "context", "no user or item to belong to"
    return "context", "neither user nor item determines it"


def _feature(column: Column, owner: Owner, why: str) -> FoundFeature:
    entry: Entry = {"name": file_name(column.name), "kind": "categorical", "owner": owner}
    if entry["name"] != column.name:
        entry["column"] = column.name
    reason = f"{why}; {column.num_distinct:,} different values"
    if column.time_unit is not None:
        entry |= {
            "name": f"{entry['name']}_age_days",
            "kind": "numeric",
            "column": column.name,
            "transform": "age_days",
        }
    elif column.kind == "list":
        entry |= {"kind": "sequence", "length": _list_length(column.values)}
    elif column.kind == "text":
        separator, length = _separator(column.values)
        if separator:
            entry |= {"kind": "sequence", "separator": separator, "length": length}
            reason += f"; split at {separator!r}"
    elif not _is_category(column):
        entry["kind"] = "numeric"
        if _is_skewed(column):
            entry["transform"] = "log1p"
    if column.is_null.any():
        entry["nullable"] = True
        reason += f"; null in {column.null_share:.1%}"
    return FoundFeature(entry=entry, reason=reason, num_distinct=column.num_distinct)


def _is_category(column: Column) -> bool:
    if column.kind == "boolean":
        return True
    found = words(column.name)
    if not column.is_whole or float(np.abs(column.finite).max()) >= 2.0**53:
        return False
    if found & CATEGORY_WORDS:
        return True
    return column.num_distinct <= 30 and not found & AMOUNT_WORDS


def _is_skewed(column: Column) -> bool:
    """Not negative, and spread over orders of magnitude."""
    if column.finite.min() < 0:
        return False
    if words(column.name) & _SPREAD_WORDS:
        return True
    return float(column.finite.max()) > 10 * max(1.0, float(np.quantile(column.finite, 0.75)))


def _list_length(values: pa.Array) -> int:
    lengths = pc.list_value_length(values).drop_null().to_numpy(zero_copy_only=False)
    return int(np.clip(np.quantile(lengths, 0.95), 1, 50)) if len(lengths) else 1


def _mean_length(values: pa.Array) -> float:
    return float(pc.mean(pc.utf8_length(values)).as_py() or 0.0)


def _separator(values: pa.Array) -> tuple[str, int]:
    """What splits texts into parts that repeat from text to text, and how many parts to keep."""
    distinct = values.dictionary_encode().dictionary.slice(0, 5_000)
    bracketed = pc.match_substring_regex(distinct, r"[\[\](){}<>\"+]")
    if (pc.mean(pc.cast(bracketed, pa.float64())).as_py() or 0.0) > 0.2:
        return "", 1  # ranges like [0,10), JSON
    for separator in _SEPARATORS:
        parts = pc.split_pattern(distinct, separator)
        lengths = pc.list_value_length(parts).drop_null().to_numpy(zero_copy_only=False)
        if len(lengths) == 0 or (lengths > 1).mean() < 0.05:
            continue
        flat = pc.list_flatten(parts)
        spaced = pc.match_substring_regex(flat, r"^\s").to_numpy(zero_copy_only=False)
        if pc.count_distinct(flat).as_py() < 0.8 * len(flat) and not spaced.any():
            return separator, int(np.clip(np.quantile(lengths, 0.99), 2, 50))
    return "", 1
