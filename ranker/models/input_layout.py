"""Which features a model reads, and what each column of its input is.

Shapes: ``T`` outcomes of a watched item, ``W`` embedding width, ``D`` width of the input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ranker.config import ConfigError

OUTCOME_DEPTHS = (1, 5, 0)  # of a history's last items; 0: the whole sequence
InputColumn = tuple[str, str, int]  # kind, feature, index within


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLayout:
    """Which features the model reads, and how; the order of the names is the order of the input.

    Attributes:
        categorical: feature -> vocabulary.
        sequences: feature -> vocabulary; pooled by the mean of their elements.
        history: aligned sequences (slot by slot one watched item) -> vocabulary.
        candidate: categorical features of the candidate that correspond to ``history``.
        numeric: features that are never null.
        nullable: numeric features whose null is a value of its own.
        num_outcomes: binary outcomes encoded in each code of ``history_feedback`` (code - 1 holds
            a bit for each); 0 without that sequence.
    """

    categorical: Mapping[str, str]
    sequences: Mapping[str, str]
    history: Mapping[str, str]
    candidate: tuple[str, ...]
    numeric: tuple[str, ...]
    nullable: tuple[str, ...]
    num_outcomes: int = 0

    def __post_init__(self) -> None:
        """Check that there is something to read and that ``candidate`` is part of it."""
        if not (
            self.categorical or self.sequences or self.history or self.numeric or self.nullable
        ):
            raise ConfigError("model: exclude_features leaves nothing to read; exclude fewer")
        unknown = set(self.candidate) - set(self.categorical)
        if unknown:
            raise ValueError(f"model: candidate features {sorted(unknown)} are not categorical")

    @property
    def attends(self) -> bool:
        """Whether the history is pooled by the candidate too."""
        return bool(self.history and self.candidate)

    def features(self) -> tuple[str, ...]:
        """All features read."""
        numbers = (*self.nullable, *self.numeric)
        return (*self.categorical, *self.sequences, *self.history, *numbers)

    def columns(self, width: int) -> list[InputColumn]:
        """What each of the input's D columns is, for embeddings of ``width``."""
        vectors = [("categorical", name) for name in self.categorical]
        vectors += [("sequence", name) for name in self.sequences]
        vectors += [("history_mean", "")] if self.history else []
        vectors += [("attention", "")] if self.attends else []
        columns: list[InputColumn] = [(*of, j) for of in vectors for j in range(width)]
        columns += [("number", name, 0) for name in (*self.nullable, *self.numeric)]
        columns += [("is_null", name, 0) for name in self.nullable]
        depths = range(len(OUTCOME_DEPTHS))
        return columns + [("outcome", str(d), j) for d in depths for j in range(self.num_outcomes)]

    def restricted(self, names: Collection[str]) -> InputLayout | None:
        """The layout of the features in ``names`` alone; None if it reads none of them.

        The history is kept whole or not at all, and nothing attends to it.
        """
        kept = set(self.features()) & set(names)
        history = self.history if kept.issuperset(self.history) else {}
        kept -= set(self.history) - set(history)
        if not kept:
            return None
        return InputLayout(
            categorical={name: v for name, v in self.categorical.items() if name in kept},
            sequences={name: v for name, v in self.sequences.items() if name in kept},
            history=history,
            candidate=(),
            numeric=tuple(name for name in self.numeric if name in kept),
            nullable=tuple(name for name in self.nullable if name in kept),
            num_outcomes=self.num_outcomes if history else 0,
        )
