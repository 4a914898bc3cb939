"""Where it was shown and with what chance: positions and propensities, and whether they overlap.

Shapes: N rows, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.audit.column import FloatArray, IntArray
from ranker.audit.finding import Finding, percent
from ranker.audit.label_checks import Rate, rate_of
from ranker.audit.view import LogView

MIN_ROWS_OF_CELL = 5
CLEAR_OVERLAP = 0.5
CLEAR_SAMPLE_SHARE = 0.1
_MAX_POSITIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionRate:
    """Rows at one position, and the first binary label's rate there."""

    position: int
    rows: int
    rate: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionFigures:
    """What the positions allow.

    Attributes:
        overlap: share of the rows whose item has 5 rows or more at each of two positions or more.
        task: whose rate is told by position; empty where there is no binary label.
    """

    by_position: tuple[PositionRate, ...]
    num_positions: int
    overlap: float
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PropensityFigures:
    """What the propensities allow.

    Attributes:
        usable: rows with a propensity in (0, 1].
        sample_share: effective sample size over rows, when the rows are weighted by 1 / propensity
            for a uniform target policy: (Σw)² / (N Σw²) (Kish).
        mean_inverse: of 1 / propensity; about the number of items there were to choose from.
    """

    usable: int
    smallest: float
    largest: float
    sample_share: float
    mean_inverse: float


def position_figures(view: LogView) -> PositionFigures | None:
    """None where the log has no positions."""
    if view.positions is None:
        return None
    given = np.isfinite(view.positions)
    if not given.any():
        return None
    positions = view.positions[given].astype(np.int64)
    binary = [t.name for t in view.schema.tasks if t.kind == "binary" and t.name in view.labels]
    task = binary[0] if binary else ""
    values, counts = np.unique(positions, return_counts=True)
    rows = []
    for value, number in zip(values.tolist()[:_MAX_POSITIONS], counts.tolist(), strict=False):
        rate = None
        if task:
            here = given & (view.positions == value)
            rate = rate_of(view.labels[task][here], None if view.user is None else view.user[here])
        rows.append(PositionRate(position=value, rows=number, rate=rate))
    overlap = 0.0 if view.item is None else position_overlap(view.item[given], positions)
    return PositionFigures(
        by_position=tuple(rows), num_positions=len(values), overlap=overlap, task=task
    )


def position_overlap(item: IntArray, positions: IntArray) -> float:
    """Share of rows whose item was shown 5 times or more at each of two positions or more."""
    width = int(positions.max(initial=0)) + 1
    cells, counts = np.unique(item * width + positions, return_counts=True)
    often = cells[counts >= MIN_ROWS_OF_CELL] // width
    items, places = np.unique(often, return_counts=True)
    return float(np.isin(item, items[places >= 2]).mean()) if len(item) else 0.0


def propensity_figures(view: LogView) -> PropensityFigures | None:
    """None where the log has no propensities, or none in (0, 1]."""
    if view.roles.propensity is None:
        return None
    values = view.columns[view.roles.propensity].numbers
    with np.errstate(invalid="ignore"):
        usable = values[(values > 0) & (values <= 1)]
    if len(usable) == 0:
        return None
    weights = 1 / usable
    return PropensityFigures(
        usable=len(usable),
        smallest=float(usable.min()),
        largest=float(usable.max()),
        sample_share=_effective(weights),
        mean_inverse=float(weights.mean()),
    )


def check_positions(view: LogView, figures: PositionFigures | None) -> list[Finding]:
    """Availability, base, and whether items moved between positions."""
    if figures is None:
        return [
            Finding(
                level="look",
                topic="positions",
                sentence="The log has no positions.",
                remedy="Position bias can't be corrected: log where each item was shown.",
            )
        ]
    assert view.positions is not None
    lowest = int(np.nanmin(view.positions))
    findings = []
    if lowest == 1:
        findings.append(
            Finding(
                level="look",
                topic="positions",
                sentence="Positions begin at 1.",
                remedy="A schema's positions are 0-based: subtract 1.",
                numbers={"lowest": lowest},
            )
        )
    enough = figures.overlap >= CLEAR_OVERLAP and figures.num_positions > 1
    findings.append(
        Finding(
            level="fine" if enough else "look",
            topic="positions",
            sentence=f"{figures.num_positions} positions; {percent(figures.overlap)} of the rows "
            f"have an item that was shown at two or more ({MIN_ROWS_OF_CELL} times or more each).",
            remedy=""
            if enough
            else "Position and item are hard to tell apart: shuffle a little traffic.",
            numbers={"positions": figures.num_positions, "overlap": figures.overlap},
        )
    )
    return findings


def check_propensities(view: LogView, figures: PropensityFigures | None) -> list[Finding]:
    """Availability, range and overlap."""
    if view.roles.propensity is None:
        findings = [
            Finding(
                level="look",
                topic="propensities",
                sentence="The log has no propensities.",
                remedy="Off-policy estimates need the chance of what was shown: log it.",
            )
        ]
        return findings + _randomised(view)
    rows = view.num_rows
    if figures is None or figures.usable < rows:
        bad = rows - (0 if figures is None else figures.usable)
        return [
            Finding(
                level="problem",
                topic="propensities",
                sentence=f"{bad:,} of {rows:,} propensities are null or not in (0, 1].",
                remedy="Such rows can't be weighted: log the chance of what was shown.",
                numbers={"rows": bad},
            )
        ]
    enough = figures.sample_share >= CLEAR_SAMPLE_SHARE
    found = Finding(
        level="fine" if enough else "look",
        topic="propensities",
        sentence=f"Propensities from {figures.smallest:.2g} to {figures.largest:.2g}; weighted "
        f"for a uniform policy the rows are worth {percent(figures.sample_share)} of them.",
        remedy=""
        if enough
        else "Few rows carry the estimate: judge only policies near the "
        "logging one, or clip the weights and say so.",
        numbers={
            "smallest": figures.smallest,
            "largest": figures.largest,
            "effective_sample_share": figures.sample_share,
            "mean_inverse": figures.mean_inverse,
        },
    )
    return [found, *_inverse(view, figures)]


def _inverse(view: LogView, figures: PropensityFigures) -> list[Finding]:
    """E[1 / propensity] of the shown item is the number of items that could have been shown."""
    if view.item is None:
        return []
    num_items = len(np.unique(view.item[view.item >= 0]))
    # Few heavy weights make the mean uncertain by about its own size: then nothing can be said.
    error = figures.mean_inverse * np.sqrt(
        max(0.0, 1 / figures.sample_share - 1) / max(1, figures.usable)
    )
    if figures.mean_inverse <= 1.1 * num_items + 4 * error:
        return []
    return [
        Finding(
            level="look",
            topic="propensities",
            sentence=f"1 / propensity is {figures.mean_inverse:,.0f} on average, but only "
            f"{num_items:,} items occur.",
            remedy="It may be the chance of something else (a slate, a log probability): ask.",
            numbers={"mean_inverse": figures.mean_inverse, "items": num_items},
        )
    ]


def _randomised(view: LogView) -> list[Finding]:
    if view.roles.randomised is None:
        return []
    flags = view.columns[view.roles.randomised].numbers
    share = float(np.nanmean(flags)) if np.isfinite(flags).any() else 0.0
    return [
        Finding(
            level="fine" if share > 0 else "look",
            topic="propensities",
            sentence=f"{percent(share)} of the rows are marked as random "
            f"({view.roles.randomised!r}).",
            remedy=""
            if share > 0
            else "A little random traffic makes off-policy estimates possible.",
            numbers={"random_share": share},
        )
    ]


def _effective(weights: FloatArray) -> float:
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
