"""How large the laboratory's proofs are, and their seeds."""

from dataclasses import dataclass

# One seed a proof; where one needs more (lifts, worlds), it counts on from there.
SEEDS = {
    "a_a": 1,
    "sample_ratio": 2,
    "interleaving": 3,
    "peeking": 4,
    "cuped": 5,
    "others": 6,
    "baseline": 7,
    "lifts": 10,
    "world_formulas": 20,
    "world_novelty": 22,
    "world_interference": 100,
    "world_positions": 1_000,
    "world_experiments": 2_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many experiments and worlds, and of how many users (an arm; a world)."""

    a_a: int
    lifts: int
    users_a_a: int
    users_lifts: int
    users_peeking: int
    users_interleaving: int
    users_cuped: int
    repeats_cuped: int
    users_baseline: int
    world_draws: int
    worlds: int
    worlds_interference: int
    users_world: int


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
    world_draws=2_000,
    worlds=96,
    worlds_interference=24,
    users_world=8_192,
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
    world_draws=200,
    worlds=4,
    worlds_interference=4,
    users_world=4_096,
)
