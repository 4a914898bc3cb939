"""The factorised path on rows that are encoded already, such as a bundle's golden rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ranker.data.batch import Batch
from ranker.models.folded import fold_model
from ranker.models.ranking_model import RankingModel
from ranker.schema import Schema
from ranker.scoring.factorised.input_split import split_input
from ranker.scoring.factorised.item_terms import TermTable
from ranker.scoring.factorised.owners import Shared, features_by_side
from ranker.scoring.factorised.pieces import EncodedShard, PieceScorer, plan_pieces
from ranker.scoring.factorised.sides import CountedRows, EncodedSide


def factorised_forward(model: RankingModel, schema: Schema) -> Callable[[Batch], dict[str, Tensor]]:
    """Raw predictions [B] by task; every row is a request and an item of its own."""
    features = features_by_side(model.embedder.inputs, schema)
    folded = fold_model(model)
    split = split_input(model.embedder, folded.first, features)

    def forward(batch: Batch) -> dict[str, Tensor]:
        num_rows = batch.num_rows
        table = TermTable(split, num_items=0, room=num_rows)
        table.fill(0, batch.features, num_rows)
        scorer = PieceScorer(
            folded=folded, split=split, table=table, position_tower=model.position_tower
        )
        nowhere = torch.zeros(num_rows, dtype=torch.int32)
        side = EncodedSide(
            features=dict(batch.features),
            device=batch.position.get("device", nowhere),
            counted=CountedRows(
                unknown_by_feature={}, without_row=np.zeros(num_rows, dtype=np.bool_)
            ),
        )
        each = np.arange(num_rows)
        shard = EncodedShard(
            requests=Shared(first=each, of_row=each),
            request_side=side,
            pair_side=side if features["pair"] else None,
            own_side=side,
            catalogue_row=np.full(num_rows, -1, dtype=np.int64),
            own=each,
        )
        own = torch.from_numpy(each)
        pieces = plan_pieces(shard.requests, 0, num_rows)
        parts = [scorer.score(shard, piece, own[piece.start : piece.stop]) for piece in pieces]
        logits = torch.cat(parts)
        return {
            task: head.prediction(values)
            for (task, head), values in zip(model.heads.items(), logits.unbind(1), strict=True)
        }

    return forward
