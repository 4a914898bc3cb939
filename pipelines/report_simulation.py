"""From simulation.json to what a report says of a comparison of two arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.report_metrics import estimate

if TYPE_CHECKING:
    from ranker.report import content as c


def experiment(simulation: Mapping[str, Any]) -> c.ExperimentSummary | None:
    """The comparison of two arms; None without one."""
    from ranker.report import content

    if not simulation:
        return None
    lifts = []
    for lift in simulation["lifts"]:
        if lift["control_mean"] is None or lift["treatment_mean"] is None:
            continue
        lifts.append(
            content.LiftRow(
                metric=lift["metric"],
                family=lift["family"],
                control_mean=lift["control_mean"],
                treatment_mean=lift["treatment_mean"],
                lift=estimate({**lift, "value": lift["lift"]}),
                verdict=lift["verdict"].replace(" ", "_"),
            )
        )
    users = simulation["lifts"][0]
    return content.ExperimentSummary(
        control=simulation["control"],
        treatment=simulation["treatment"],
        control_users=users["num_users_control"],
        treatment_users=users["num_users_treatment"],
        lifts=lifts,
        verdict=_overall(simulation),
        conclusion=conclusion(simulation),
        banner=(
            "Semi-synthetic: users, requests and candidates are real, outcomes are drawn from a "
            "response model (gradient boosting) under an assumed examination curve."
        ),
        notes=[*_expected_lifts(simulation), *simulation["assumptions"], *simulation["notes"]],
    )


def conclusion(simulation: Mapping[str, Any]) -> str:
    """Who won, in a sentence."""
    verdicts = _verdicts(simulation)
    parts = [
        f"{word} on {', '.join(verdicts[word])}" for word in ("better", "worse") if word in verdicts
    ]
    found = "; ".join(parts) if parts else "no difference that can be told from chance"
    return (
        f"Simulated A/B (semi-synthetic), {simulation['treatment']} against "
        f"{simulation['control']}: {found}."
    )


def _expected_lifts(simulation: Mapping[str, Any]) -> list[str]:
    """The lifts without the luck of one split: both arms on all users, no outcome drawn."""
    shown = [
        f"{lift['metric']} {lift['lift']:+.2%} [{lift['ci_low']:+.2%}, {lift['ci_high']:+.2%}]"
        for lift in simulation["expected_lifts"]
        if lift["lift"] is not None
    ]
    if not shown:
        return []
    return [f"expected lifts, both arms on all users and nothing drawn: {'; '.join(shown)}"]


def _overall(simulation: Mapping[str, Any]) -> Any:
    verdicts = _verdicts(simulation)
    if "better" in verdicts and "worse" not in verdicts:
        return "better"
    return "worse" if "worse" in verdicts and "better" not in verdicts else "cannot_tell"


def _verdicts(simulation: Mapping[str, Any]) -> dict[str, list[str]]:
    verdicts: dict[str, list[str]] = {}
    for lift in simulation["lifts"]:
        verdicts.setdefault(lift["verdict"].replace(" ", "_"), []).append(lift["metric"])
    return verdicts
