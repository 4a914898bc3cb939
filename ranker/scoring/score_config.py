"""How a scoring job works: what slates are made and in which pieces."""

from __future__ import annotations

from pydantic import Field

from ranker.config import Config
from ranker.scoring.runtimes.runtime_name import RuntimeChoice
from ranker.scoring.slates.slate_config import SlateConfig


class ScoreConfig(Config):
    """All that decides about the bytes of a job's output, besides its inputs.

    Attributes:
        slate: see `SlateConfig`.
        runtime: how predictions are computed; ``auto`` measures the exact ones on the first shard.
            The plan keeps the choice, since the last bits of predictions depend on it.
        shard_rows: a shard ends at the first end of a request after so many candidates.
        threads: of the model's arithmetic, in every process; 0 takes as many as the machine that
            makes the plan has cores. The plan keeps the number: sums depend on it.
        seed: of whatever is left to chance.
    """

    slate: SlateConfig = SlateConfig()
    runtime: RuntimeChoice = "factorised"
    shard_rows: int = Field(default=200_000, ge=1)
    threads: int = Field(default=0, ge=0, le=1024)
    seed: int = Field(default=0, ge=0)
