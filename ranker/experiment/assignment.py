"""Which arm a user is in: a salted hash, the same on every machine and in every run.

Shapes: ``N`` rows.
"""

from __future__ import annotations

import hashlib
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
    excess = num_treatment - num_users * share_treatment
    statistic = excess**2 / (num_users * share_treatment * (1 - share_treatment))
    return SampleRatio(
        num_control=num_users - num_treatment,
        num_treatment=num_treatment,
        share_treatment=share_treatment,
        p_value=float(chi2.sf(statistic, df=1)),
    )
