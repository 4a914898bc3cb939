"""All embeddings of one width in one table: a vocabulary is a range of its rows.

One table means one lookup, one sparse gradient and one optimizer step for a batch, however many
features it has.

Shapes: ``R`` rows of the table, ``W`` its width, ``n`` lookups.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class EmbeddingTable(nn.Module):
    """``sizes[v]`` rows for each vocabulary ``v``, one after another; row 0 of each is "unknown".

    With ``admit_after`` an id's row is used only after the id has occurred so often in batches
    trained on; until then it is the unknown id. So rare ids, most of a vocabulary, share what is
    learned of them instead of each adding its noise.

    Attributes:
        weight: [R, W]; its gradient is sparse.
        sizes: vocabulary -> rows, the unknown one included.
        offsets: vocabulary -> its first row.
        occurrences: [R] int32, how often `count` has seen an id; absent without ``admit_after``.
    """

    occurrences: Tensor | None

    def __init__(
        self, sizes: Mapping[str, int], *, width: int, admit_after: int = 0, zeros: bool = True
    ) -> None:
        """Start with zeros (else with anything); `rows` gives the parts to fill."""
        super().__init__()
        self.sizes = dict(sizes)
        self.offsets = offsets_of(sizes)
        self.admit_after = admit_after
        num_rows = sum(self.sizes.values())
        start = torch.zeros if zeros else torch.empty  # memory is taken when it is written
        self.weight = nn.Parameter(start(num_rows, width))
        counts = torch.zeros(num_rows, dtype=torch.int32) if admit_after else None
        self.register_buffer("occurrences", counts)

    @property
    def width(self) -> int:
        """``W``."""
        return self.weight.shape[1]

    def rows(self, vocabulary: str) -> Tensor:
        """The rows of ``vocabulary``: a view of the weights without gradient.

        Raises:
            ValueError: there is no such vocabulary.
        """
        if vocabulary not in self.sizes:
            known = sorted(self.sizes)
            raise ValueError(f"embedding table: no vocabulary {vocabulary!r}; there are {known}")
        first = self.offsets[vocabulary]
        return self.weight.detach()[first : first + self.sizes[vocabulary]]

    def forward(self, indices: Tensor, offsets: Tensor) -> Tensor:
        """Look up ``indices`` [..., n] within the vocabularies that begin at ``offsets`` [n]."""
        rows = (indices + offsets).long()
        if self.occurrences is not None:
            rows = torch.where(self.occurrences[rows] >= self.admit_after, rows, offsets)
        return functional.embedding(rows, self.weight, sparse=True)  # [..., n, W]

    @torch.no_grad()
    def count(self, indices: Tensor, offsets: Tensor) -> None:
        """Note that the ids ``indices`` [..., n] have occurred."""
        if self.occurrences is not None:
            rows = (indices + offsets).flatten().long()
            ones = torch.ones_like(rows, dtype=torch.int32)
            self.occurrences.index_add_(0, rows, ones)


def offsets_of(sizes: Mapping[str, int]) -> dict[str, int]:
    """Vocabulary -> its first row, when each follows the one before."""
    offsets: dict[str, int] = {}
    total = 0
    for vocabulary, size in sizes.items():
        offsets[vocabulary] = total
        total += size
    return offsets


def copy_rows(
    source: Tensor, old: Mapping[str, int], target: Tensor, new: Mapping[str, int]
) -> None:
    """Copy every vocabulary's rows into a table in which vocabularies have grown at their ends.

    Args:
        source: [R, ...], laid out by the sizes ``old``.
        old: vocabulary -> rows.
        target: [R', ...], laid out by ``new``; rows that ``old`` has not stay as they are.
        new: vocabulary -> rows, for each vocabulary at least as many.
    """
    old_offsets, new_offsets = offsets_of(old), offsets_of(new)
    for vocabulary, size in old.items():
        assert new[vocabulary] >= size, "vocabularies only grow"
        rows = source[old_offsets[vocabulary] : old_offsets[vocabulary] + size]
        target[new_offsets[vocabulary] : new_offsets[vocabulary] + size] = rows
