"""Which Arrow types a column may have in a file, checked before any row is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from ranker.data.parquet import DataError, find_files, open_file
from ranker.schema import FeatureSpec


def type_class(feature: FeatureSpec) -> str:
    """What a feature's column must hold: a key of the names below."""
    if feature.transform == "age_days":
        return "date"
    if feature.kind == "sequence":
        return "sequence"
    return "id" if feature.kind == "categorical" else "number"


def check_files(
    path: Path, needed: Mapping[str, str], *, optional: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Every file has every column once, in a fitting type, ids in the same type in all files.

    The same holds of the ``optional`` columns that a file has.

    A column of nulls only has Arrow's type null: it fits wherever numbers do.

    Raises:
        DataError: one line for the columns that are missing in the first file where any is wrong,
            and one for each other wrong one.
    """
    id_kinds: dict[str, tuple[str, Path]] = {}
    for file in find_files(path):
        arrow = open_file(file).schema_arrow
        problems = [
            *_missing(file, arrow, needed),
            *(
                problem
                for column, kind_of in {**optional, **needed}.items()
                if (problem := _problem(file, arrow, column, kind_of, id_kinds))
            ),
        ]
        if problems:
            raise DataError("\n".join(problems))


def _missing(file: Path, arrow: pa.Schema, needed: Iterable[str]) -> list[str]:
    """One line for all columns that the file lacks, if there are any."""
    match [repr(column) for column in needed if column not in arrow.names]:
        case []:
            return []
        case [column]:
            names = f"column {column} is"
        case several:
            names = f"columns {', '.join(several)} are"
    return [f"{file}: {names} missing; the file has {sorted(arrow.names)}"]


def _problem(
    file: Path,
    arrow: pa.Schema,
    column: str,
    kind_of: str,
    id_kinds: dict[str, tuple[str, Path]],
) -> str:
    """What is wrong with a column that is there; ``id_kinds`` notes where ids were seen first."""
    times = arrow.names.count(column)
    if times == 0:
        return ""
    if times > 1:
        return f"{file}: column {column!r} is there {times} times; give every column its own name"
    got = arrow.field(column).type
    if not _fits(got, kind_of):
        shown = "nothing but nulls" if pa.types.is_null(got) else got
        return f"{file}: column {column!r} must be {_TYPE_NAMES[kind_of]}, got {shown}"
    if kind_of in ("id", "sequence"):
        kind = "text" if is_text(_element(got)) else "number"
        first_kind, first_file = id_kinds.setdefault(column, (kind, file))
        if kind != first_kind:
            return (
                f"{file}: column {column!r} is {got}, but {first_kind} in {first_file}; "
                "ids must have one type in all files"
            )
    return ""


_TYPE_NAMES = {
    "id": "an integer, boolean or text (a whole-numbered float is accepted)",
    "integer": "an integer",
    "number": "a number",
    "time": "an integer or a timestamp",
    "date": "a date, a timestamp or text like 2022-04-10",
    "sequence": "text or a list of integers or texts",
}


def _fits(got: pa.DataType, type_class: str) -> bool:
    number = pa.types.is_integer(got) or pa.types.is_floating(got) or pa.types.is_boolean(got)
    match type_class:
        case "id":
            return bool(number or is_text(got))
        case "integer":
            return bool(pa.types.is_integer(got))
        case "number":
            return bool(number or pa.types.is_null(got))
        case "time":
            return bool(pa.types.is_integer(got) or pa.types.is_timestamp(got))
        case "date":
            return bool(pa.types.is_date(got) or pa.types.is_timestamp(got)) or is_text(got)
        case _:
            return bool(pa.types.is_list(got) or pa.types.is_large_list(got)) or is_text(got)


def _element(got: pa.DataType) -> pa.DataType:
    return got.value_type if pa.types.is_list(got) or pa.types.is_large_list(got) else got


def is_text(got: pa.DataType) -> bool:
    """Text of any width, also as a dictionary."""
    if pa.types.is_dictionary(got):
        got = got.value_type
    return bool(
        pa.types.is_string(got) or pa.types.is_large_string(got) or pa.types.is_string_view(got)
    )
