"""How a simulated experiment is set up, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from ranker.experiment.assignment import SampleRatio
from ranker.experiment.lift import Lift
from ranker.experiment.outcomes import ExaminationCurve
from ranker.experiment.response import ResponseSettings
from ranker.experiment.response_quality import ResponseQuality

LABEL = "semi-synthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """How the experiment is run.

    Attributes:
        salt: of the split of users; another salt is another split.
        num_refits: replicates B of the interval.
        seed: of every random draw; same inputs and seed, same result.
    """

    slate_size: int = 10
    salt: str = "simulate"
    share_treatment: float = 0.5
    num_refits: int = 20
    confidence: float = 0.95
    seed: int = 0
    response: ResponseSettings = field(default_factory=ResponseSettings)

    def __post_init__(self) -> None:
        if self.slate_size < 1:
            raise ValueError(f"slate_size must be at least 1, got {self.slate_size}")
        if self.num_refits < 2:
            raise ValueError(f"num_refits must be at least 2, got {self.num_refits}: no interval")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What the experiment found; not to be shown without its label and assumptions.

    Attributes:
        lifts: of the drawn outcomes, control users against treatment users, as a live test reads.
        expected_lifts: of expected outcomes, both arms on all users: without outcome noise and the
            luck of the split, so narrower.
        slate_overlap: share of control's shown candidates that treatment shows too, at any rank.
        notes: what to know before reading the lifts.
    """

    control: str
    treatment: str
    lifts: tuple[Lift, ...]
    expected_lifts: tuple[Lift, ...]
    examination: ExaminationCurve
    settings: SimulationSettings
    num_requests: int
    num_log_rows: int
    slate_overlap: float
    sample_ratio: SampleRatio
    response_quality: tuple[ResponseQuality, ...]
    notes: tuple[str, ...]
    label: str = LABEL

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The sentences a reader needs to judge the lifts."""
        return (
            f"{self.label}: outcomes are drawn from gradient boosting fitted to "
            f"{self.num_log_rows} logged impressions from before the test window; none is observed",
            f"an item at rank r is examined with the assumed probability "
            f"'{self.examination.name}' and brings nothing otherwise",
            "logged labels are taken as responses to examined impressions",
            "given examination and features, tasks are independent unless one is conditional on "
            "another; users don't influence each other; a slate doesn't change later requests",
            "intervals cover the sampling of users, their outcomes and the response model's "
            "estimate, not errors that all its refits share",
        )

    def to_json(self) -> dict[str, object]:
        """Everything, ready for ``json.dumps``."""
        return {
            "label": self.label,
            "assumptions": list(self.assumptions),
            "control": self.control,
            "treatment": self.treatment,
            "lifts": [lift.to_json() for lift in self.lifts],
            "expected_lifts": [lift.to_json() for lift in self.expected_lifts],
            "examination": {
                "name": self.examination.name,
                "probabilities": list(self.examination.probabilities),
            },
            "slate_size": self.settings.slate_size,
            "salt": self.settings.salt,
            "share_treatment": self.settings.share_treatment,
            "num_refits": self.settings.num_refits,
            "confidence": self.settings.confidence,
            "seed": self.settings.seed,
            "num_requests": self.num_requests,
            "num_log_rows": self.num_log_rows,
            "slate_overlap": self.slate_overlap,
            "sample_ratio_p_value": self.sample_ratio.p_value,
            "response_quality": [quality.to_json() for quality in self.response_quality],
            "notes": list(self.notes),
        }
