"""`ranker train` on prepared data, bar and logging on, timed like a peer.

The command line is called inside this process, so that its first step can be timed. DATA/prepared
is what `ranker prepare` wrote.
"""

from protocol import Stopwatch, describe, parse_arguments

arguments = parse_arguments()
stopwatch = Stopwatch(arguments)

import datetime  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pipelines.cli  # noqa: E402, F401  before torch, as the command line does
import ranker.training.fit  # noqa: E402, F401  what `train` imports: torch, Lightning
from pipelines.cli import main  # noqa: E402
from ranker.data.parquet import write_table  # noqa: E402
from ranker.data.store import EncodedStore  # noqa: E402

stopwatch.mark("imported")


def local_date(time_ms: int) -> datetime.date:
    """The day a window is named after; the log's days are UTC."""
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).date()


CONFIGS = Path(__file__).resolve().parents[1] / "configs"
log = describe(arguments.data)
workload = json.loads((arguments.data / "data.json").read_text())["workload"]
validation_from = local_date(log.validation_from_ms)
first = validation_from - datetime.timedelta(days=arguments.train_days)

run = arguments.output / "run"
stopwatch.watch_steps()
code = main(
    [
        *("train", "--data", str(arguments.data / "prepared"), "--output", str(run)),
        *("--config", str(CONFIGS / f"workload_{workload}.yaml"), "--seed", str(arguments.seed)),
        *("--set", f"batch_rows={arguments.batch}", "--set", f"threads={arguments.threads}"),
        *("--set", f"first_window={first}", "--set", f"before_window={validation_from}"),
        *(word for override in arguments.overrides for word in ("--set", override)),
    ]
)
if code != 0:
    sys.exit(code)
stopwatch.mark("saved")
stopwatch.save(rows=json.loads((run / "train.json").read_text())["rows_trained"])

from pipelines.predicted_rows import predict_rows  # noqa: E402
from ranker.bundle import load_bundle  # noqa: E402
from ranker.evaluation.rows import prediction_table, read_rows  # noqa: E402

store = EncodedStore(arguments.data / "prepared")
bundle = load_bundle(run / "bundle")
rows = read_rows(store, store.windows_between(str(local_date(log.test_from_ms)), None))
predictions, _ = predict_rows(bundle, store, rows)
write_table(arguments.output / "predictions.parquet", prediction_table(store, rows, predictions))
