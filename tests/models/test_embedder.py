from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ranker.models.embedder import Embedder, InputLayout, TargetAttention

WIDTH = 2
INPUTS = InputLayout(
    categorical={"user": "user", "item": "item", "query": "item"},
    sequences={"colors": "color"},
    history={"history_item": "item", "history_feedback": "feedback"},
    candidate=("item",),
    numeric=("price",),
    nullable=("age", "height"),
)


def table(num_rows: int, start: float) -> Tensor:
    """Rows whose values tell where they come from; the unknown row is 0."""
    rows = start + torch.arange(num_rows * WIDTH, dtype=torch.float32).view(num_rows, WIDTH)
    rows[0] = 0
    return rows


TABLES = {
    "user": table(4, 100),
    "item": table(6, 10),
    "color": table(5, 1),
    "feedback": table(3, 0.5),
}


def features() -> dict[str, Tensor]:
    return {
        "user": torch.tensor([3, 0, 1]),
        "item": torch.tensor([5, 1, 0]),
        "query": torch.tensor([2, 0, 4]),
        "colors": torch.tensor([[0, 0, 1, 4], [0, 0, 0, 0], [1, 2, 3, 3]]),
        "history_item": torch.tensor([[0, 0, 2, 3, 5], [0, 0, 0, 0, 0], [0, 0, 0, 0, 4]]),
        "history_feedback": torch.tensor([[0, 0, 1, 2, 1], [0, 0, 0, 0, 0], [0, 0, 0, 2, 1]]),
        "price": torch.tensor([-1.5, 2.0, 0.0]),
        "age": torch.tensor([0.5, torch.nan, 1.0]),
        "height": torch.tensor([torch.nan, torch.nan, -3.0]),
    }


def test_columns_are_what_they_should_be() -> None:
    embedder = Embedder(inputs=INPUTS, tables=TABLES)
    x = embedder(features())
    assert x.shape == (3, embedder.out_width) == (3, 2 * (3 + 1 + 2) + 1 + 2 * 2)
    user, item = TABLES["user"], TABLES["item"]
    color, feedback = TABLES["color"], TABLES["feedback"]
    assert torch.equal(x[:, 0:2], user[[3, 0, 1]])
    assert torch.equal(x[:, 2:4], item[[5, 1, 0]])
    assert torch.equal(x[:, 4:6], item[[2, 0, 4]])
    colors = torch.stack(
        [
            (color[1] + color[4]) / 2,
            torch.zeros(2),
            (color[1] + color[2] + 2 * color[3]) / 4,
        ]
    )
    torch.testing.assert_close(x[:, 6:8], colors)
    history = torch.stack(
        [
            (item[2] + feedback[1] + item[3] + feedback[2] + item[5] + feedback[1]) / 3,
            torch.zeros(2),
            (feedback[2] + item[4] + feedback[1]) / 2,  # an unknown item was watched all the same
        ]
    )
    torch.testing.assert_close(x[:, 8:10], history)
    assert x[:, 12].tolist() == [0.5, 0.0, 1.0]  # age
    assert x[:, 13].tolist() == [0.0, 0.0, -3.0]  # height
    assert x[:, 14].tolist() == [-1.5, 2.0, 0.0]  # price
    assert x[:, 15:].tolist() == [[0, 1], [1, 1], [0, 0]]  # null: age, height


def test_attention_equals_a_loop_over_real_tokens() -> None:
    torch.manual_seed(0)
    batch_size, length, width = 7, 4, 3
    attention = TargetAttention(width)
    torch.nn.init.normal_(attention.project.weight)
    query, tokens = torch.randn(batch_size, width), torch.randn(batch_size, length, width)
    real = torch.rand(batch_size, length) < 0.6
    real[2] = False
    weights = attention(query, tokens, real)
    matrix = attention.project.weight.detach()

    def unit(vector: Tensor) -> Tensor:
        return vector / (vector.square().mean() + 1e-3).sqrt()

    for row in range(batch_size):
        exps = [
            math.exp(unit(token) @ matrix @ unit(query[row]) / math.sqrt(width))
            for token in tokens[row]
        ]
        total = sum(e for e, is_real in zip(exps, real[row], strict=True) if is_real)
        expected = [e / total if is_real else 0 for e, is_real in zip(exps, real[row], strict=True)]
        assert weights[row].tolist() == pytest.approx(expected, rel=1e-4)


def test_attention_prefers_what_resembles_the_candidate() -> None:
    attention = TargetAttention(16)
    tokens = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0)) * 0.05
    weights = attention(tokens[:, 4], tokens, torch.ones(1, 6, dtype=torch.bool))
    assert weights.argmax() == 4
    assert weights[0, 4] > 0.5


def test_empty_sequences_give_zeros_and_finite_gradients() -> None:
    embedder = Embedder(inputs=INPUTS, tables=TABLES, normalization="batch")
    empty = features()
    for name in ("colors", "history_item", "history_feedback"):
        empty[name] = torch.zeros_like(empty[name])
    embedder(empty).square().sum().backward()
    for name, parameter in embedder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().isfinite().all(), name
    plain = Embedder(inputs=INPUTS, tables=TABLES)
    assert (plain(empty)[:, 6:12] == 0).all()


def test_what_the_padding_holds_does_not_matter() -> None:
    loud = {name: rows.clone() for name, rows in TABLES.items()}
    loud["color"][0] = 1e6
    loud["feedback"][0] = -1e6
    x = Embedder(inputs=INPUTS, tables=TABLES)(features())
    assert torch.equal(Embedder(inputs=INPUTS, tables=loud)(features()), x)


def test_history_without_candidate_is_only_averaged() -> None:
    with_candidate = Embedder(inputs=INPUTS, tables=TABLES)
    without = Embedder(inputs=replace(INPUTS, candidate=()), tables=TABLES)
    assert without.out_width == with_candidate.out_width - WIDTH
    torch.testing.assert_close(without(features())[:, :10], with_candidate(features())[:, :10])


def test_numbers_alone_are_enough() -> None:
    numbers = InputLayout(
        categorical={}, sequences={}, history={}, candidate=(), numeric=("price",), nullable=()
    )
    embedder = Embedder(inputs=numbers, tables={}, normalization="batch")
    assert embedder(features()).tolist() == [[-1.5], [2.0], [0.0]]


def test_id_dropout_hits_categorical_features_in_training_only() -> None:
    torch.manual_seed(0)
    embedder = Embedder(inputs=INPUTS, tables=TABLES, id_dropout=0.3)
    one = {name: column[:1].expand(2_000, *column.shape[1:]) for name, column in features().items()}
    x = embedder(one)
    dropped = torch.stack([(x[:, i : i + 2] == 0).all(dim=1) for i in (0, 2, 4)])  # [3, 2000]
    for share in dropped.double().mean(dim=1).tolist():
        assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / 2_000))
    both = (dropped[0] & dropped[1]).double().mean().item()
    assert both == pytest.approx(0.09, abs=5 * math.sqrt(0.09 * 0.91 / 2_000))
    assert (x[:, 6:10] == x[0, 6:10]).all()  # sequences
    embedder.eval()
    assert (embedder(one)[:, :6] != 0).all()


def test_id_dropout_teaches_the_unknown_row() -> None:
    torch.manual_seed(0)
    embedder = Embedder(inputs=INPUTS, tables=TABLES, id_dropout=0.9)
    known = {name: column[:1].expand(50, *column.shape[1:]) for name, column in features().items()}
    embedder(known).sum().backward()
    gradient = embedder.table("user").weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert (gradient.to_dense()[0] != 0).all()


def test_growing_keeps_the_old_bits() -> None:
    embedder = Embedder(inputs=INPUTS, tables=TABLES, normalization="batch").eval()
    before = embedder(features())
    new_rows = torch.tensor([[7.0, -7.0], [8.0, -8.0], [9.0, -9.0]])
    embedder.grow("item", new_rows)
    assert torch.equal(embedder(features()), before)
    assert embedder.vocabulary_sizes == {"user": 4, "item": 9, "color": 5, "feedback": 3}
    assert torch.equal(embedder.table("item").weight[6:], new_rows)
    embedder(features()).sum().backward()
    gradient = embedder.table("item").weight.grad
    assert gradient is not None
    assert gradient.shape == (9, WIDTH)


def test_growing_by_nothing_is_allowed() -> None:
    embedder = Embedder(inputs=INPUTS, tables=TABLES)
    embedder.grow("user", torch.empty(0, WIDTH))
    assert embedder.vocabulary_sizes["user"] == 4


def test_the_callers_tables_are_left_alone() -> None:
    mine = {name: rows.clone() for name, rows in TABLES.items()}
    embedder = Embedder(inputs=INPUTS, tables=mine)
    with torch.no_grad():
        embedder.table("user").weight.fill_(5.0)
    assert torch.equal(mine["user"], TABLES["user"])


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"no table for \['color'\]"):
        Embedder(inputs=INPUTS, tables={k: v for k, v in TABLES.items() if k != "color"})
    with pytest.raises(ValueError, match=r"one width, got \[2, 3\]"):
        Embedder(inputs=INPUTS, tables={**TABLES, "user": torch.zeros(4, 3)})
    embedder = Embedder(inputs=INPUTS, tables=TABLES)
    with pytest.raises(ValueError, match="no vocabulary 'tag'"):
        embedder.grow("tag", torch.zeros(1, WIDTH))
    with pytest.raises(ValueError, match=r"'item' must be \[N, 2\], got \[1, 3\]"):
        embedder.grow("item", torch.zeros(1, 3))
    with pytest.raises(ValueError, match="exclude fewer"):
        InputLayout(categorical={}, sequences={}, history={}, candidate=(), numeric=(), nullable=())
    with pytest.raises(ValueError, match=r"\['price'\] are not categorical"):
        replace(INPUTS, candidate=("price",))
