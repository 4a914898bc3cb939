"""What the page of `ranker tune-weights` says: plain values, no charts and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.report.content import Estimate, Family, Provenance

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedTask:
    """A task of the schema.

    Attributes:
        kind: ``binary`` or ``regression``.
        direction: ``positive``, or ``negative`` where more is worse.
        conditional_on: the task whose prediction multiplies this one's.
        is_predicted: it has predictions and can be weighed.
        left_out: why its labels say nothing about an order; empty where they do.
        importance: its share in its family's change.
    """

    name: str
    family: Family
    kind: str
    direction: str
    conditional_on: str | None
    is_predicted: bool
    left_out: str
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedPoint:
    """A vector of weights.

    Attributes:
        values: by judged task, in the label's unit.
        changes: by judged task and family, relative to today's weights.
        engagement, satisfaction: the families' changes on the rows that the page holds.
        swapped_pairs: share of a list's pairs whose order differs from today's.
        replaced_at_top: share of the first ranks' rows that are replaced; None where no list is
            longer than these.
    """

    name: str
    weights: Mapping[str, float]
    values: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]
    engagement: float | None
    satisfaction: float | None
    swapped_pairs: float
    replaced_at_top: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A constraint, and whether the chosen weights keep it: holds, is broken, cannot tell."""

    constraint: str
    change: Estimate
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownList:
    """A list that can be looked at: which of the page's lists, and its items' names in order."""

    label: str
    list_number: int
    items: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PageRows:
    """The impressions that the page holds, list after list, each list by item id.

    Attributes:
        list_starts: [L], where each list begins.
        predictions: by predicted task, [N]; conditional ones still conditional.
        labels: by task, [N], NaN where not observed.
        is_sample: they are not all rows of the users who report.
    """

    list_starts: IntArray
    predictions: Mapping[str, FloatArray]
    labels: Mapping[str, FloatArray]
    is_sample: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningPage:
    """All that the page says.

    Attributes:
        headlines: the result in a few sentences.
        combination: how today's weights are combined.
        combinations: all there are.
        at: the last rank that counts.
        chosen: None where no weights keep the constraints.
        extremes: of the front, with a name for each.
        cloud: [C, 2], both families' changes of some of the candidates, on the page's rows.
        methods: how the numbers were made and what they can't say, in sentences.
        created_by: the program and its version.
    """

    title: str
    subtitle: str
    headlines: Sequence[str]
    tasks: Sequence[TunedTask]
    combination: str
    combinations: Sequence[str]
    at: int
    today: TunedPoint
    chosen: TunedPoint | None
    extremes: Sequence[TunedPoint]
    front: Sequence[TunedPoint]
    landmarks: Sequence[TunedPoint]
    checks: Sequence[Check]
    cloud: FloatArray
    rows: PageRows
    shown: Sequence[ShownList]
    methods: Sequence[str]
    provenance: Provenance | None
    created_by: str

    @property
    def named_points(self) -> list[TunedPoint]:
        """Where the sliders can start from; today's weights come first."""
        chosen = [] if self.chosen is None else [self.chosen]
        return [self.today, *chosen, *self.extremes, *self.landmarks]
