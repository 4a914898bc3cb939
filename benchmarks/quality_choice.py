"""What is chosen on the validation days: each arm's settings, length and calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from peers.quality_job import TASKS
from quality_arms import Arm, Plan, Predictions, Run, Settings, Workshop
from quality_calibration import METHODS
from quality_data import Split
from record import progress
from sklearn.metrics import log_loss, roc_auc_score

from ranker.evaluation.rows import EvaluationRows, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting of an arm on the validation days, seed 0."""

    settings: Settings
    length: Mapping[str, int]
    auc: Mapping[str, float]
    seconds: float

    @property
    def mean_auc(self) -> float:
        """What decides: the mean over click, long_view and like."""
        return float(np.mean(list(self.auc.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What an arm goes into the final with; ``candidates`` is empty where nothing was chosen."""

    settings: Settings
    length: Mapping[str, int]
    calibration: str
    candidates: Sequence[Candidate] = ()
    calibration_losses: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, object]:
        """For the record's details."""
        return asdict(self)


def quick_choice(arm: Arm) -> Choice:
    """The first setting, untried."""
    return Choice(settings=arm.grid[0], length=arm.quick_length, calibration="platt")


def choose(workshop: Workshop, arms: Sequence[Arm], split: Split) -> dict[str, Choice]:
    """Run every arm's grid with seed 0 and take the settings of the highest mean AUC."""
    plans = [
        Plan(arm=arm, split=split, settings=settings, choose_length=not arm.is_progressive)
        for arm in arms
        for settings in arm.grid
    ]
    made = list(zip(plans, workshop.make(plans), strict=True))
    rows = read_rows(workshop.store, split.windows)
    return {
        arm.name: _best([(plan, run) for plan, run in made if plan.arm == arm], rows, split)
        for arm in arms
    }


def choose_calibration(
    predictions: Predictions, rows: EvaluationRows, *, fit_rows: int
) -> tuple[str, dict[str, float]]:
    """Fit on the first ``fit_rows`` rows, the first validation day; the lower log loss on the rest.

    Returns:
        The method, and the mean log loss of each over the tasks.
    """
    losses = {}
    for name, fit in METHODS.items():
        by_task = []
        for task in TASKS:
            labels, values = rows.labels[task], predictions[task]
            calibrate = fit(labels[:fit_rows], values[:fit_rows])
            by_task.append(log_loss(labels[fit_rows:], calibrate(values[fit_rows:])))
        losses[name] = float(np.mean(by_task))
    return min(losses, key=lambda name: losses[name]), losses


def _best(made: Sequence[tuple[Plan, Run]], rows: EvaluationRows, split: Split) -> Choice:
    candidates = []
    for plan, run in made:
        predictions = run.predictions(start=split.start, stop=split.stop)
        auc = {t: float(roc_auc_score(rows.labels[t], predictions[t])) for t in TASKS}
        candidates.append(
            Candidate(settings=plan.settings, length=run.length, auc=auc, seconds=run.seconds)
        )
    number = int(np.argmax([candidate.mean_auc for candidate in candidates]))
    best = candidates[number]
    predictions = made[number][1].predictions(start=split.start, stop=split.stop)
    calibration, losses = choose_calibration(predictions, rows, fit_rows=split.windows[0].num_rows)
    shown = ", ".join(f"{task} {value:.4f}" for task, value in best.auc.items())
    progress(f"{made[0][0].arm.name}: {shown} with {dict(best.settings)}, {calibration}")
    return Choice(
        settings=best.settings,
        length=best.length,
        calibration=calibration,
        candidates=candidates,
        calibration_losses=losses,
    )
