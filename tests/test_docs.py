"""What the documents name exists: commands, arguments, targets, files, config keys, metrics."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import cli, exit_codes
from ranker.config import Config, load_config
from ranker.evaluation.metrics import METRICS
from ranker.schema import Schema

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "data" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
DAY = "2024-03-13"


def blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def raw_arguments(document: Path) -> list[str]:
    """The words of the shell array ``raw``."""
    found = re.search(r"^raw=\((.*?)\)", document.read_text(encoding="utf-8"), re.DOTALL | re.M)
    return [] if found is None else shlex.split(found.group(1))


def ranker_commands(document: Path) -> list[list[str]]:
    """Every command line that begins with ``ranker``, as words."""
    commands = []
    for block in blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.strip().startswith("ranker "):
                continue
            words: list[str] = []
            for word in shlex.split(line.replace("$day", DAY), comments=True)[1:]:
                if word == "||":
                    break
                words += raw_arguments(document) if word == "${raw[@]}" else [word]
            commands.append([w for w in words if w not in ("${since[@]}", "${onto[@]}")])
    return commands


ALL_COMMANDS = [(path.name, words) for path in DOCUMENTS for words in ranker_commands(path)]


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"ranker {words[0]}", allow_abbrev=False)
    importlib.import_module(f"pipelines.{words[0].replace('-', '_')}").add_arguments(parser)
    for flag in ("--json", "--quiet"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(words[1:])


def config_type(command: str) -> type[Config]:
    from pipelines.evaluate import EvaluateConfig
    from ranker.data.prepare import PrepareSettings
    from ranker.scoring.score_config import ScoreConfig
    from ranker.training.settings import TrainConfig

    types = {"prepare": PrepareSettings, "train": TrainConfig, "score": ScoreConfig}
    return types.get(command, EvaluateConfig)


def test_documents_are_found() -> None:
    assert len(DOCUMENTS) >= 10
    assert len(ALL_COMMANDS) > 15


@each_document
def test_named_commands_exist(document: Path) -> None:
    named = re.findall(r"`ranker ([a-z][a-z-]*)", document.read_text(encoding="utf-8"))
    assert set(named) <= set(cli.COMMANDS)


def test_readme_shows_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^ranker ([a-z-]+)", text, re.M))
    shown |= set(re.findall(r"make ([a-z]+)", text))  # demo and kuairand
    assert set(cli.COMMANDS) <= shown


@pytest.mark.parametrize(
    ("document", "words"), ALL_COMMANDS, ids=[f"{name}-{words[0]}" for name, words in ALL_COMMANDS]
)
def test_command_lines_are_accepted(
    document: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        arguments = parse(words)
    except SystemExit:
        pytest.fail(f"{document}: ranker {shlex.join(words)}\n{capsys.readouterr().err}")
    config = getattr(arguments, "config", None)
    is_output = config is not None and Path(config).parts[0] == "runs"  # an earlier command's
    if config is not None and document == "README.md" and not is_output:
        assert (ROOT / config).is_file()
    if getattr(arguments, "overrides", None):
        load_config(config_type(words[0]), None, arguments.overrides)


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M))
    assert {"demo", "test"} <= targets
    assert named <= targets


@each_document
def test_relative_links_resolve(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@each_document
def test_named_files_of_the_repository_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    pattern = r"`((?:ranker|pipelines|tests|configs|data/sample|docs)/[\w./-]+)`"
    for name in re.findall(pattern, text):
        assert (ROOT / name).exists(), name


@each_document
def test_yaml_blocks_load(document: Path, tmp_path: Path) -> None:
    for block in blocks(document, "yaml"):
        assert block.startswith("# schema.yaml"), "say in the first line what the block is"
        path = tmp_path / "schema.yaml"
        path.write_text(block, encoding="utf-8")
        schema = load_config(Schema, path)
        assert schema.history_features


def test_readme_has_a_schema() -> None:
    assert len(blocks(ROOT / "README.md", "yaml")) == 1


@pytest.mark.slow
def test_readmes_python_prints_what_is_shown(tmp_path: Path) -> None:
    """But for the last digits, which depend on the processor."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    (code,) = blocks(readme, "python")
    shown = text.partition(code)[2].partition("```text\n")[2].partition("```")[0].splitlines()
    (prepare,) = (words for words in ranker_commands(readme) if words[0] == "prepare")
    for name in ("data", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for words in (["-m", "pipelines.cli", *prepare], ["-c", code]):
        ran = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    for real, said in zip(ran.stdout.splitlines(), shown, strict=True):
        (what, value), (said_what, said_value) = real.rsplit(" ", 1), said.rsplit(" ", 1)
        assert what == said_what
        assert float(value) == pytest.approx(float(said_value), abs=0.005)


def test_semantics_defines_every_metric() -> None:
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z].*?) \|", text, re.M)
    named = {name.partition("@")[0] for row in rows for name in re.findall(r"`([\w@]+)`", row)}
    assert set(METRICS) <= named


def test_semantics_lists_the_exit_codes() -> None:
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)]
    codes = [value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")]
    assert listed == sorted([0, *codes])


def test_picture_is_small() -> None:
    picture = ROOT / "docs" / "report.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 400 * 1024


NIGHT_CONFIG = """\
batch_rows: 64
threads: 1
accelerator: cpu
model:
  embedding_width: 4
  bottom: {kind: mmoe, shared_widths: [9], num_experts: 3, expert_widths: [8]}
  tower_widths: [7]
"""
# compare ends with whatever the file `verdict` says, everything else is the real command
NIGHT_WRAPPER = """\
#!/bin/sh
if [ "$1" = compare ]; then exit "$(cat verdict)"; fi
exec {ranker} "$@"
"""


def write_days(log: Path, folder: Path, *, first: int, stop: int) -> None:
    """Days ``first`` to ``stop`` - 1 of the synthetic log, a file each."""
    from ranker.data.synthetic import DAY_S, START_S

    folder.mkdir(exist_ok=True)
    rows = pq.read_table(log)
    day = pc.cast(pc.divide(pc.subtract(rows["time_s"], START_S), DAY_S), pa.int64())
    for number in range(first, stop):
        pq.write_table(rows.filter(pc.equal(day, number)), folder / f"day-{number:02d}.parquet")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mv -T is GNU's")
def test_nightly_script(tmp_path: Path) -> None:
    """Three nights, the second rejected: the third takes up its day too, as if trained at once."""
    from ranker.atomic import sha256_of
    from ranker.data.prepare import Inputs, PrepareSettings, prepare
    from ranker.data.store import EncodedStore
    from ranker.data.synthetic import write_synthetic_log
    from ranker.training.fit import train
    from ranker.training.settings import TrainConfig

    synthetic = write_synthetic_log(
        tmp_path / "raw", num_users=120, num_items=70, num_days=14, seed=3
    )
    work = tmp_path / "work"
    (work / "bin").mkdir(parents=True)
    script = next(b for b in blocks(ROOT / "docs" / "nightly.md", "bash") if b.startswith("#!"))
    (work / "nightly.sh").write_text(script, encoding="utf-8")
    schema_text = (ROOT / "configs" / "schema" / "synthetic.yaml").read_text("utf-8")
    (work / "schema.yaml").write_text(schema_text + "scale_rows: 500\n", encoding="utf-8")
    (work / "train.yaml").write_text(NIGHT_CONFIG, encoding="utf-8")
    for table in (synthetic.users, synthetic.items):
        shutil.copy(table, work)
    wrapper = work / "bin" / "ranker"
    wrapper.write_text(NIGHT_WRAPPER.format(ranker=Path(sys.executable).parent / "ranker"))
    wrapper.chmod(0o755)

    def night(date: str, *, verdict: int) -> int:
        (work / "verdict").write_text(str(verdict))
        environment = {**os.environ, "PATH": f"{work / 'bin'}:{os.environ['PATH']}"}
        ended = subprocess.run(
            ["bash", "nightly.sh", date],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode in (0, 4), ended.stderr
        return ended.returncode

    write_days(synthetic.log, work / "log", first=0, stop=9)
    assert night("2024-03-12", verdict=4) == 0, "nothing to compare with yet"
    assert (work / "current").resolve().name == "2024-03-12"
    write_days(synthetic.log, work / "log", first=9, stop=10)
    assert night("2024-03-13", verdict=4) == 4
    assert (work / "current").resolve().name == "2024-03-12"
    write_days(synthetic.log, work / "log", first=10, stop=11)
    assert night("2024-03-14", verdict=0) == 0
    assert (work / "current").resolve().name == "2024-03-14"
    assert night("2024-03-14", verdict=4) == 0, "published already"

    schema = load_config(Schema, work / "schema.yaml")
    (tmp_path / "at-once").mkdir()
    inputs = Inputs(log=synthetic.log, users=synthetic.users, items=synthetic.items)
    prepare(inputs, schema, PrepareSettings(), tmp_path / "at-once")
    config = load_config(TrainConfig, work / "train.yaml", ["before_window=2024-03-14"])
    result = train(EncodedStore(tmp_path / "at-once"), config, tmp_path / "run")
    weights = "weights.safetensors"
    assert sha256_of(work / "current" / "bundle" / weights) == sha256_of(result.bundle / weights)
