"""Which arm a user is in: a salted hash, the same on every machine and in every run.

Any number of arms, ramped up without anybody changing arm; and whether the split came out as asked.

Shapes: ``N`` rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

IdArray = NDArray[np.generic]  # of integers or strings; `as_ids` checks


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """How the split came out.

    Attributes:
        p_value: of the chi-square test (one degree of freedom) that users were split as
            ``share_treatment`` asks; below 0.001 something dropped users from one arm.
    """

    num_control: int
    num_treatment: int
    share_treatment: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """How a split into any number of arms came out.

    Attributes:
        num_users_by_arm, share_by_arm: got and asked for; the shares sum to 1.
        p_value: of the chi-square test (one degree of freedom less than arms) that users were
            split as the shares ask; below 0.001 something dropped users from an arm.
    """

    num_users_by_arm: Mapping[str, int]
    share_by_arm: Mapping[str, float]
    p_value: float


def assign(users: IdArray, *, salt: str, share_treatment: float = 0.5) -> NDArray[np.bool_]:
    """Say for each of ``users`` [N] whether he is in the treatment arm, [N].

    A user is in treatment when ``sha256(f"{salt}:{user}")``, read as a fraction of its range, is
    below ``share_treatment``. Integer 7 and string "7" are the same user. A larger share keeps
    everyone who was in treatment there.

    Raises:
        ValueError: empty salt or one with a colon, a share outside (0, 1), or ids that are neither
            integers nor strings.
    """
    if not 0 < share_treatment < 1:
        raise ValueError(f"share_treatment must be between 0 and 1, got {share_treatment}")
    return hash_to_unit(users, salt=salt) < share_treatment


def assign_arms(
    users: IdArray, *, salt: str, share_by_arm: Mapping[str, float], ramp: float = 1.0
) -> NDArray[np.str_]:
    """Name the arm of each of ``users`` [N]; "" is not in the experiment, [N].

    The hash of `hash_to_unit` falls into [0, 1), where each arm owns a stretch as long as its share
    in the order given; only the first ``ramp`` of every stretch is in use. So a larger ramp adds
    users to every arm in proportion and changes nobody's arm. (Were one arm ramped alone, early and
    late users would be mixed differently in each arm: Simpson's paradox.)

    Args:
        users: integers or strings.
        salt: names the experiment.
        share_by_arm: of all users at full ramp, each above 0, at most 1 together.
        ramp: how much of the shares is in use, in (0, 1].

    Raises:
        ValueError: a bad salt, share or ramp, an arm without a name, or ids that are neither
            integers nor strings.
    """
    if not 0 < ramp <= 1:
        raise ValueError(f"ramp must be above 0 and at most 1, got {ramp}")
    shares = _shares(share_by_arm)
    total = math.fsum(shares)
    if total > 1 + 1e-9:
        raise ValueError(f"share_by_arm must sum to at most 1, got {total:g}: {dict(share_by_arm)}")
    if "" in share_by_arm:
        raise ValueError("share_by_arm: an arm needs a name; '' stands for users outside")
    ends = np.cumsum(shares)
    if total > 1 - 1e-9:
        ends[-1] = 1.0  # 0.1 + 0.2 + 0.7 falls short of 1 and would leave a user out
    starts = np.concatenate([[0.0], ends[:-1]])
    units = hash_to_unit(users, salt=salt)
    place = np.searchsorted(ends, units, side="right")  # [N]; number of arms = beyond them all
    used_until = np.append(starts + ramp * (ends - starts), -1.0)
    names = np.array([*share_by_arm, ""])
    arms: NDArray[np.str_] = names[np.where(units < used_until[place], place, len(shares))]
    return arms


def hash_to_unit(ids: IdArray, *, salt: str) -> NDArray[np.float64]:
    """Map each of ``ids`` [N] to a number in [0, 1) that looks uniform, [N].

    The first 53 bits (what a float holds) of ``sha256(f"{salt}:{id}")``, over 2^53.

    Raises:
        ValueError: empty salt or one with a colon, or ids neither integers nor strings.
    """
    # Without the ban on colons the salt "a" with id "b:c" would meet the salt "a:b" with id "c".
    if not salt or ":" in salt:
        raise ValueError(f"salt must be a non-empty string without a colon, got {salt!r}")
    unique_ids, inverse = np.unique(as_ids(ids, name="ids"), return_inverse=True)
    hashes = [
        int.from_bytes(hashlib.sha256(f"{salt}:{one}".encode()).digest()[:8], "big") >> 11
        for one in unique_ids.tolist()
    ]
    units: NDArray[np.float64] = np.array(hashes, dtype=np.float64) * 2.0**-53
    return units[inverse]


def as_ids(ids: IdArray, *, name: str) -> IdArray:
    """Return ``ids`` as a one-dimensional array of integers or of strings.

    Raises:
        ValueError: another shape, another type, or a missing id.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {array.shape}")
    if array.dtype.kind in "iuU":
        return array
    if array.dtype.kind == "O" and all(isinstance(one, str) for one in array):
        return array.astype(np.str_)
    if array.size == 0:
        return array.astype(np.int64)
    raise ValueError(
        f"{name}: expected integers or strings without missing values, got {array.dtype} "
        f"(first: {array[0]!r}); a float column of ids comes from missing values: drop those first"
    )


def check_sample_ratio(in_treatment: NDArray[np.bool_], *, share_treatment: float) -> SampleRatio:
    """Test a split of users against the share asked for; one entry a user, not a row.

    Raises:
        ValueError: no users.
    """
    num_users = len(in_treatment)
    if num_users == 0:
        raise ValueError("sample ratio: expected at least one user, got none")
    num_treatment = int(np.count_nonzero(in_treatment))
    counts = check_arm_counts(
        {"control": num_users - num_treatment, "treatment": num_treatment},
        share_by_arm={"control": 1 - share_treatment, "treatment": share_treatment},
    )
    return SampleRatio(
        num_control=num_users - num_treatment,
        num_treatment=num_treatment,
        share_treatment=share_treatment,
        p_value=counts.p_value,
    )


def check_arm_counts(
    num_users_by_arm: Mapping[str, int], *, share_by_arm: Mapping[str, float]
) -> ArmCounts:
    """Test how many users each arm got against the shares asked for (Pearson's chi-square).

    Args:
        num_users_by_arm: every arm, also one that got nobody.
        share_by_arm: in any unit: only their proportions matter.

    Raises:
        ValueError: fewer than two arms, different arms, a share not above 0, a negative count, or
            no users.
    """
    if len(share_by_arm) < 2 or set(num_users_by_arm) != set(share_by_arm):
        raise ValueError(
            f"sample ratio: expected counts and shares of the same two or more arms, got counts of "
            f"{sorted(num_users_by_arm)} and shares of {sorted(share_by_arm)}"
        )
    counts = np.array([num_users_by_arm[arm] for arm in share_by_arm])
    num_users = int(counts.sum())
    if counts.min() < 0 or num_users == 0:
        raise ValueError(
            f"sample ratio: expected at least one user and no negative count, got "
            f"{dict(num_users_by_arm)}"
        )
    shares = _shares(share_by_arm)
    shares = shares / shares.sum()
    statistic = float(np.sum((counts - num_users * shares) ** 2 / (num_users * shares)))
    return ArmCounts(
        num_users_by_arm=dict(num_users_by_arm),
        share_by_arm=dict(zip(share_by_arm, shares.tolist(), strict=True)),
        p_value=float(chi2.sf(statistic, df=len(shares) - 1)),
    )


def _shares(share_by_arm: Mapping[str, float]) -> NDArray[np.float64]:
    shares = np.array(list(share_by_arm.values()), dtype=np.float64)
    if len(shares) == 0 or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(f"share_by_arm: expected shares above 0, got {dict(share_by_arm)}")
    return shares
