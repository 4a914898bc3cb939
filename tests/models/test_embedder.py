from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ranker.models.embedder import Embedder, InputLayout, TargetAttention
from ranker.models.embedding_table import EmbeddingTable, copy_rows

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


def one_table(parts: dict[str, Tensor], *, admit_after: int = 0) -> EmbeddingTable:
    sizes = {name: len(rows) for name, rows in parts.items()}
    one = EmbeddingTable(sizes, width=WIDTH, admit_after=admit_after)
    for name, rows in parts.items():
        one.rows(name).copy_(rows)
    return one


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
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES))
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
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES), normalization="batch")
    empty = features()
    for name in ("colors", "history_item", "history_feedback"):
        empty[name] = torch.zeros_like(empty[name])
    embedder(empty).square().sum().backward()
    for name, parameter in embedder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().isfinite().all(), name
    plain = Embedder(inputs=INPUTS, table=one_table(TABLES))
    assert (plain(empty)[:, 6:12] == 0).all()


def test_what_the_padding_holds_does_not_matter() -> None:
    loud = {name: rows.clone() for name, rows in TABLES.items()}
    loud["color"][0] = 1e6
    loud["feedback"][0] = -1e6
    x = Embedder(inputs=INPUTS, table=one_table(TABLES))(features())
    assert torch.equal(Embedder(inputs=INPUTS, table=one_table(loud))(features()), x)


def test_history_without_candidate_is_only_averaged() -> None:
    with_candidate = Embedder(inputs=INPUTS, table=one_table(TABLES))
    without = Embedder(inputs=replace(INPUTS, candidate=()), table=one_table(TABLES))
    assert without.out_width == with_candidate.out_width - WIDTH
    torch.testing.assert_close(without(features())[:, :10], with_candidate(features())[:, :10])


def test_numbers_alone_are_enough() -> None:
    numbers = InputLayout(
        categorical={}, sequences={}, history={}, candidate=(), numeric=("price",), nullable=()
    )
    embedder = Embedder(inputs=numbers, table=None, normalization="batch")
    assert embedder(features()).tolist() == [[-1.5], [2.0], [0.0]]


def test_id_dropout_hits_categorical_features_in_training_only() -> None:
    torch.manual_seed(0)
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES), id_dropout=0.3)
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
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES), id_dropout=0.9)
    known = {name: column[:1].expand(50, *column.shape[1:]) for name, column in features().items()}
    embedder(known).sum().backward()
    assert embedder.table is not None
    gradient = embedder.table.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert (gradient.to_dense()[embedder.table.offsets["user"]] != 0).all()


def test_growing_keeps_the_old_rows_and_the_new_ones() -> None:
    old = {"user": 4, "item": 2, "color": 3}
    new = {"user": 5, "item": 6, "color": 3}
    source = torch.arange(9.0)[:, None] * torch.tensor([1.0, 10.0])
    target = torch.full((14, 2), -1.0)
    copy_rows(source, old, target, new)
    assert target[:, 0].tolist() == [0, 1, 2, 3, -1, 4, 5, -1, -1, -1, -1, 6, 7, 8]
    assert target[:, 1].tolist() == [0, 10, 20, 30, -1, 40, 50, -1, -1, -1, -1, 60, 70, 80]


def test_an_id_is_admitted_after_it_has_occurred_often_enough() -> None:
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES, admit_after=3))
    user, item = TABLES["user"], TABLES["item"]
    x = embedder(features())
    assert (x[:, :6] == 0).all()  # the unknown row
    batch = {name: column[[0, 0]] for name, column in features().items()}
    embedder.observe(batch)  # user 3, item 5, query item 2: twice each
    assert (embedder(features())[:, :6] == 0).all()
    embedder.observe(
        features()
    )  # once more; user 1, item 4 (as query item) and 1 for the first time
    x = embedder(features())
    assert torch.equal(x[:, 0:2], user[[3, 0, 0]])
    assert torch.equal(x[:, 2:4], item[[5, 0, 0]])
    assert torch.equal(x[:, 4:6], item[[2, 0, 0]])
    # items of the history are admitted alike; feedback codes never occur as a feature
    torch.testing.assert_close(x[0, 8:10], (item[2] + item[5]) / 3)


def test_without_admission_nothing_is_counted() -> None:
    embedder = Embedder(inputs=INPUTS, table=one_table(TABLES))
    embedder.observe(features())
    assert not any("occurrences" in name for name in embedder.state_dict())


def test_errors_name_what_is_wrong() -> None:
    fewer = {name: rows for name, rows in TABLES.items() if name != "color"}
    with pytest.raises(ValueError, match=r"no rows for vocabularies \['color'\]"):
        Embedder(inputs=INPUTS, table=one_table(fewer))
    with pytest.raises(ValueError, match=r"'user'\]; got \[\]"):
        Embedder(inputs=INPUTS, table=None)
    with pytest.raises(ValueError, match="no vocabulary 'tag'"):
        one_table(TABLES).rows("tag")
    with pytest.raises(ValueError, match="exclude fewer"):
        InputLayout(categorical={}, sequences={}, history={}, candidate=(), numeric=(), nullable=())
    with pytest.raises(ValueError, match=r"\['price'\] are not categorical"):
        replace(INPUTS, candidate=("price",))
