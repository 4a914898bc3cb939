"""``ranker train``: prepared data becomes a bundle."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import (
    add_config,
    local_date,
    non_negative,
    print_config,
    require_output_folder,
)
from pipelines.console import Console, ProgressLine
from ranker.atomic import MANIFEST, OutputError, write_json, write_text
from ranker.config import ConfigError, dump_yaml, load_config
from ranker.only_writer import only_writer

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.training.fit import TrainResult
    from ranker.training.settings import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="run folder")
    parser.add_argument(
        "--continue",
        type=Path,
        metavar="BUNDLE",
        dest="start_from",
        help="take up the windows after this bundle's last one",
    )
    parser.add_argument("--resume", action="store_true", help="go on after a crash")
    parser.add_argument("--seed", type=non_negative, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Train or continue a bundle."""
    from ranker.bundle import load_bundle
    from ranker.data.intact import open_intact_store
    from ranker.training.fit import TrainProgress, check_run, train

    start_from = None if arguments.start_from is None else load_bundle(arguments.start_from)
    config = read_config(arguments, start_from)
    if arguments.print_config:
        return print_config(config, console)
    store = open_intact_store(arguments.data)
    windows = check_run(store, config, start_from)
    if start_from is not None:
        console.say(gap_before(windows[0].label, start_from, arguments.data))
    output = prepare_run_folder(require_output_folder(arguments), resume=arguments.resume)
    line = ProgressLine(console, "train")

    def on_progress(progress: TrainProgress) -> None:
        line.update(done=progress.rows_done, total=progress.rows_total, detail=progress.window)

    with only_writer(output, command="train"):
        # a wrong --resume must not touch what the run says of itself
        if not arguments.resume or not (output / "config.yaml").exists():
            write_text(output / "config.yaml", dump_yaml(config))
        if not arguments.resume or not (output / MANIFEST).exists():
            write_json(output / MANIFEST, {"kind": "run", "data": str(arguments.data)})
        result = train(
            store,
            config,
            output,
            start_from=start_from,
            resume=arguments.resume,
            on_progress=on_progress,
        )
        values = {**asdict(result), "bundle": str(result.bundle)}
        write_json(output / "train.json", values)
    console.result(describe(result), values)
    return 0


def describe(result: TrainResult) -> str:
    """What was trained on, and how fast."""
    rows = f"{result.rows_trained:,} rows"
    if result.rows_trained < result.rows:
        rows = f"{result.rows:,} rows, {rows} of them now,"
    return (
        f"{result.bundle}: trained on {rows} of {len(result.windows)} windows "
        f"({result.windows[0]} .. {result.windows[-1]}) in {result.seconds:.1f} s "
        f"({result.examples_per_s:,.0f} rows/s)"
    )


def gap_before(first: str, bundle: ModelBundle, data: Path) -> str:
    """What to say of windows between the bundle's last one and ``first``; nothing if none is."""
    from ranker.data.windows import next_label

    last = bundle.data_window.last
    if first <= next_label(last, bundle.schema):
        return ""
    return (
        f"note: {data} holds nothing between {last}, the last window that the bundle was trained "
        f"on, and {first}; should the log hold rows in between, no model ever learns from them"
    )


def read_config(arguments: argparse.Namespace, start_from: ModelBundle | None) -> TrainConfig:
    """The config with what was said on the command line, or the bundle says.

    Raises:
        ConfigError: it can't be used, or contradicts the bundle to continue.
    """
    from ranker.training.settings import TrainConfig

    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    config = load_config(TrainConfig, arguments.config, overrides)
    dates = {"first_window": config.first_window, "before_window": config.before_window}
    config = config.model_copy(update={key: window_date(key, d) for key, d in dates.items()})
    if start_from is not None and arguments.config is None:
        if overrides_model(overrides):
            raise ConfigError("--continue takes model and seed from the bundle; leave out --set")
        same = {"model": start_from.config.model, "seed": start_from.config.seed}
        config = config.model_copy(update=same)
    return config


def window_date(key: str, date: str) -> str:
    """A date of the config as windows are labelled: 2022-5-5 would choose other windows.

    Raises:
        ConfigError: it is not a date.
    """
    try:
        return local_date(date) if date else ""
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"key {key!r}: {error}") from None


def overrides_model(overrides: list[str]) -> bool:
    """True if an override touches what a continued bundle fixes."""
    return any(o.startswith(("model.", "model=", "seed=")) for o in overrides)


def prepare_run_folder(output: Path, *, resume: bool) -> Path:
    """Make a run folder; an existing run is only touched to resume it.

    Raises:
        OutputError: the folder holds something, and it is not to be resumed.
    """
    earlier = [name for name in ("checkpoints", "bundle") if (output / name).exists()]
    if earlier and not resume:
        raise OutputError(
            f"{output}: holds an earlier run ({earlier[0]}); give --resume to go on with it, or "
            "another --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    return output
