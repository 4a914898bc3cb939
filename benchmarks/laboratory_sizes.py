"""How large the laboratory's proofs are, and their seeds."""

from dataclasses import dataclass

# One seed a proof; lifts count on from theirs.
SEEDS = {
    "a_a": 1,
    "sample_ratio": 2,
    "interleaving": 3,
    "peeking": 4,
    "cuped": 5,
    "others": 6,
    "baseline": 7,
    "lifts": 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many experiments, and of how many users an arm."""

    a_a: int
    lifts: int
    users_a_a: int
    users_lifts: int
    users_peeking: int
    users_interleaving: int
    users_cuped: int
    repeats_cuped: int
    users_baseline: int


FULL = Sizes(
    a_a=10_000,
    lifts=5_000,
    users_a_a=2_000,
    users_lifts=10_000,
    users_peeking=2_000,
    users_interleaving=400,
    users_cuped=100_000,
    repeats_cuped=20,
    users_baseline=2_000_000,
)
QUICK = Sizes(
    a_a=400,
    lifts=100,
    users_a_a=1_000,
    users_lifts=5_000,
    users_peeking=1_000,
    users_interleaving=200,
    users_cuped=100_000,
    repeats_cuped=3,
    users_baseline=500_000,
)
