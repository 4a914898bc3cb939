from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.vocabulary import Vocabulary


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.lists(st.none() | st.integers(0, 60), max_size=25), max_size=12),
    as_text=st.booleans(),
)
def test_any_number_of_chunks_is_a_dictionary(
    chunks: list[list[int | None]], as_text: bool
) -> None:
    vocabulary, seen = Vocabulary(), dict[object, int]()
    for chunk in chunks:
        ids = [f"id{v}" if as_text and v is not None else v for v in chunk]
        values = pa.array(ids, pa.string() if as_text else pa.int64())
        unknown = [0 if v is None else seen.get(v, 0) for v in ids]
        assert vocabulary.encode(values).tolist() == unknown
        expected = [0 if v is None else seen.setdefault(v, len(seen) + 1) for v in ids]
        assert vocabulary.encode_and_learn(values).tolist() == expected
        assert vocabulary.ids.tolist() == list(seen)


def test_an_id_is_hashed_a_logarithmic_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 chunks of 8 new ids each: rebuilding one table a chunk would hash 4 million ids."""
    hashed = 0
    original = Vocabulary._append

    def counted(vocabulary: Vocabulary, ids: np.ndarray) -> None:
        nonlocal hashed
        before = set(map(id, vocabulary._parts))
        original(vocabulary, ids)
        hashed += sum(len(part) for part in vocabulary._parts if id(part) not in before)

    monkeypatch.setattr(Vocabulary, "_append", counted)
    vocabulary = Vocabulary()
    for start in range(0, 8_000, 8):
        vocabulary.encode_and_learn(pa.array(range(start, start + 8)))
    assert len(vocabulary) == 8_001 and len(vocabulary._parts) <= 11
    assert hashed < 8_000 * 11
