"""Which files an encoded store has, and what is in them: all of it follows from the schema.

Columns of one kind lie side by side in one row-major block, so that the rows of a shuffled batch
are gathered with one read each. Sequences are ragged: the elements of all rows one after another,
and where each row's end.
"""

from __future__ import annotations

from dataclasses import dataclass

from ranker.schema import FeatureSpec, Schema

CATEGORICAL, NUMERIC, LABEL = "categorical", "numeric", "label"
HISTORY = "history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``columns`` of one type, stored as [N, C]."""

    name: str
    dtype: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ragged:
    """Sequences of equal lengths, slot by slot: elements [E, C] int32, and each row's end [N].

    ``length`` bounds a row's elements; missing ones are 0 in front.
    """

    name: str
    length: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredColumn:
    """A column by name; ``width`` > 0 for sequences, [N, width] when read whole."""

    name: str
    dtype: str
    width: int


def blocks_of(schema: Schema) -> list[Block]:
    """The blocks of a store with this schema; none without columns."""
    categorical = [f"feature.{f.name}" for f in schema.all_features if f.kind == "categorical"]
    numeric = [f"feature.{f.name}" for f in schema.all_features if f.kind == "numeric"]
    labels = [f"label.{task.name}" for task in schema.tasks]
    blocks = [
        *(Block(name=name, dtype="<i8", columns=(name,)) for name in ("time_ms", "request")),
        *(Block(name=name, dtype="<i4", columns=(name,)) for name in ("user", "item")),
        Block(name=CATEGORICAL, dtype="<i4", columns=(*categorical, "position", "device")),
        Block(name=NUMERIC, dtype="<f4", columns=tuple(numeric)),
        Block(name=LABEL, dtype="<f4", columns=tuple(labels)),
    ]
    return [block for block in blocks if block.columns]


def ragged_of(schema: Schema) -> list[Ragged]:
    """The sequences of a store with this schema; those of the history go together."""
    computed = [f for f in schema.history_features if f.kind == "sequence"]
    declared = [f for f in schema.features if f.kind == "sequence"]
    ragged = [_ragged(f"feature.{feature.name}", [feature]) for feature in declared]
    return [*ragged, _ragged(HISTORY, computed)] if computed else ragged


def store_columns(schema: Schema) -> list[StoredColumn]:
    """All columns of a store with this schema."""
    plain = [
        StoredColumn(name=name, dtype=block.dtype, width=0)
        for block in blocks_of(schema)
        for name in block.columns
    ]
    sequences = [
        StoredColumn(name=name, dtype="<i4", width=ragged.length)
        for ragged in ragged_of(schema)
        for name in ragged.columns
    ]
    return plain + sequences


def _ragged(name: str, features: list[FeatureSpec]) -> Ragged:
    columns = tuple(f"feature.{feature.name}" for feature in features)
    return Ragged(name=name, length=features[0].length, columns=columns)
