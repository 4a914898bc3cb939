"""All of a shard's slates in one call: constraints, exploration, exposure log, counts.

`N` candidates, `M` shown rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.features import FeatureSource
from ranker.scoring.slates.exposure import (
    PolicyDigests,
    SlateCounts,
    count_slates,
    exposure_columns,
    score_logits,
)
from ranker.scoring.slates.slate import SlateRows, make_slates
from ranker.scoring.slates.slate_candidates import item_hashes, slate_candidates
from ranker.scoring.slates.slate_config import SlateConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MadeSlates:
    """Slates of a shard.

    Attributes:
        rows: which candidates are shown where, [M].
        columns: of the exposure log, to go with the shown rows' own columns, rank and score: [M].
        counts: what the constraints left.
    """

    rows: SlateRows
    columns: dict[str, pa.Array]
    counts: SlateCounts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlateMaker:
    """Makes the slates of one shard after the other; each depends on nothing but its rows.

    Attributes:
        config: size, constraints, exploration.
        source: the state's schema and item table.
        combination: how scores were combined, see `score_logits`.
        policy: what scored.
        seed: of the draws.
    """

    config: SlateConfig
    source: FeatureSource
    combination: str
    policy: PolicyDigests
    seed: int

    def make(
        self,
        raw: pa.Table,
        canonical: pa.Table,
        *,
        request: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
    ) -> MadeSlates:
        """Make slates of whole requests.

        Args:
            raw: candidates with their own columns, [N].
            canonical: the same rows as `ranker.data.tables` reads them, [N].
            request: codes, [N].
            scores: [N].

        Raises:
            ConfigError: constraints on what nobody knows of these candidates.
            ValueError: as in `make_slates`.
        """
        candidates = slate_candidates(
            raw, canonical, request, source=self.source, config=self.config
        )
        logits = score_logits(scores, self.combination)
        rows = make_slates(candidates, scores, logits=logits, config=self.config, seed=self.seed)
        columns = exposure_columns(
            candidates,
            rows,
            logits=logits,
            item_hash=item_hashes(canonical),
            config=self.config,
            policy=self.policy,
        )
        counts = count_slates(candidates, rows, size=self.config.size)
        return MadeSlates(rows=rows, columns=columns, counts=counts)
