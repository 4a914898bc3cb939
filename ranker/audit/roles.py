"""Which column is the user, the item, the time, the position: by name, checked by its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ranker.audit.column import Column, determined_share
from ranker.audit.names import (
    DEVICE_WORDS,
    DURATION_WORDS,
    FEEDBACK_WORDS,
    ID_WORDS,
    ITEM_WORDS,
    POSITION_WORDS,
    PROPENSITY_WORDS,
    RANDOM_WORDS,
    REQUEST_WORDS,
    TIME_WORDS,
    USER_WORDS,
    WATCH_WORDS,
    word_set,
    words,
)
from ranker.schema import Owner, Schema

MAX_BAD_SHARE = 0.01  # what `prepare` puts up with, too
Sureness = Literal["sure", "likely", "unsure"]
Columns = Mapping[str, Column]
_TIME_DRESS = word_set("event request impression log server stamp utc ms s us ns unix epoch")
_NOT_THE_EVENT = word_set(
    "upload publish published release birth birthday register registered join joined signup "
    "expire expiry end update updated modified first last"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a column was taken for, and why.

    Attributes:
        role: "user", "time", "label", "feature", "left out", ...
    """

    column: str
    role: str
    sureness: Sureness
    reason: str


@dataclass(slots=True, kw_only=True)
class Roles:
    """The columns that hold the log together; None where there is none."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    request: str | None = None
    position: str | None = None
    device: str | None = None
    watch_time: str | None = None
    watch_time_unit: Literal["s", "ms", "us"] = "ms"
    propensity: str | None = None
    feedback_time: str | None = None
    randomised: str | None = None
    guesses: list[Guess] = field(default_factory=list)

    def take(self, role: str, column: str, sureness: Sureness, reason: str) -> None:
        """Give ``column`` the role, an attribute's name."""
        setattr(self, role, column)
        title = role.replace("_", " ")
        self.guesses.append(Guess(column=column, role=title, sureness=sureness, reason=reason))

    @property
    def taken(self) -> set[str]:
        """Columns that have a role."""
        return {guess.column for guess in self.guesses}


def roles_of_schema(schema: Schema, columns: Columns) -> Roles:
    """The roles that ``schema`` declares; what it has no words for is looked for by name."""
    log, roles = schema.log, Roles(watch_time_unit=schema.log.watch_time_unit)
    for role in ("user", "item", "time", "request", "position", "device", "watch_time"):
        column = getattr(log, role)
        if column is not None and column in columns:
            roles.take(role, column, "sure", "declared in the schema")
    _find_extras(columns, roles)
    return roles


def find_roles(columns: Columns, tables: Mapping[Owner, Columns] | None = None) -> Roles:
    """Guess the roles from names and values, and from the tables of users and items."""
    roles = Roles()
    for owner, table in (tables or {}).items():
        _find_shared_id(columns, roles, owner, table)
    for role, spellings in (("user", USER_WORDS), ("item", ITEM_WORDS)):
        if getattr(roles, role) is None:
            _find_id(columns, roles, role, spellings)
    _find_time(columns, roles)
    _find_request(columns, roles)
    _find_position(columns, roles)
    _find_device(columns, roles)
    _find_watch_time(columns, roles)
    _find_extras(columns, roles)
    return roles


def _find_shared_id(columns: Columns, roles: Roles, owner: Owner, table: Columns) -> None:
    """The one column that the log shares with a table and that names the table's rows."""
    shared = [
        column.name
        for column in _free(columns, roles)
        if column.name in table and _names_rows(table[column.name])
    ]
    if len(shared) == 1:
        roles.take(owner, shared[0], "sure", f"shared with the {owner} table, whose rows it names")


def _names_rows(column: Column) -> bool:
    is_id = column.kind == "text" or (column.kind == "number" and column.is_whole)
    return is_id and column.num_distinct == len(column.values)


def _find_id(columns: Columns, roles: Roles, role: str, spellings: tuple[str, ...]) -> None:
    """The closest name wins: no further words, then "id" among them, then the usual order."""
    best: tuple[tuple[float, float], Column] | None = None
    for column in _free(columns, roles):
        found = words(column.name)
        hits = [place for place, word in enumerate(spellings) if word in found]
        extra = found - set(spellings) - ID_WORDS
        is_id = column.kind == "text" or (column.kind == "number" and column.is_whole)
        if not hits or not is_id or column.is_binary or (extra and not found & ID_WORDS):
            continue
        rank = (-len(extra) + 0.5 * bool(found & ID_WORDS), -float(hits[0]))
        if best is None or rank > best[0]:
            best = (rank, column)
    if best is None:
        return
    (score, _), column = best
    sureness: Sureness = "sure" if score > 0 else "likely"
    roles.take(role, column.name, sureness, f"its name, {column.num_distinct:,} different values")


def _find_time(columns: Columns, roles: Roles) -> None:
    best: tuple[tuple[float, int], Column] | None = None
    for column in _free(columns, roles):
        found = words(column.name)
        unit = column.time_unit
        if unit is None or found & _NOT_THE_EVENT:
            continue
        named = bool(found & set(TIME_WORDS))
        if not named and column.kind not in ("date", "text"):
            continue
        plain = found <= set(TIME_WORDS) | _TIME_DRESS
        rank = (2.0 * plain + named - (unit == "date"), column.num_distinct)
        if best is None or rank > best[0]:
            best = (rank, column)
    if best is not None:
        rank, column = best
        reason = f"its name, and moments between 1990 and 2100 in unit {column.time_unit}"
        roles.take("time", column.name, "sure" if rank[0] >= 3 else "likely", reason)


def _find_request(columns: Columns, roles: Roles) -> None:
    user = None if roles.user is None else columns[roles.user].codes
    for column in _free(columns, roles):
        found = words(column.name)
        if not found & set(REQUEST_WORDS) or not (found & ID_WORDS or len(found) == 1):
            continue
        if column.num_distinct < 2 or column.kind not in ("number", "text"):
            continue
        if not column.is_whole and column.kind == "number":
            continue
        if column.num_distinct == len(column.values):
            continue  # names its row, not a request
        share = 1.0
        if user is not None:
            share, rows = determined_share(column.codes, user)
            if rows and share < 0.99:
                continue
        size = len(column.values) / column.num_distinct
        reason = f"its name; {size:.1f} rows each, of one user in {share:.1%} of the rows"
        roles.take("request", column.name, "sure", reason)
        return


def _find_position(columns: Columns, roles: Roles) -> None:
    for column in _free(columns, roles):
        found = words(column.name)
        if not found & set(POSITION_WORDS) or not column.is_whole or column.kind != "number":
            continue
        low, high = column.finite.min(), column.finite.max()
        if low < 0 or high > 10_000 or column.num_distinct < 2:
            continue
        reason = f"its name, and whole numbers from {low:.0f} to {high:.0f}"
        roles.take("position", column.name, "sure" if len(found) == 1 else "likely", reason)
        return


def _find_device(columns: Columns, roles: Roles) -> None:
    for column in _free(columns, roles):
        found = words(column.name)
        if found & set(DEVICE_WORDS) and 2 <= column.num_distinct <= 50:
            reason = f"its name, {column.num_distinct} different values"
            roles.take("device", column.name, "sure" if len(found) == 1 else "likely", reason)
            return


def _find_watch_time(columns: Columns, roles: Roles) -> None:
    best: tuple[tuple[int, float], Column] | None = None
    for column in _free(columns, roles):
        if not is_stay_time(column):
            continue
        extra = words(column.name) - set(WATCH_WORDS) - set(DURATION_WORDS)
        rank = (-len(extra), float((column.finite > 0).mean()))
        if best is None or rank > best[0]:
            best = (rank, column)
    if best is None:
        return
    column = best[1]
    named = words(column.name)
    reason = f"its name; above 0 in {best[0][1]:.1%} of the rows"
    if named & {"ms", "millis"}:
        roles.watch_time_unit = "ms"
    elif named & {"s", "sec", "secs", "second", "seconds"}:
        roles.watch_time_unit = "s"
    else:
        positive = column.finite[column.finite > 0]
        in_ms = len(positive) > 0 and float(np.median(positive)) > 600
        roles.watch_time_unit = "ms" if in_ms else "s"
        reason += f"; unit {roles.watch_time_unit} by its size"
    roles.take("watch_time", column.name, "sure" if best[0][0] == 0 else "likely", reason)


def is_stay_time(column: Column) -> bool:
    """Whether it says how long somebody watched, read or stayed."""
    found = words(column.name)
    return bool(
        column.kind == "number"
        and found & set(WATCH_WORDS)
        and found & set(DURATION_WORDS)
        and len(column.finite)
        and not column.is_binary
        and column.time_unit is None
        and float((column.finite < 0).mean()) <= MAX_BAD_SHARE
    )


def _find_extras(columns: Columns, roles: Roles) -> None:
    """Propensity, exploration flag and time of feedback: of use here, unknown to a schema."""
    for column in _free(columns, roles):
        found = words(column.name)
        if found & set(PROPENSITY_WORDS) and column.kind == "number" and len(column.finite):
            inside = ((column.finite >= 0) & (column.finite <= 1)).mean()
            if inside >= 0.99 and not column.is_binary and not found & {"pred", "predicted"}:
                reason = "its name, and numbers between 0 and 1"
                roles.take("propensity", column.name, "likely", reason)
        elif found & set(RANDOM_WORDS) and column.is_binary:
            roles.take("randomised", column.name, "likely", "its name, and nothing but 0 and 1")
        elif (
            roles.time is not None
            and found & set(FEEDBACK_WORDS)
            and found & set(TIME_WORDS)
            and column.time_unit is not None
        ):
            gap_ms = column.time_ms - columns[roles.time].time_ms
            given = gap_ms[~np.isnan(gap_ms)]
            if len(given) and (given >= 0).mean() >= 0.95:
                reason = "its name, and moments after the row's time"
                roles.take("feedback_time", column.name, "likely", reason)


def _free(columns: Columns, roles: Roles) -> Iterable[Column]:
    taken = roles.taken
    return [column for column in columns.values() if column.name not in taken]
