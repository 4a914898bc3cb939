"""Team-draft interleaving: both rankings in one slate, and users say by clicks which they prefer.

Each user compares the rankings himself, so far fewer are needed than when each sees only one.

Shapes: ``N`` candidates, ``R`` requests, ``I`` impressions, ``U`` users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ranker.experiment.effect import FloatArray, require_share
from ranker.experiment.moments import moments, require_finite
from ranker.experiment.ratios import Quantity, estimate
from ranker.experiment.sequential import IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interleaved:
    """Slates of both rankings' items, in order of request and rank.

    Attributes:
        candidates: which row of the candidate table is shown, [I].
        ranks: 1-based place in the slate, [I].
        by_treatment: whether treatment's team picked it, [I]; else control's did.
    """

    candidates: IntArray
    ranks: IntArray
    by_treatment: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which ranking users prefer, by what they did with the items of each team.

    Attributes:
        share_treatment: of all credit; 0.5 = no preference; NaN where ``reason`` says why.
        share_se, ci_low, ci_high, p_value: of the share, p two-sided against 0.5; NaN where
            ``reason`` says why.
        num_users: with at least one impression.
        reason: what stands in the way.
    """

    share_treatment: float
    share_se: float
    ci_low: float
    ci_high: float
    p_value: float
    num_users: int
    reason: str = ""


def interleave_by_team_draft(
    request_codes: IntArray,
    *,
    control_ranks: IntArray,
    treatment_ranks: IntArray,
    slate_size: int,
    rng: np.random.Generator,
) -> Interleaved:
    """Let two teams pick items in turn (Radlinski, Kurup & Joachims, CIKM 2008, alg. 2).

    In each round a coin says who picks first; a team picks its ranking's best item not yet taken.
    So with equal rankings each item is as likely to be of either team, and anything above an item
    in the ranking of the team that picked it stands above it in the slate too.

    Args:
        request_codes: which request each candidate belongs to, not decreasing, [N].
        control_ranks, treatment_ranks: 1-based, each used once in a request, [N].
        slate_size: items to a slate; shorter lists are shown whole.
        rng: of the coins, one a request and round whatever the lists' lengths.

    Raises:
        ValueError: different lengths, requests not sorted, a rank below 1 or used twice in a
            request, or ``slate_size`` below 1.
    """
    _check_candidates(request_codes, slate_size=slate_size)
    _check_ranks(request_codes, control_ranks, name="control_ranks")
    _check_ranks(request_codes, treatment_ranks, name="treatment_ranks")
    _, starts, requests = np.unique(request_codes, return_index=True, return_inverse=True)
    taken_at = np.zeros(len(request_codes), dtype=np.int64)  # [N]; 0 = not taken
    by_treatment = np.zeros(len(request_codes), dtype=np.bool_)  # [N]
    treatment_picks = np.zeros(len(starts), dtype=np.bool_)  # [R]
    for rank in range(1, slate_size + 1 if len(starts) else 1):
        first_of_round = rank % 2 == 1
        treatment_picks = rng.random(len(starts)) < 0.5 if first_of_round else ~treatment_picks
        whose_turn = treatment_picks[requests]  # [N]
        wishes = np.where(whose_turn, treatment_ranks, control_ranks)
        wishes[taken_at > 0] = np.iinfo(np.int64).max
        best = np.minimum.reduceat(wishes, starts)  # [R]
        picked = (wishes == best[requests]) & (taken_at == 0)
        taken_at[picked] = rank
        by_treatment[picked] = whose_turn[picked]
    shown = np.flatnonzero(taken_at)
    shown = shown[np.lexsort((taken_at[shown], requests[shown]))]
    return Interleaved(candidates=shown, ranks=taken_at[shown], by_treatment=by_treatment[shown])


def preference(
    *,
    user_codes: IntArray,
    by_treatment: NDArray[np.bool_],
    credits: FloatArray,
    confidence: float,
) -> Preference:
    """Estimate which ranking users prefer, users being independent, impressions not.

    The share of credit on treatment's items is a ratio of sums by user; its standard error comes
    from the delta method and its interval and p-value from Student's t with a degree of freedom
    less than users. Unlike a count of requests won it needs no rule for ties.

    Args:
        user_codes: whose impression it is: whole numbers, [I].
        by_treatment: as interleaved, [I].
        credits: 1 for a click; or seconds watched; not negative, [I].
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: different lengths, a negative, missing or infinite credit, or ``confidence``
            outside (0, 1).
    """
    require_share(confidence, name="confidence")
    _check_credits(user_codes, by_treatment, credits)
    _, users = np.unique(user_codes, return_inverse=True)
    users_moments = moments(
        {
            "treatment": np.bincount(users, weights=credits * by_treatment).astype(np.float64),
            "both": np.bincount(users, weights=credits).astype(np.float64),
        }
    )
    share = estimate(users_moments, Quantity(numerator="treatment", denominator="both"))
    reason = ""
    if share.num_users < 2:
        reason = f"{share.num_users} user(s); an interval needs at least 2"
    elif math.isnan(share.value):
        reason = "no credit was given: nobody clicked"
    elif share.squared_se == 0:
        reason = "every user divides his credit alike: no standard error"
    se = low = high = p_value = math.nan
    if not reason:
        se = math.sqrt(share.squared_se)
        margin = float(stdtrit(share.num_users - 1, (1 + confidence) / 2)) * se
        low, high = share.value - margin, share.value + margin
        p_value = float(2 * stdtr(share.num_users - 1, -abs(share.value - 0.5) / se))
    return Preference(
        share_treatment=share.value,
        share_se=se,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        num_users=share.num_users,
        reason=reason,
    )


def _check_candidates(request_codes: IntArray, *, slate_size: int) -> None:
    if slate_size < 1:
        raise ValueError(f"interleaving: slate_size must be at least 1, got {slate_size}")
    if (np.diff(request_codes) < 0).any():
        raise ValueError("interleaving: request_codes must not decrease; sort the candidates")


def _check_ranks(request_codes: IntArray, ranks: IntArray, *, name: str) -> None:
    if len(ranks) != len(request_codes):
        raise ValueError(
            f"interleaving: expected {len(request_codes)} {name}, got {len(ranks)}; both rankings "
            "rank every candidate"
        )
    if len(ranks) and ranks.min() < 1:
        raise ValueError(f"interleaving: {name} are 1-based, got {ranks.min()}")
    order = np.lexsort((ranks, request_codes))
    twice = (np.diff(ranks[order]) == 0) & (np.diff(request_codes[order]) == 0)
    if twice.any():
        place = order[int(np.argmax(twice))]
        raise ValueError(
            f"interleaving: {name} must be used once in a request, got {ranks[place]} twice in "
            f"request {request_codes[place]}; break ties first"
        )


def _check_credits(
    user_codes: IntArray, by_treatment: NDArray[np.bool_], credits: FloatArray
) -> None:
    if not len(user_codes) == len(by_treatment) == len(credits):
        raise ValueError(
            f"preference: expected one user, team and credit an impression, got {len(user_codes)}, "
            f"{len(by_treatment)} and {len(credits)}"
        )
    require_finite(credits, name="preference")
    if len(credits) and credits.min() < 0:
        raise ValueError(f"preference: credits must not be negative, got {credits.min()}")
