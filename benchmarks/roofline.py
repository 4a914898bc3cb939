"""The machine's limit for a training step: sustained single-precision matrix products."""

import itertools
import time

import torch

_SIZE = 2048
_WARM_UP, _ROUNDS = 2, 5


def sgemm_gflops(*, threads: int) -> float:
    """Best of five products of square matrices that do not fit the cache, in GFLOP/s."""
    torch.set_num_threads(threads)
    a, b = torch.randn(_SIZE, _SIZE), torch.randn(_SIZE, _SIZE)
    out = torch.empty(_SIZE, _SIZE)
    seconds = []
    for _ in range(_WARM_UP + _ROUNDS):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - started)
    return 2 * _SIZE**3 / min(seconds[_WARM_UP:]) / 1e9


def mmoe_multiplications(
    *,
    in_width: int,
    num_experts: int,
    expert_widths: tuple[int, ...],
    tower_widths: tuple[int, ...],
    num_tasks: int,
) -> int:
    """Multiply-adds of one example's forward pass through an MMoE with linear gates."""
    experts = _chain((in_width, *expert_widths)) * num_experts
    gates = num_tasks * num_experts * (in_width + expert_widths[-1])
    towers = _chain((expert_widths[-1], *tower_widths, 1)) * num_tasks
    return experts + gates + towers


def training_gflop(multiplications: int) -> float:
    """GFLOP of a training example: a multiply-add is two, backward costs twice the forward pass."""
    return 2 * 3 * multiplications / 1e9


def _chain(widths: tuple[int, ...]) -> int:
    return sum(a * b for a, b in itertools.pairwise(widths))
