"""Tables of figures in README.md and docs, written from benchmarks/results/*.json.

    python benchmarks/readme_tables.py

They stand between their markers. A table whose result is missing stays away; a test asserts that
the pages say what is written here.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from record import REPOSITORY, RESULTS, progress

Figures = Mapping[str, Mapping[str, float | None]]
DOCS = REPOSITORY / "docs"
README, SIZE_PAGE, CALIBRATION_PAGE = (
    REPOSITORY / "README.md",
    DOCS / "size.md",
    DOCS / "calibration.md",
)
NAMES = {
    "mmoe": "**ranker, MMoE**",
    "shared_bottom": "ranker, shared bottom",
    "ranker": "**`ranker train`**",
    "plain_loop": "our plain loop",
    "torch_rechub": "torch-rechub",
    "deepctr_torch": "DeepCTR-Torch",
    "fuxictr": "FuxiCTR",
    "lightgbm": "LightGBM",
    "hist_gradient_boosting": "HistGradientBoosting",
    "logistic_regression": "logistic regression",
    "smoothed_rates": "smoothed rates",
}
TASKS = ("click", "long_view", "like")


def quality_table(figures: Figures) -> list[str]:
    """AUC by arm, what the MMoE has more of it; GAUC, and the calibration error."""
    lines = [
        "| | click | long_view | like | GAUC click | long_view | like | ECE click | long_view |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    arms = [name for name in NAMES if f"auc_click_{name}" in figures]
    for arm in arms:
        cells = []
        for task in TASKS:
            cell = f"{_value(figures, f'auc_{task}_{arm}'):.4f}"
            if arm != "mmoe":
                cell += f" ({_interval(figures, f'auc_{task}_mmoe_minus_{arm}')})"
            cells.append(cell)
        cells += [f"{_value(figures, f'gauc_{task}_{arm}'):.4f}" for task in TASKS]
        cells += [f"{_value(figures, f'ece_calibrated_{task}_{arm}'):.4f}" for task in TASKS[:2]]
        lines.append(f"| {NAMES[arm]} | {' | '.join(cells)} |")
    return lines


def speed_table(figures: Figures) -> list[str]:
    """Training speed, start and memory by arm."""
    lines = [
        "| workload A | examples/s, batch 1,024 | batch 4,096 | `ranker train` is | "
        "start to first step | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ("ranker", "plain_loop", "torch_rechub", "deepctr_torch", "fuxictr"):
        if f"a_4096_{arm}_examples_per_s" not in figures:
            continue
        rates = [_value(figures, f"a_{batch}_{arm}_examples_per_s") for batch in (1_024, 4_096)]
        ratios = ""
        if arm != "ranker":
            ratios = " and ".join(
                _ratio(figures, f"a_{batch}_ranker_over_{arm}") for batch in (1_024, 4_096)
            )
        start_s = _value(figures, f"a_4096_{arm}_first_step_s")
        memory_mb = _value(figures, f"a_4096_{arm}_peak_memory_mb")
        lines.append(
            f"| {NAMES[arm]} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratios} | {start_s:.1f} s | "
            f"{memory_mb:,.0f} MB |"
        )
    return lines


def size_table(figures: Figures) -> list[str]:
    """Time and memory of `prepare` and `train` by size of the log."""
    lines = [
        "| rows | ids | `prepare` | per row | peak memory | `train`, one pass | per row | a step | "
        "peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    prefixes = [name.removesuffix("_ids") for name in figures if name.endswith("_ids")]
    for prefix in prefixes:
        cells = [
            f"{int(prefix.removeprefix('rows_')):,}",
            f"{_value(figures, f'{prefix}_ids'):,.0f}",
        ]
        for command in ("prepare", "train"):
            one = f"{prefix}_{command}"
            cells += [
                f"{_value(figures, f'{one}_s'):.1f} s",
                f"{_value(figures, f'{one}_us_per_row'):.2f} µs",
                f"{_value(figures, f'{one}_peak_mb'):,.0f} MB",
            ]
        cells.insert(-1, f"{_value(figures, f'{prefix}_train_step_ms'):.1f} ms")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def calibration_table(figures: Figures) -> list[str]:
    """Calibration error by task, seed and kind of calibrator."""
    kinds = ("none", "platt", "isotonic")
    lines = [f"| task | seed | {' | '.join(kinds)} |", "|---|---|---|---|---|"]
    for task in ("click", "long_view"):
        start = f"ece_{task}_none_seed_"
        for seed in (name.removeprefix(start) for name in figures if name.startswith(start)):
            cells = [_error(figures, f"ece_{task}_{kind}_seed_{seed}") for kind in kinds]
            lines.append(f"| {task} | {seed} | {' | '.join(cells)} |")
    return lines


Tables = Mapping[str, tuple[str, Callable[[Figures], list[str]]]]
TABLES_BY_PAGE: Mapping[Path, Tables] = {
    README: {
        "quality contest": ("quality", quality_table),
        "speed contest": ("training", speed_table),
    },
    SIZE_PAGE: {"cost curves": ("cost_curves", size_table)},
    CALIBRATION_PAGE: {"calibration kinds": ("calibration_kinds", calibration_table)},
}


def fill(text: str, tables: Tables, results: Path) -> str:
    """A page's text with every table whose result exists.

    Raises:
        ValueError: a table's markers are missing.
    """
    for title, (name, make) in tables.items():
        path = results / f"{name}.json"
        if not path.is_file():
            continue
        record: dict[str, Any] = json.loads(path.read_text())
        begin, end = f"<!-- {title} -->\n", f"<!-- end of {title} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"expected the markers of {title!r}")
        text = before + begin + "\n".join(make(record["figures"])) + "\n" + end + after
    return text


def _value(figures: Figures, name: str) -> float:
    value = figures[name]["value"]
    assert value is not None, name
    return value


def _interval(figures: Figures, name: str) -> str:
    one = figures[name]
    return "{value:+.4f} [{ci_low:+.4f}, {ci_high:+.4f}]".format(**one)


def _error(figures: Figures, name: str) -> str:
    return "{value:.4f} [{ci_low:.4f}, {ci_high:.4f}]".format(**figures[name]).replace("0.", ".")


def _ratio(figures: Figures, name: str) -> str:
    one = figures[name]
    if one["ci_low"] is None:
        return f"{one['value']:.2f} ×"
    return f"{one['value']:.2f} [{one['ci_low']:.2f}, {one['ci_high']:.2f}] ×"


def main() -> None:
    """Write the tables."""
    for page, tables in TABLES_BY_PAGE.items():
        page.write_text(fill(page.read_text(), tables, RESULTS))
        progress(f"wrote {page}")


if __name__ == "__main__":
    main()
