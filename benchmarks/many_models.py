"""What 16 stacked seeds of a small MMoE cost, in units of one seed trained alone.

    python benchmarks/many_models.py [--quick]

The model has 4 experts [64] on the input, towers [16] and embeddings of width 8; the log is
`ranker.data.synthetic`'s, five tasks, its sessions by day. It reads either the log's own columns
("small") or also the counts, rates and histories computed from it ("full").

One seed is trained in two ways: by `ranker.training.fit.train`, which a user calls (Lightning,
checkpoint and bundle), and by a bare loop over the same batches. Rounds are interleaved; the first
warms up and is left out.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import (
    Arguments,
    Figure,
    median_figure,
    parse_arguments,
    progress,
    publish,
    ratio_figure,
)

from ranker.bundle import BundleConfig, build_bundle_model
from ranker.config import parse_config
from ranker.data.loader import ShuffleSettings, WindowBatches, seed_of
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.store import EncodedStore
from ranker.data.synthetic import write_synthetic_log
from ranker.schema import load_schema
from ranker.training.fit import select_windows, train
from ranker.training.gradients import PLAIN, GradientPass
from ranker.training.many import train_many
from ranker.training.objective import observed_rows
from ranker.training.optimizers import build_optimizers
from ranker.training.settings import TrainConfig

SCHEMA = Path(__file__).resolve().parents[1] / "configs" / "schema" / "synthetic.yaml"
NUM_USERS, NUM_ITEMS, NUM_DAYS, LOG_SEED = 2_000, 400, 5, 3
NUM_MODELS = 16
MODEL = {
    "embedding_width": 8,
    "bottom": {
        "kind": "mmoe",
        "shared_widths": [],
        "num_experts": 4,
        "expert_widths": [64],
    },
    "tower_widths": [16],
}


def prepare_log(folder: Path) -> EncodedStore:
    """The synthetic log as a store."""
    log = write_synthetic_log(
        folder, num_users=NUM_USERS, num_items=NUM_ITEMS, num_days=NUM_DAYS, seed=LOG_SEED
    )
    prepared = folder / "prepared"
    prepared.mkdir()
    inputs = Inputs(log=log.log, users=log.users, items=log.items)
    prepare(inputs, load_schema(SCHEMA), PrepareSettings(), prepared)
    return EncodedStore(prepared)


def config_of(
    store: EncodedStore, seed: int, *, features: str, batch_rows: int, threads: int, num_days: int
) -> TrainConfig:
    """One seed's run over the first ``num_days``."""
    schema = store.schema
    computed = [feature.name for feature in schema.history_features]
    sequences = [feature.name for feature in schema.all_features if feature.kind == "sequence"]
    excluded = sorted({*computed, *sequences}) if features == "small" else []
    before = store.windows[num_days].label if num_days < len(store.windows) else ""
    values = {
        "seed": seed,
        "batch_rows": batch_rows,
        "threads": threads,
        "accelerator": "cpu",
        "before_window": before,
        "model": {**MODEL, "exclude_features": excluded},
    }
    return parse_config(TrainConfig, values, source="benchmark")


def train_in_a_bare_loop(store: EncodedStore, config: TrainConfig) -> None:
    """`train` without Lightning and files: the same steps on the same batches."""
    torch.set_num_threads(config.threads)
    windows = select_windows(store, config, None)
    encoders = store.encoders.head(windows[-1].vocabulary_sizes)
    bundle = BundleConfig(seed=config.seed, model=config.model)
    model = build_bundle_model(bundle, store.schema, encoders).train()
    weights = {task.name: task.loss_weight for task in store.schema.tasks}
    gradients = GradientPass(model, loss_weights=weights, settings=PLAIN)
    optimizers = build_optimizers(model, config.optimizer)
    shuffle = ShuffleSettings(
        seed=config.seed,
        block_rows=config.shuffle_block_rows,
        buffer_rows=config.shuffle_buffer_rows,
    )
    for window in windows:
        batches = WindowBatches(
            store, window, pass_number=0, batch_rows=config.batch_rows, shuffle=shuffle
        )
        for number in range(len(batches)):
            batch = batches[number].batch
            torch.default_generator.manual_seed(
                seed_of("step", config.seed, window.label, 0, number)
            )
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            _, logits = gradients.add(batch, observed=observed_rows(batch.labels))
            for task, head in model.heads.items():
                head.observe(logits[task], batch.labels[task])
            for optimizer in optimizers:
                optimizer.step()


def measure(
    store: EncodedStore, folder: Path, configs: list[TrainConfig], *, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every round, by way of training."""
    one = configs[0]
    run = folder / "run"
    ways: dict[str, Callable[[], object]] = {
        "train": lambda: train(store, one, run),
        "loop": lambda: train_in_a_bare_loop(store, one),
        "stack": lambda: train_many(store, configs, models_at_once=len(configs)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def main(arguments: Arguments) -> None:
    """Measure every workload and publish."""
    num_days, rounds = (1, 3) if arguments.quick else (NUM_DAYS, 9)
    features = ("small",) if arguments.quick else ("small", "full")
    batches = (128,) if arguments.quick else (128, 512)
    all_threads = (1,) if arguments.quick else (1, 2)
    figures: dict[str, Figure] = {}
    every_round: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        store = prepare_log(Path(name))
        for read in features:
            for batch_rows in batches:
                for threads in all_threads:
                    workload = f"{read}_batch_{batch_rows}_{threads}_threads"
                    progress(workload)
                    configs = [
                        config_of(
                            store,
                            seed,
                            features=read,
                            batch_rows=batch_rows,
                            threads=threads,
                            num_days=num_days,
                        )
                        for seed in range(NUM_MODELS)
                    ]
                    taken = measure(store, Path(name), configs, rounds=rounds)
                    every_round[workload] = taken
                    stack = taken["stack"]
                    figures |= {
                        f"{workload}_16_seeds_over_train": ratio_figure(stack, taken["train"]),
                        f"{workload}_16_seeds_over_bare_loop": ratio_figure(stack, taken["loop"]),
                        f"{workload}_16_seeds_s": median_figure(stack),
                        f"{workload}_one_seed_train_s": median_figure(taken["train"]),
                    }
    publish(
        "many_models",
        figures,
        arguments=arguments,
        seeds=[LOG_SEED, *range(NUM_MODELS)],
        settings={"model": MODEL, "models": NUM_MODELS, "days": num_days, "rounds": rounds},
        details={"seconds": every_round},
    )


if __name__ == "__main__":
    main(parse_arguments("many_models", description=__doc__))
