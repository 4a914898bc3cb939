"""Both arms' slates laid out for measuring: who sees what, and what it brings on average.

Shapes: ``C`` candidates, ``S`` shown (rows of one arm's slates), ``U`` candidates shown by either
arm: only these are ever predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.assignment import (
    IdArray,
    SampleRatio,
    as_ids,
    assign,
    check_sample_ratio,
)
from ranker.experiment.outcomes import (
    ExaminationCurve,
    FloatArray,
    OutcomesByTask,
    draw_outcomes,
    expected_outcomes,
)
from ranker.experiment.policy import JudgedCandidates, Policy, codes_of
from ranker.experiment.resampling import IntArray, RowsByUser, resample
from ranker.experiment.simulation_result import SimulationSettings
from ranker.schema import TaskSpec

MeanByTask = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """One arm's slates for all requests, also those of the other arm's users.

    Attributes:
        rows: which of the U shown candidates, [S].
        examination: P(examined), [S].
        by_user: the S rows of each user.
    """

    rows: IntArray
    examination: FloatArray
    by_user: RowsByUser

    def drawn_means(
        self,
        predictions: Mapping[str, FloatArray],
        *,
        users: IntArray,
        tasks: Sequence[TaskSpec],
        relative_variances: Mapping[str, float],
        rng: np.random.Generator,
    ) -> MeanByTask:
        """Mean per user of one draw of outcomes; a user given twice draws twice."""
        shown = self.by_user.rows_of(users)
        outcomes = draw_outcomes(
            {task: values[self.rows[shown]] for task, values in predictions.items()},
            examination=self.examination[shown],
            tasks=tasks,
            relative_variances=relative_variances,
            rng=rng,
        )
        return _mean_per_user(outcomes, num_users=len(users))

    def expected_means(
        self, predictions: Mapping[str, FloatArray], *, users: IntArray, tasks: Sequence[TaskSpec]
    ) -> MeanByTask:
        """Mean per user of expected outcomes; a user given twice counts twice."""
        shown = self.by_user.rows_of(users)
        outcomes = expected_outcomes(
            {task: values[self.rows[shown]] for task, values in predictions.items()},
            examination=self.examination[shown],
            tasks=tasks,
        )
        return _mean_per_user(outcomes, num_users=len(users))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Participants:
    """User codes; with repetitions in a replicate, where ``everyone`` is a draw of its own."""

    control: IntArray
    treatment: IntArray
    everyone: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """Two arms on the same requests.

    Attributes:
        features: of the candidates shown by either arm, [U, F].
        user_ids: their requests' users, [U].
        slate_overlap: share of control's shown candidates that treatment shows too.
    """

    control: Arm
    treatment: Arm
    features: NDArray[np.float32]
    user_ids: IdArray
    participants: Participants
    slate_overlap: float
    sample_ratio: SampleRatio

    def resample(self, *, rng: np.random.Generator) -> Participants:
        """Draw each arm's users, and everyone, with replacement."""
        return Participants(
            control=resample(self.participants.control, rng=rng),
            treatment=resample(self.participants.treatment, rng=rng),
            everyone=resample(self.participants.everyone, rng=rng),
        )


def lay_out(
    candidates: JudgedCandidates,
    *,
    control: Policy,
    treatment: Policy,
    examination: ExaminationCurve,
    settings: SimulationSettings,
) -> Trial:
    """Let both arms rank every request, and split the users."""
    requests = codes_of(candidates.requests, name="candidates: requests")
    control_slates, treatment_slates = (
        policy.slates(requests=requests, items=candidates.items, slate_size=settings.slate_size)
        for policy in (control, treatment)
    )
    shown = np.union1d(control_slates.candidates, treatment_slates.candidates)  # [U]
    user_ids, user_codes = np.unique(as_ids(candidates.users, name="users"), return_inverse=True)
    in_treatment = assign(user_ids, salt=settings.salt, share_treatment=settings.share_treatment)
    control_arm, treatment_arm = (
        Arm(
            rows=np.searchsorted(shown, slates.candidates),
            examination=examination.at(slates.ranks),
            by_user=RowsByUser.of(user_codes[slates.candidates], num_users=len(user_ids)),
        )
        for slates in (control_slates, treatment_slates)
    )
    return Trial(
        control=control_arm,
        treatment=treatment_arm,
        features=candidates.features[shown],
        user_ids=candidates.users[shown],
        participants=Participants(
            control=np.flatnonzero(~in_treatment),
            treatment=np.flatnonzero(in_treatment),
            everyone=np.arange(len(user_ids)),
        ),
        slate_overlap=float(np.isin(control_slates.candidates, treatment_slates.candidates).mean()),
        sample_ratio=check_sample_ratio(in_treatment, share_treatment=settings.share_treatment),
    )


def _mean_per_user(outcomes: OutcomesByTask, *, num_users: int) -> MeanByTask:
    if num_users == 0:
        return dict.fromkeys(outcomes, float("nan"))
    return {task: float(values.sum()) / num_users for task, values in outcomes.items()}
