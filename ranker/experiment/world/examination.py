"""How far down users look: P(a user examines a position), by device.

Two presets are read off the plots of Zhao et al. (RecSys 2019). Fig. 6 shows the click-through rate
of nine positions; taken as examination it also holds the effect of relevance. Fig. 7 shows the bias
that the paper's shallow tower learned, a logit that is added to relevance's; as examination it is
expit(bias) relative to the first position's.

Shapes: ``D`` devices, ``P`` positions.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, assert_never

import numpy as np
from pydantic import Field, model_validator
from scipy.special import expit

from ranker.config import Config
from ranker.experiment.world.randomness import FloatArray

CTR_OF_FIG_6 = (3.55, 1.2, 1.1, 0.8, 0.6, 0.5, 0.4, 0.35, 0.3)
BIAS_LOGIT_OF_FIG_7 = (-1.0, -1.25, -1.48, -1.7, -1.8, -1.88, -1.92, -1.95, -1.98)


class FullExamination(Config):
    """Everything shown is examined: no position bias."""

    kind: Literal["none"] = "none"


class PowerExamination(Config):
    """Position p, 0-based, is examined with probability (1 + p)^−eta."""

    kind: Literal["power"]
    eta: float = Field(ge=0)


class Fig6Examination(Config):
    """The steep curve of the paper's Fig. 6; positions beyond its nine are as the ninth."""

    kind: Literal["fig6"]


class Fig7Examination(Config):
    """The gentle curve of the paper's Fig. 7; positions beyond its nine are as the ninth."""

    kind: Literal["fig7"]


class GivenExamination(Config):
    """A curve of one's own, e.g. fitted to a log; later positions are as the last one given."""

    kind: Literal["given"]
    probabilities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.probabilities[0] != 1:
            raise ValueError(f"probabilities must be 1 at the top, got {self.probabilities[0]}")
        return self


Examination = Annotated[
    FullExamination | PowerExamination | Fig6Examination | Fig7Examination | GivenExamination,
    Field(discriminator="kind"),
]


def examination_curve(examination: Examination, *, num_positions: int) -> FloatArray:
    """P(examined) by position on a device of ``position_decay`` 1; 1 at the top, [P]."""
    match examination:
        case FullExamination():
            return np.ones(num_positions)
        case PowerExamination(eta=eta):
            return np.arange(1.0, num_positions + 1) ** -eta
        case Fig6Examination():
            curve = np.array(CTR_OF_FIG_6) / CTR_OF_FIG_6[0]
        case Fig7Examination():
            bias = expit(np.array(BIAS_LOGIT_OF_FIG_7))
            curve = bias / bias[0]
        case GivenExamination(probabilities=probabilities):
            curve = np.array(probabilities)
        case _:
            assert_never(examination)
    return np.asarray(curve[np.minimum(np.arange(num_positions), len(curve) - 1)])


def examination_by_device(curve: FloatArray, *, position_decays: FloatArray) -> FloatArray:
    """The curve [P] to the power of each device's decay [D]: 0 is flat, above 1 steeper, [D, P]."""
    return np.asarray(curve[None, :] ** position_decays[:, None])
