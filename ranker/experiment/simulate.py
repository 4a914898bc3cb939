"""A semi-synthetic A/B test: real requests, two arms' slates, outcomes drawn from a model.

What the intervals cover. Each of B replicates (1) fits the response model anew to a bootstrap
sample of the logged users, (2) draws users of each arm with replacement, and (3) draws their
outcomes anew, independently for each copy of a user: with one draw shared by the copies, outcome
noise would count twice. The variance between replicates is therefore that of the response model's
estimate, plus that of which users take part, plus that of what they happen to do. What no
bootstrap sees is what all refits get wrong alike: a bias of the response model's family, of the
old ranker's choice of impressions, of the assumed examination. The point lift comes from the model
fitted to the whole log; `estimate_lift` says how the interval is put around it.

Shapes: ``B`` replicates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ranker.data.moment_text import moment_text
from ranker.experiment.lift import ArmMeans, Lift, estimate_lift
from ranker.experiment.outcomes import ExaminationCurve
from ranker.experiment.policy import JudgedCandidates, Policy, codes_of
from ranker.experiment.resampling import RowsByUser, resample
from ranker.experiment.response import (
    LoggedImpressions,
    ResponseModel,
    ResponseSettings,
    fit_response_model,
)
from ranker.experiment.response_quality import assess_response_model
from ranker.experiment.simulation_result import SimulationResult, SimulationSettings
from ranker.experiment.trial import MeanByTask, Participants, Trial, lay_out
from ranker.schema import TaskSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measurement:
    """Mean per user by task: of the experiment itself, or of one replicate."""

    control_drawn: MeanByTask
    treatment_drawn: MeanByTask
    control_expected: MeanByTask
    treatment_expected: MeanByTask


def simulate(
    *,
    candidates: JudgedCandidates,
    control: Policy,
    treatment: Policy,
    log: LoggedImpressions,
    tasks: Sequence[TaskSpec],
    test_start_ms: int,
    examination: ExaminationCurve,
    settings: SimulationSettings,
) -> SimulationResult:
    """Run two arms on the same requests and measure each task's lift.

    Args:
        candidates: the lists of requests of the test window.
        control: the arm lifts are relative to.
        treatment: the arm judged.
        log: impressions the response model learns from.
        tasks: the metrics; with any task they are conditional on.
        test_start_ms: start of the test window, UTC; every row of ``log`` must be before it.
        examination: assumed; must cover the slates' ranks.
        settings: see `SimulationSettings`.

    Raises:
        ValueError: rows of the test window in ``log``, other features there than in
            ``candidates``, an empty log, or inputs that their own types reject.
    """
    _check_inputs(candidates, log=log, tasks=tasks, test_start_ms=test_start_ms)
    trial = lay_out(
        candidates,
        control=control,
        treatment=treatment,
        examination=examination,
        settings=settings,
    )
    point_rng, *refit_rngs = np.random.default_rng(settings.seed).spawn(1 + settings.num_refits)
    model = fit_response_model(log, tasks=tasks, settings=settings.response, rng=point_rng)
    quality = assess_response_model(model, log, tasks=tasks)
    lab = _Lab(
        trial=trial,
        log=log,
        # A condition is drawn before what depends on it.
        tasks=tuple(sorted(tasks, key=lambda task: task.conditional_on is not None)),
        relative_variances={one.task: one.relative_variance or 0.0 for one in quality},
    )
    measured = lab.run(model, settings=settings.response, rngs=[point_rng, *refit_rngs])
    lifts, expected_lifts = _compare(
        measured, tasks, trial=trial, notes=model.notes, confidence=settings.confidence
    )
    return SimulationResult(
        control=control.name,
        treatment=treatment.name,
        lifts=lifts,
        expected_lifts=expected_lifts,
        examination=examination,
        settings=settings,
        num_requests=len(np.unique(candidates.requests)),
        num_log_rows=len(log.users),
        slate_overlap=trial.slate_overlap,
        sample_ratio=trial.sample_ratio,
        response_quality=quality,
        notes=tuple(f"{task}: {note}" for task, note in model.notes.items()),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Lab:
    trial: Trial
    log: LoggedImpressions
    tasks: tuple[TaskSpec, ...]
    relative_variances: Mapping[str, float]

    def run(
        self,
        model: ResponseModel,
        *,
        settings: ResponseSettings,
        rngs: Sequence[np.random.Generator],
    ) -> list[_Measurement]:
        """Measure the experiment itself, then one replicate for each further generator."""
        point_rng, *refit_rngs = rngs
        measured = [self.measure(model, participants=self.trial.participants, rng=point_rng)]
        for number, rng in enumerate(refit_rngs, start=1):
            measured.append(self.replicate(settings=settings, rng=rng))
            logger.info("response model refitted %d of %d times", number, len(refit_rngs))
        return measured

    def replicate(self, *, settings: ResponseSettings, rng: np.random.Generator) -> _Measurement:
        """Refit on a bootstrap sample of logged users, then measure on one of participants."""
        user_codes = codes_of(self.log.users, name="log: users")
        num_users = int(user_codes.max()) + 1
        picks = resample(np.arange(num_users), rng=rng)
        rows = RowsByUser.of(user_codes, num_users=num_users).rows_of(picks)
        model = fit_response_model(
            self.log.take(rows), tasks=self.tasks, settings=settings, rng=rng
        )
        return self.measure(model, participants=self.trial.resample(rng=rng), rng=rng)

    def measure(
        self, model: ResponseModel, *, participants: Participants, rng: np.random.Generator
    ) -> _Measurement:
        """Let ``participants`` meet both arms in the world of ``model``."""
        predictions = model.predict(features=self.trial.features, users=self.trial.user_ids)
        control_drawn, treatment_drawn = (
            arm.drawn_means(
                predictions,
                users=users,
                tasks=self.tasks,
                relative_variances=self.relative_variances,
                rng=rng,
            )
            for arm, users in (
                (self.trial.control, participants.control),
                (self.trial.treatment, participants.treatment),
            )
        )
        everyone = participants.everyone
        return _Measurement(
            control_drawn=control_drawn,
            treatment_drawn=treatment_drawn,
            control_expected=self.trial.control.expected_means(
                predictions, users=everyone, tasks=self.tasks
            ),
            treatment_expected=self.trial.treatment.expected_means(
                predictions, users=everyone, tasks=self.tasks
            ),
        )


def _compare(
    measured: Sequence[_Measurement],
    tasks: Sequence[TaskSpec],
    *,
    trial: Trial,
    notes: Mapping[str, str],
    confidence: float,
) -> tuple[tuple[Lift, ...], tuple[Lift, ...]]:
    """Lifts of drawn outcomes, arm against arm, and of expected ones, both arms on everyone."""
    participants = trial.participants
    num_control, num_treatment = len(participants.control), len(participants.treatment)
    drawn, expected = [], []
    for task in tasks:
        reason = notes.get(task.name, "")
        control = _arm_means([one.control_drawn[task.name] for one in measured], num_control)
        treatment = _arm_means([one.treatment_drawn[task.name] for one in measured], num_treatment)
        drawn.append(
            estimate_lift(
                task, control=control, treatment=treatment, confidence=confidence, reason=reason
            )
        )
        num_users = len(participants.everyone)
        control = _arm_means([one.control_expected[task.name] for one in measured], num_users)
        treatment = _arm_means([one.treatment_expected[task.name] for one in measured], num_users)
        expected.append(
            estimate_lift(
                task, control=control, treatment=treatment, confidence=confidence, reason=reason
            )
        )
    return tuple(drawn), tuple(expected)


def _arm_means(means: Sequence[float], num_users: int) -> ArmMeans:
    """The first mean is of the experiment itself, the others of its replicates."""
    return ArmMeans(point=means[0], replicates=np.array(means[1:]), num_users=num_users)


def _check_inputs(
    candidates: JudgedCandidates,
    *,
    log: LoggedImpressions,
    tasks: Sequence[TaskSpec],
    test_start_ms: int,
) -> None:
    if len(log.users) == 0:
        raise ValueError("log: no impressions before the test window to learn responses from")
    num_late = int(np.count_nonzero(log.times_ms >= test_start_ms))
    if num_late:
        raise ValueError(
            f"log: {num_late} of {len(log.times_ms)} rows are in the test window, which starts at "
            f"{moment_text(test_start_ms)}; the latest is at "
            f"{moment_text(int(log.times_ms.max()))}. The response model must not learn "
            "from what it will judge: cut the log before it"
        )
    if log.feature_names != candidates.feature_names:
        raise ValueError(
            f"log has features {log.feature_names}, candidates {candidates.feature_names}; "
            "expected the same in the same order"
        )
    names = [task.name for task in tasks]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"tasks: expected at least one, each once, got {names}")
    for task in tasks:
        if task.conditional_on is not None and task.conditional_on not in names:
            raise ValueError(
                f"task {task.name!r} is conditional on {task.conditional_on!r}; add that task"
            )
