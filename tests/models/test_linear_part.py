"""The linear part: starts as naive Bayes over a task's own rates, and adds to every logit."""

import math

import pytest
import torch

from ranker.data.encode import Scale
from ranker.models.build import INITIAL_RATE_WEIGHT, ModelConfig, build_model
from ranker.models.embedder import _outcome_rates
from ranker.schema import Schema

SCHEMA = Schema.model_validate(
    {
        "name": "linear",
        "log": {"user": "user_id", "item": "item_id", "time": "time_ms"},
        "features": [
            {"name": "item_id", "kind": "categorical", "owner": "item"},
            {"name": "price", "kind": "numeric", "owner": "context", "nullable": True},
        ],
        "tasks": [
            {"name": "click", "label": "click", "family": "engagement", "kind": "binary"},
            {"name": "like", "label": "like", "family": "satisfaction", "kind": "binary"},
            {"name": "seconds", "label": "s", "family": "engagement", "kind": "regression"},
        ],
        "history": {"length": 4, "rates": ["like", "seconds"], "feedback": ["click", "like"]},
    }
)
NUMERIC = [f for f in SCHEMA.all_features if f.kind == "numeric"]


def build(*, linear_part: bool) -> torch.nn.Module:
    standardisers = {f.name: Scale(mean=0.1, scale=2.5) for f in NUMERIC}
    return build_model(
        ModelConfig(linear_part=linear_part),
        SCHEMA,
        ids_by_vocabulary={name: [7, 8, 9] for name in SCHEMA.vocabularies},
        label_scales={task.name: Scale(mean=0.2, scale=1.0) for task in SCHEMA.tasks},
        standardisers=standardisers,
        seed=0,
    )


def test_it_starts_with_the_tasks_own_user_and_item_rates() -> None:
    model = build(linear_part=True)
    weight = model.linear.weight
    names = [*model.embedder.inputs.nullable, *model.embedder.inputs.numeric]
    expected = torch.zeros_like(weight)
    for rate in ("user_like_rate", "item_like_rate"):
        expected[1, names.index(rate)] = INITIAL_RATE_WEIGHT * 2.5
    assert torch.equal(weight, expected)


def test_it_can_be_left_out() -> None:
    assert build(linear_part=False).linear is None


def test_outcomes_are_log_odds_of_the_last_items() -> None:
    """Codes are 1 + click + 2·like; the newest item is last; 0 is no item."""
    codes = torch.tensor([[0, 0, 0, 0], [0, 4, 2, 1]])
    rates = _outcome_rates(codes, 2)
    assert rates.shape == (2, 6)
    assert rates[0].abs().max() < 1e-6

    def log_odds(happened: int, seen: int) -> float:
        share = (happened + 0.25) / (seen + 1)
        return math.log(share / (1 - share)) - math.log(0.25 / 0.75)

    # the last item: neither; the last three: two clicks, one like
    expected = [log_odds(0, 1), log_odds(0, 1)] + 2 * [log_odds(2, 3), log_odds(1, 3)]
    assert rates[1].tolist() == pytest.approx(expected, abs=1e-6)
