"""Our own tuned plain loop: the same model and data as `ranker train` with nothing around them.

What the framework costs is measured against it. One table with offsets, all experts, gates and
towers as one product a layer, row-wise Adagrad on the batch's rows, fused Adam on the rest,
contiguous slices of a window shuffled beforehand, and the config's micro-batches.

Shapes: B batch, F features, W width, D inputs, E experts, H and J hidden widths, K tasks.
"""

from protocol import TRAIN_DAYS, ModelSize, Stopwatch, describe, parse_arguments

arguments = parse_arguments()
stopwatch = Stopwatch(arguments)

import itertools  # noqa: E402
import json  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ranker.data.store import EncodedStore, Window  # noqa: E402

stopwatch.mark("imported")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class BatchedLayer(nn.Module):
    """N linear maps, each followed by ReLU: [B, I] or [N, B, I] in."""

    def __init__(self, num: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.num, self.outputs = num, outputs
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(num, outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(num, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map to [N, B, H]."""
        if x.dim() == 2:
            out = functional.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return torch.relu_(out).view(-1, self.num, self.outputs).transpose(0, 1)
        return torch.relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)))


class MMoE(nn.Module):
    """Experts and gates on the inputs, towers: logits [B, K] from [B, D]."""

    def __init__(self, in_width: int, size: ModelSize, num_tasks: int) -> None:
        super().__init__()
        self.num_experts, self.num_tasks = size.num_experts, num_tasks
        expert_widths = [in_width, *size.expert_widths]
        tower_widths = [size.expert_widths[-1], *size.tower_widths]
        self.experts = _layers(size.num_experts, expert_widths)
        self.gates = nn.Linear(in_width, num_tasks * size.num_experts)
        self.towers = _layers(num_tasks, tower_widths)
        self.final = nn.Parameter(torch.zeros(num_tasks, tower_widths[-1], 1))
        self.bias = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, K]."""
        experts = self.experts(x).transpose(0, 1)  # [B, E, J]
        gates = self.gates(x).view(-1, self.num_tasks, self.num_experts).softmax(dim=2)
        mixed = torch.bmm(gates, experts).transpose(0, 1)  # [K, B, J]
        logits = torch.bmm(self.towers(mixed), self.final)  # [K, B, 1]
        return logits.squeeze(2).t() + self.bias


class RowWiseAdagrad:
    """One table [R, W] with one sum of squares a row; only the batch's rows are touched."""

    def __init__(self, table: Tensor, *, rate: float, initial_sum: float) -> None:
        self.table, self.rate = table, rate
        self.sums = torch.full((len(table),), initial_sum)

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Apply the summed ``gradient`` [U, W] of the different ``rows`` [U]."""
        sums = self.sums[rows] + gradient.square().mean(dim=1)  # [U]
        self.sums[rows] = sums
        self.table[rows] -= self.rate * gradient / (sums.sqrt() + 1e-10)[:, None]


def _layers(num: int, widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(BatchedLayer(num, i, o) for i, o in itertools.pairwise(widths)))


def read_window(window: Window) -> tuple[Tensor, ...]:
    """Indices with offsets [N, F], numbers [N, D], labels [N, K] of a window, shuffled."""
    order = rng.permutation(window.num_rows)

    def block(names: list[str], dtype: type) -> np.ndarray:
        columns = [store.column(name)[window.start : window.stop] for name in names]
        return np.stack(columns, axis=1).astype(dtype)[order]

    indices = block([f"feature.{name}" for name in log.categorical], np.int64) + offsets
    numbers = block([f"feature.{name}" for name in log.numeric], np.float32)
    labels = block([f"label.{name}" for name in log.tasks], np.float32)
    return tuple(torch.from_numpy(values) for values in (indices, numbers, labels))


def train_step(indices: Tensor, numbers: Tensor, labels: Tensor) -> None:
    """One step on a batch, its gradient summed over micro-batches."""
    rows, position = torch.unique(indices, return_inverse=True)
    vectors = adagrad.table[rows].requires_grad_()  # [U, W]
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(labels), micro_rows):
        part = slice(start, start + micro_rows)
        embedded = functional.embedding(position[part], vectors).flatten(1)  # [B, F * W]
        logits = model(torch.cat([embedded, numbers[part]], dim=1))
        loss = functional.binary_cross_entropy_with_logits(logits, labels[part], reduction="sum")
        (loss / len(labels)).backward()
    optimizer.step()
    assert vectors.grad is not None
    with torch.no_grad():
        adagrad.step(rows, vectors.grad)


torch.set_num_threads(arguments.threads)
torch.manual_seed(arguments.seed)
rng = np.random.default_rng(arguments.seed)
log = describe(arguments.data)
workload = json.loads((arguments.data / "data.json").read_text())["workload"]
config = yaml.safe_load((CONFIGS / f"workload_{workload}.yaml").read_text())
micro_rows = config["micro_batch_rows"] or arguments.batch
store = EncodedStore(arguments.data / "prepared")
windows = store.windows[TRAIN_DAYS - arguments.train_days : TRAIN_DAYS]
vocabularies = [store.schema.vocabulary_of(store.schema.feature(n)) for n in log.categorical]
sizes = [windows[-1].vocabulary_sizes[name] for name in vocabularies]
offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
width = log.size.embedding_width
optimizers = config["optimizer"]
adagrad = RowWiseAdagrad(
    torch.randn(sum(sizes), width) * 0.01,
    rate=optimizers["embedding"]["rate"],
    initial_sum=optimizers["embedding"]["initial_sum"],
)
model = MMoE(len(sizes) * width + len(log.numeric), log.size, len(log.tasks))
optimizer = torch.optim.Adam(model.parameters(), lr=optimizers["dense_rate"], fused=True)

ready = False
for window in windows:
    data = read_window(window)
    if not ready:
        stopwatch.mark("data_ready")
        ready = True
    for start in range(0, window.num_rows, arguments.batch):
        train_step(*(values[start : start + arguments.batch] for values in data))
        stopwatch.step()
stopwatch.save(rows=sum(window.num_rows for window in windows))
