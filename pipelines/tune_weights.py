"""``ranker tune-weights``: search score weights that serve engagement and satisfaction.

Writes ``weights.yaml``, ``tuning.json`` and ``tuning.html``. Exit code 4 where no weights keep the
constraints; there is then no ``weights.yaml``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import (
    add_config,
    add_windows,
    non_negative,
    print_config,
    require_output_folder,
    resolve,
)
from pipelines.console import Console
from pipelines.exit_codes import EXIT_GATE
from ranker.config import ConfigError, dump_yaml, load_config, parse_config
from ranker.score_weights import ScoreWeights, check_score_weights, default_score_weights
from ranker.scoring.tuning.tuning_settings import TuneConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore, Window
    from ranker.data.vocabulary import Vocabulary
    from ranker.evaluation.metrics import IntArray
    from ranker.evaluation.rows import EvaluationRows
    from ranker.report.tuning_content import TuningPage
    from ranker.schema import Schema
    from ranker.scoring.tuning.tuning_result import Tuning, TuningRows

WEIGHTS, RESULT, PAGE = "weights.yaml", "tuning.json", "tuning.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    predicted = parser.add_mutually_exclusive_group(required=True)
    predicted.add_argument("--bundle", type=Path, metavar="DIR")
    predicted.add_argument(
        "--predictions", type=Path, metavar="FILE", help="Parquet, as evaluate writes it"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    add_windows(parser, note=" to tune on")
    parser.add_argument(
        "--score-weights", type=Path, metavar="FILE", help="today's, instead of the bundle's"
    )
    parser.add_argument(
        "--maximize", metavar="NAME", help="a task, engagement (the default) or satisfaction"
    )
    parser.add_argument(
        "--subject-to",
        action="append",
        metavar="TEXT",
        help="e.g. 'like >= -1%%': how far it may fall; again for more (satisfaction >= 0)",
    )
    parser.add_argument("--method", choices=["random", "optuna"], help="how to search (random)")
    parser.add_argument(
        "--titles", type=Path, metavar="FILE", help="Parquet: the item column, and title"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"gets {WEIGHTS}, {PAGE}, ..."
    )
    parser.add_argument("--seed", type=non_negative, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Tune the score weights."""
    config = with_options(resolve(TuneConfig, arguments, seed=arguments.seed), arguments)
    if arguments.print_config:
        return print_config(config, console)
    output = require_output_folder(arguments)
    if config.method == "optuna":
        from ranker.scoring.tuning.weight_search import require_optuna

        require_optuna()
    from pipelines.tuning_json import describe, tuning_json
    from pipelines.tuning_page_content import tuning_page
    from ranker.data.intact import open_intact_store
    from ranker.evaluation.rows import read_rows
    from ranker.scoring.tuning.tuning import check_tuning, tune

    started = time.perf_counter()
    store = open_intact_store(arguments.data)
    ranker, windows = open_predictions(arguments, store)
    today = todays_weights(ranker, store.schema, arguments.score_weights)
    check_tuning(config, store.schema.tasks, today)
    titles = None
    if arguments.titles is not None:
        items = store.encoders.vocabularies["item"]
        titles = read_titles(arguments.titles, store.schema, items)
    rows = read_rows(store, windows)
    console.say(f"predicting {rows.stop - rows.start:,} rows (windows: {len(windows)})")
    source = arguments.bundle or arguments.predictions
    inputs = tuning_rows(ranker, store, rows, source)
    console.say(f"trying {config.num_candidates:,} weights")
    tuning = tune(inputs, tasks=store.schema.tasks, today=today, config=config)
    page = tuning_page(
        tuning, inputs, store=store, windows=windows, titles=titles, config=config, source=source
    )
    result = tuning_json(tuning, windows, config, source=source)
    write(tuning, page, result, output)
    console.say(f"took {time.perf_counter() - started:.1f} s")
    console.result(describe(tuning, windows, output, console), result)
    return 0 if tuning.chosen is not None else EXIT_GATE


def with_options(config: TuneConfig, arguments: argparse.Namespace) -> TuneConfig:
    """The config with what was said on the command line."""
    said = {
        "maximize": arguments.maximize,
        "method": arguments.method,
        "subject_to": None if arguments.subject_to is None else tuple(arguments.subject_to),
    }
    return config.model_copy(update={k: v for k, v in said.items() if v is not None})


def open_predictions(
    arguments: argparse.Namespace, store: EncodedStore
) -> tuple[ModelBundle | pa.Table, Sequence[Window]]:
    """A bundle or a table of predictions, and windows that the bundle was not trained on."""
    from pipelines.evaluate import unseen_windows
    from ranker.bundle import load_bundle
    from ranker.data.parquet import read_table

    if arguments.bundle is None:
        windows = unseen_windows([], store, arguments.first, arguments.before)
        return read_table(arguments.predictions), windows
    bundle = load_bundle(arguments.bundle)
    return bundle, unseen_windows([bundle], store, arguments.first, arguments.before)


def todays_weights(
    ranker: ModelBundle | pa.Table, schema: Schema, path: Path | None
) -> ScoreWeights:
    """The weights of a file, or the bundle's, or the schema's.

    Raises:
        ConfigError: unknown tasks, or no task weighs anything.
    """
    from ranker.bundle import ModelBundle

    try:
        if path is not None:
            weights = load_config(ScoreWeights, path)
        elif isinstance(ranker, ModelBundle):
            weights = ranker.score_weights
        else:
            weights = default_score_weights(schema.tasks)
        check_score_weights(weights, tasks=schema.tasks)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path or 'today’s score weights'}: {error}") from None
    return weights


def tuning_rows(
    ranker: ModelBundle | pa.Table, store: EncodedStore, rows: EvaluationRows, source: Path
) -> TuningRows:
    """Predictions, labels, users, lists and items of the windows' rows.

    A bundle orders a list by one request, as `ranker score` would; a file's predictions are taken
    as they are.
    """
    from pipelines.predicted_rows import predict_lists
    from ranker.bundle import ModelBundle
    from ranker.evaluation.rows import match_predictions
    from ranker.scoring.tuning.tuning_result import TuningRows

    return TuningRows(
        predictions=predict_lists(ranker, store, rows)
        if isinstance(ranker, ModelBundle)
        else match_predictions(store, rows, ranker, str(source)),
        labels=rows.labels,
        users=rows.users,
        lists=rows.lists,
        items=item_order(store, rows),
    )


def item_order(store: EncodedStore, rows: EvaluationRows) -> IntArray:
    """Each row's item as a number in the order of the ids, by which slates break ties."""
    import numpy as np
    import pyarrow.compute as pc

    ids = store.encoders.vocabularies["item"].decode(
        np.asarray(store.column("item")[rows.start : rows.stop], dtype=np.int64)
    )
    distinct = pc.unique(ids)
    by_id = pc.sort_indices(distinct).to_numpy()
    places = np.empty(len(by_id), dtype=np.int64)
    places[by_id] = np.arange(len(by_id))
    order: IntArray = places[pc.index_in(ids, value_set=distinct).to_numpy()]
    return order


def read_titles(path: Path, schema: Schema, items: Vocabulary) -> pa.Table:
    """The log's item column, of the type that ``items`` has, and ``title``, one row an item.

    Raises:
        DataError: a column is missing or there twice, titles are no texts, ids are of another type
            than the log's, or an item has two titles.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from ranker.data.column_types import is_text
    from ranker.data.given_columns import one_column
    from ranker.data.parquet import DataError, read_table
    from ranker.evaluation.matching import key_columns

    source, item, table = f"--titles {path}", schema.log.item, read_table(path)
    logged = pa.string() if items.ids.dtype == object else pa.int64()
    ids = key_columns(table, {item: logged}, source).column(item)
    titles = one_column(table, "title", source)
    if not is_text(titles.type):
        raise DataError(f"{source}: column 'title' must hold texts, got {titles.type}")
    given = pa.table({item: ids, "title": titles.cast(pa.string())}).drop_null()
    distinct = given.group_by([item, "title"]).aggregate([]).select([item, "title"])
    numbers = distinct.group_by(item).aggregate([("title", "count")])
    several = numbers.filter(pc.greater(numbers.column("title_count"), 1))
    if several.num_rows:
        first = several.slice(0, 1).to_pylist()[0]
        raise DataError(
            f"{source}: item {first[item]!r} has {first['title_count']} different titles (such "
            f"items: {several.num_rows:,}); give it one"
        )
    return distinct


def write(
    tuning: Tuning,
    page: TuningPage,
    result: Mapping[str, object],
    output: Path,
) -> None:
    """Write the chosen weights, everything that was found, and the page."""
    from ranker.atomic import write_json, write_text
    from ranker.report.tuning_page import render_tuning

    # an earlier run's choice must not be taken for this one's
    (output / WEIGHTS).unlink(missing_ok=True)
    write_text(output / PAGE, render_tuning(page))
    write_json(output / RESULT, result)
    if tuning.chosen is not None:
        write_text(output / WEIGHTS, dump_yaml(chosen_weights(tuning)))


def chosen_weights(tuning: Tuning) -> ScoreWeights:
    """What ``ranker score --score-weights`` takes."""
    assert tuning.chosen is not None
    values = {"combination": tuning.combination, "weights": dict(tuning.chosen.weights)}
    return parse_config(ScoreWeights, values, source="the chosen weights")
