"""The judgement as figures, and what it says about our MMoE.

A claim against several arms is made only if it holds against each of them: no arm has to be picked
as the best by the very figures it is judged by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peers.quality_job import TASKS
from quality_final import CALIBRATED, RAW, Judgement
from quality_intervals import difference
from record import Figure

OURS = "mmoe"
BOOSTERS = ("hist_gradient_boosting", "lightgbm")
MARGINS = {"click": 0.003, "long_view": 0.003, "like": 0.01}
MAX_ECE = 0.01
ECE_TASKS = ("click", "long_view")
LIST_TASK, LIST_METRIC = "long_view", "ndcg@5"
# Calibration changes probabilities, and leaves their order as it is but for ties.
ORDER_METRICS = ("auc", "gauc")
PROBABILITY_METRICS = ("normalised_entropy", "calibration_ratio", "ece")


def figures_of(judgement: Judgement) -> dict[str, Figure]:
    """All metrics of all arms, and our MMoE's difference in AUC and GAUC to each other arm."""
    figures: dict[str, Figure] = {}
    for task in TASKS:
        raw = judgement.samples[task][RAW]
        for metric in ORDER_METRICS:
            for arm, samples in raw.items():
                figures[f"{metric}_{task}_{arm}"] = samples[metric].figure()
            for arm, samples in raw.items():
                if arm != OURS:
                    name = f"{metric}_{task}_{OURS}_minus_{arm}"
                    figures[name] = difference(raw[OURS][metric], samples[metric])
        for metric in PROBABILITY_METRICS:
            for state in (RAW, CALIBRATED):
                for arm, samples in judgement.samples[task][state].items():
                    figures[f"{metric}_{state}_{task}_{arm}"] = samples[metric].figure()
    for arm, samples in judgement.samples[LIST_TASK][RAW].items():
        figures[f"ndcg_at_5_{LIST_TASK}_{arm}"] = samples[LIST_METRIC].figure()
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One claim and whether this run bears it out; ``because`` names the figures it rests on."""

    claim: str
    holds: bool
    because: str

    def line(self) -> str:
        """For people."""
        return f"{'yes' if self.holds else 'not shown'}: {self.claim}; {self.because}"


def verdicts_of(figures: Mapping[str, Figure]) -> list[Verdict]:
    """The claims wanted of our MMoE, as far as the arms took part."""
    prefix = f"auc_{TASKS[0]}_{OURS}_minus_"
    others = [name.removeprefix(prefix) for name in figures if name.startswith(prefix)]
    verdicts = [
        _beyond(
            f"{task}: AUC non-inferior to every arm, margin {margin}",
            figures,
            task,
            others,
            low=-margin,
        )
        for task, margin in MARGINS.items()
    ]
    for peer, arms in {"torch-rechub": ("torch_rechub",), "boosting": BOOSTERS}.items():
        here = [arm for arm in arms if arm in others]
        verdicts += [
            _beyond(f"{task}: AUC better than {peer}", figures, task, here, low=0.0)
            for task in TASKS
            if here
        ]
    for task in ECE_TASKS:
        ours = _required(figures[f"ece_{CALIBRATED}_{task}_{OURS}"].value)
        lowest = min(
            (_required(figures[f"ece_{CALIBRATED}_{task}_{arm}"].value), arm) for arm in others
        )
        verdicts.append(
            Verdict(
                claim=f"{task}: ECE after calibration below {MAX_ECE}",
                holds=ours < MAX_ECE,
                because=f"{ours:.4f}; the lowest of the others is {lowest[1]}'s {lowest[0]:.4f}",
            )
        )
    return verdicts


def _beyond(
    claim: str, figures: Mapping[str, Figure], task: str, arms: Sequence[str], *, low: float
) -> Verdict:
    """Whether our difference in AUC to each of ``arms`` lies above ``low`` with its interval."""
    found = {arm: figures[f"auc_{task}_{OURS}_minus_{arm}"] for arm in arms}
    closest = min(found, key=lambda arm: _required(found[arm].ci_low))
    figure = found[closest]
    return Verdict(
        claim=claim,
        holds=_required(figure.ci_low) > low,
        because=f"closest is {closest}, {figure.value:+.4f} [{figure.ci_low:+.4f}, "
        f"{figure.ci_high:+.4f}]",
    )


def _required(value: float | None) -> float:
    """A figure that must have been measured."""
    if value is None:
        raise ValueError("a figure that a verdict rests on has no value: too few rows or users")
    return value
