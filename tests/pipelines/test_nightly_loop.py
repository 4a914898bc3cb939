"""The loop of docs/nightly.md over three days of a world whose truth is known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.world_log import world_schema
from ranker.config import dump_yaml, parse_config
from ranker.data.parquet import read_table
from ranker.experiment.world.answers import GivenSlates, answer_slates
from ranker.experiment.world.days import active_at_start
from ranker.experiment.world.log import request_table, write_log
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.world import World, make_world

ROOT = Path(__file__).resolve().parents[2]
FIRST = date(2024, 3, 4)
LOGGED_DAYS = 2  # by the world's own policy: one to train on, one to stand for the first judge
SERVED_DAYS = 3
SIZE = 5
PER_TOPIC = 2
TEMPERATURE = 0.5

TRAIN = """\
batch_rows: 64
threads: 1
accelerator: cpu
model:
  embedding_width: 4
  bottom: {kind: mmoe, shared_widths: [9], num_experts: 3, expert_widths: [8]}
  tower_widths: [7]
"""
JOIN = {
    "confirmed_by": "row",
    "outcome_time": "answered_ms",
    "patience_hours": 6,
    "incomplete": "refuse",
    "zero_without_event": ["like"],
}


def day_of(number: int) -> str:
    return str(FIRST + timedelta(days=number))


class Place:
    """The folder in which the scripts run, and the world beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = {
            "seed": 2,
            "num_users": 110,
            "num_items": 150,
            "num_topics": 6,
            "num_days": LOGGED_DAYS + SERVED_DAYS,
            "first_date": FIRST,
            "slate_size": SIZE,
            "candidates": {"count": 17},
            "behaviour": {"click_rate": 0.3, "like_rate": 0.4, "survey_rate": 0.2},
        }
        self.world = make_world(parse_config(WorldSettings, settings, source="test"))
        (folder / "bin").mkdir(parents=True)
        wrapper = folder / "bin" / "ranker"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli "$@"\n')
        wrapper.chmod(0o755)
        for block in re.findall(r"^```bash\n(#!.*?)^```", self.document, re.DOTALL | re.M):
            named = re.search(r"^# (\w+\.sh)$", block, re.M)
            (folder / (named.group(1) if named else "nightly.sh")).write_text(block)
        self.write_inputs()

    @property
    def document(self) -> str:
        return (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")

    def write_inputs(self) -> None:
        schema = world_schema(self.world.settings).model_copy(update={"scale_rows": 300})
        (self.folder / "schema.yaml").write_text(dump_yaml(schema))
        (self.folder / "train.yaml").write_text(TRAIN)
        (self.folder / "join.yaml").write_text(yaml.safe_dump(JOIN))
        (self.folder / "score.yaml").write_text(yaml.safe_dump(score_config()))
        write_log(
            self.world,
            self.folder,
            days=range(LOGGED_DAYS),
            candidate_days=range(0),
            seed=3,
        )
        for name in ("requests", "outcomes"):
            (self.folder / name).mkdir()

    def run(self, script: str, day: int) -> int:
        """Run a script of the document; its exit code."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", script, day_of(day)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        # 4: the new bundle is worse, by chance or not; the loop goes on with the old one
        assert done.returncode == 0 or (script == "nightly.sh" and done.returncode == 4), done
        return done.returncode

    def table(self, name: str) -> pd.DataFrame:
        return read_table(self.folder / name).to_pandas()


def score_config() -> dict[str, Any]:
    """Slates with exploration, in the form that ``ranker score`` takes."""
    exploration = {"kind": "plackett_luce", "temperature": TEMPERATURE}
    return {"slate": {"size": SIZE, "max_per": {"topic": PER_TOPIC}, "exploration": exploration}}


def serve(world: World, place: Place, day: int, active: np.ndarray) -> np.ndarray:
    """The world answers the day's slates; who comes on the next one."""
    slates = place.table(f"served/{day_of(day)}/slates.parquet")
    given = GivenSlates(
        requests=slates["request_id"].to_numpy(),
        items=slates["item_id"].to_numpy(),
        ranks=slates["rank"].to_numpy(),
    )
    answers = answer_slates(world, given, day=day, active=active, seed=7)
    # a like is logged only when it happens
    likes = answers.outcomes.column("like").to_numpy()
    outcomes = answers.outcomes.set_column(
        answers.outcomes.column_names.index("like"), "like", pa.array(likes, mask=likes == 0)
    )
    pq.write_table(outcomes, place.folder / "outcomes" / f"{day_of(day)}.parquet")
    return answers.active


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """After three days of slates, answers and nights."""
    place = Place(tmp_path_factory.mktemp("loop"))
    world = place.world
    active = active_at_start(world, seed=3)
    assert place.run("nightly.sh", LOGGED_DAYS - 1) == 0, "the first night has no judge"
    for day in range(LOGGED_DAYS, LOGGED_DAYS + SERVED_DAYS):
        pq.write_table(
            request_table(world, day=day), place.folder / "requests" / f"{day_of(day)}.parquet"
        )
        place.run("slates.sh", day)
        active = serve(world, place, day, active)
        place.run("impressions.sh", day)
        place.run("nightly.sh", day)
    return place


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mv -T is GNU's")
def test_three_days_of_the_loop(place: Place) -> None:
    served = range(LOGGED_DAYS, LOGGED_DAYS + SERVED_DAYS)
    for day in served:
        slates = place.table(f"served/{day_of(day)}/slates.parquet")
        outcomes = place.table(f"outcomes/{day_of(day)}.parquet")
        log = place.table(f"log/{day_of(day)}.parquet")
        keys = ["request_id", "item_id"]
        # who stayed away saw nothing, and what was seen is in the log once, where it was shown
        assert 0 < len(log) == len(outcomes) < len(slates)
        both = log.merge(outcomes, on=keys, suffixes=("", "_told"))
        both = both.merge(slates, on=keys, suffixes=("", "_sent"))
        assert len(both) == len(log)
        assert (both["position"] == both["rank_sent"] - 1).all()
        assert (both["click"] == both["click_told"]).all()
        assert (both["like"] == both["like_told"].fillna(0)).all()
        assert both["rating"].equals(both["rating_told"])
        assert 0 < both["rating"].notna().mean() < 0.5
        manifest = json.loads(
            (place.folder / "log" / f"{day_of(day)}.parquet.manifest.json").read_text()
        )
        assert manifest["counts"]["unconfirmed"] == len(slates) - len(log)
        earlier = sum(len(place.table(f"outcomes/{day_of(d)}.parquet")) for d in served if d < day)
        assert manifest["counts"]["unmatched_outcomes"] == earlier


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mv -T is GNU's")
def test_each_night_knows_the_days_before_it(place: Place) -> None:
    """Every night's data goes on where the published bundle's ends, up to its own day."""
    for day in range(LOGGED_DAYS - 1, LOGGED_DAYS + SERVED_DAYS):
        night = place.folder / "nights" / day_of(day)
        bundle = json.loads((night / "bundle" / "manifest.json").read_text())
        assert day_of(day - 1) in json.dumps(bundle)
    last = (place.folder / "current").resolve().name
    assert day_of(LOGGED_DAYS - 1) <= last <= day_of(LOGGED_DAYS + SERVED_DAYS - 1)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mv -T is GNU's")
def test_the_log_knows_how_likely_its_slates_were(place: Place) -> None:
    """Propensities as logged; summed over all of a request's candidates 1 at the first rank."""
    for day in range(LOGGED_DAYS, LOGGED_DAYS + SERVED_DAYS):
        log = place.table(f"log/{day_of(day)}.parquet")
        candidates = place.table(f"served/{day_of(day)}/candidates.parquet")
        num_candidates = candidates.groupby("request_id").size()
        assert (log["temperature"] == TEMPERATURE).all()
        assert log["bundle"].nunique() == 1
        assert log["propensity"].between(0, 1, inclusive="right").all()
        # each at its rank at least as likely as exp(logit / T) over all candidates' best case
        top = log[log["rank"] == 1]
        best = log.groupby("request_id")["logit"].transform("max")[top.index]
        bound = np.exp((top["logit"] - best) / TEMPERATURE)
        assert (top["propensity"] <= bound + 1e-9).all()
        assert (top["request_id"].map(num_candidates) > SIZE).all()
        topics = place.table("items.parquet").set_index("item_id")["topic"]
        per_topic = log.assign(topic=log["item_id"].map(topics)).groupby(["request_id", "topic"])
        assert per_topic.size().max() <= PER_TOPIC
        # not always the best first: it explores
        order = log.sort_values(["request_id", "rank"]).groupby("request_id")["score"]
        assert not order.apply(lambda scores: scores.is_monotonic_decreasing).all()
