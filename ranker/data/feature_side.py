"""Whose property a feature's value is: the request's, the candidate's, or that of the two."""

from __future__ import annotations

from typing import Literal, get_args

from ranker.schema import FeatureSpec, Schema

Side = Literal["request", "item", "pair"]
SIDES: tuple[Side, ...] = get_args(Side)


def side_of(feature: FeatureSpec, schema: Schema) -> Side:
    """What a feature's value is a function of.

    An item's feature that depends on the moment (its age) belongs to the pair, and so does a
    feature that reads the other owner's id.
    """
    by_time = feature.transform in ("age_days", "hour")
    reads_user, reads_item = (feature.column == schema.log.user, feature.column == schema.log.item)
    match feature.owner:
        case "user" | "context" | "query_item":
            return "pair" if reads_item else "request"
        case "item":
            return "pair" if by_time or reads_user else "item"
        case "pair":
            return "pair"


def names_on(side: Side, schema: Schema) -> tuple[str, ...]:
    """The features of one side, in the schema's order."""
    return tuple(f.name for f in schema.all_features if side_of(f, schema) == side)
