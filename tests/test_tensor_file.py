from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ranker.atomic import sha256_of
from ranker.tensor_file import read_tensors, write_tensors

DTYPES = [torch.float64, torch.float32, torch.int64, torch.int32, torch.bool]
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(
    specs=st.dictionaries(
        st.text(min_size=1, max_size=9), st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=6
    )
)
def test_the_librarys_reader_finds_what_was_written(
    specs: dict[str, tuple[tuple[int, ...], torch.dtype]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    specs.pop("__metadata__", None)
    random = torch.Generator().manual_seed(len(specs))
    tensors = {
        name: (torch.randn(shape, generator=random) * 5).to(dtype)
        for name, (shape, dtype) in specs.items()
    }
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    digest = write_tensors(path, tensors, metadata={"cursor": "{7}"})
    assert digest == sha256_of(path)
    theirs = load_file(path)
    ours, metadata = read_tensors(path)
    assert metadata == {"cursor": "{7}"}
    assert theirs.keys() == ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        for read in (theirs[name], ours[name]):
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_what_the_library_wrote_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.arange(7)}, tmp_path / "x.safetensors")
    tensors, metadata = read_tensors(tmp_path / "x.safetensors")
    assert tensors["a"].tolist() == list(range(7))
    assert metadata == {}


def test_views_and_gradients_are_written_as_their_values(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(35.0).view(5, 7))
    write_tensors(tmp_path / "x", {"turned": weight.t(), "part": weight[1:3, ::2]})
    tensors, _ = read_tensors(tmp_path / "x")
    assert torch.equal(tensors["turned"], weight.detach().t())
    assert torch.equal(tensors["part"], weight.detach()[1:3, ::2])


def test_equal_tensors_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(5, dtype=torch.int64)}
    first = write_tensors(tmp_path / "1", tensors)
    assert write_tensors(tmp_path / "2", dict(reversed(tensors.items()))) == first


@pytest.mark.parametrize("content", [b"", b"\x05", b"PK\x03\x04 and no more"])
def test_a_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x: is no safetensors file"):
        read_tensors(tmp_path / "x")
