"""A restartable scoring job: a plan, shards that any process can score, and a manifest at the end.

What is finished is never done again and never lost: a shard counts once its note lies beside its
part, and the output appears by a rename when every shard counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ranker.atomic import MANIFEST, clear_up_after_killed, sha256_of
from ranker.bundle import ModelBundle
from ranker.config import ConfigError, digest
from ranker.data.features import FeatureSource
from ranker.data.parquet import DataError, open_file
from ranker.data.state import state_digest
from ranker.data.tables import check_candidate_files
from ranker.manifest import OWN_DIGEST, digest_of
from ranker.score_weights import ScoreWeights
from ranker.scoring.job.partial_folder import (
    KIND,
    FinishedPart,
    PartialFolder,
    check_slates_replaceable,
)
from ranker.scoring.job.request_runs import run_codes
from ranker.scoring.job.shard_counts import ScoreSummary, add_up
from ranker.scoring.job.shard_plan import ShardPlan, describe_changes, input_files, make_plan
from ranker.scoring.job.shard_reader import read_shards, travelling_columns
from ranker.scoring.job.shard_worker import ScoreJob, ShardDone, ShardWorker
from ranker.scoring.predict import check_belongs
from ranker.scoring.runtimes.predictor import choose_runtime
from ranker.scoring.runtimes.runtime_name import EXACT_RUNTIMES, RuntimeName
from ranker.scoring.score_config import ScoreConfig
from ranker.scoring.slates.slate_candidates import check_slate_config, columns_read
from ranker.scoring.stage_clock import StageClock, stage

FORMAT = 1
MEASURED_ROWS = 20_000
COMPILING_PAYS = 20_000_000  # rows; for fewer it takes longer than it can win

# Scores the wanted shards, in any order.
Engine = Callable[[ShardWorker, Sequence[int]], Iterator[ShardDone]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInputs:
    """What is to be scored, with what, where to.

    Attributes:
        keep_columns: of the candidates, to be copied into the slates; None for all.
    """

    bundle: Path
    state: Path
    candidates: Path
    output: Path
    score_weights: ScoreWeights
    config: ScoreConfig
    keep_columns: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told how far this run is: rows done and to be done, and remarks."""

    planned: Callable[[int, int], None]
    scored: Callable[[int, int], None]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What the finished job did.

    Attributes:
        summary: a function of the inputs.
        shards: all of them; ``kept`` had been finished before.
        scored: candidates that this run scored.
        seconds: by stage, added up over all threads and processes.
    """

    summary: ScoreSummary
    shards: int
    kept: int
    scored: int
    seconds: dict[str, float]


def run_job(
    inputs: JobInputs,
    bundle: ModelBundle,
    source: FeatureSource,
    engine: Engine,
    watch: Watch,
    *,
    resume: bool,
) -> JobResult:
    """Score all candidates; the output is replaced at the end or not at all.

    Raises:
        DataError: rejected input; what was begun is deleted, as no other input continues it.
            With ``resume``: the job that was begun had other inputs; it is left alone.
        ConfigError: score weights or columns that can't be used.
        OutputError: the output may not be replaced, or another job writes to it.
    """
    inputs.output.parent.mkdir(parents=True, exist_ok=True)
    clear_up_after_killed(inputs.output)
    check_slates_replaceable(inputs.output)
    check_belongs(bundle, source)
    check_candidate_files(inputs.candidates, source.schema)
    partial, clock = PartialFolder(inputs.output), StageClock()
    begun = partial.read_job() if resume else None
    if resume and begun is None:
        watch.say(f"{partial.path}: no job was begun there; beginning")
    with clock.running(), stage("plan"):
        job = (
            _plan_anew(inputs, bundle, source, partial, watch)
            if begun is None
            else _continue(inputs, source, partial, begun)
        )
    record = _record(inputs, job)
    with partial.locked():
        if begun is None:
            lost = partial.begin(record)
            if lost:
                watch.say(f"{partial.path}: {lost:,} parts of an unfinished job were discarded")
        worker = ShardWorker(job, bundle, source)
        try:
            parts, kept = _score_all(worker, engine, partial, watch, clock)
        except (DataError, ConfigError):
            partial.discard()
            raise
        summary = add_up(part.counts for part in parts)
        with clock.running(), stage("publish"):
            partial.publish(_manifest(job, record, worker, parts, summary), parts)
    return JobResult(
        summary=summary,
        shards=len(parts),
        kept=len(kept),
        scored=summary.candidates - sum(part.counts.candidates for part in kept),
        seconds=clock.seconds,
    )


def _score_all(
    worker: ShardWorker, engine: Engine, partial: PartialFolder, watch: Watch, clock: StageClock
) -> tuple[list[FinishedPart], list[FinishedPart]]:
    """All parts in order, and those that had been finished before."""
    plan = worker.job.plan
    with clock.running(), stage("verify"):
        parts = partial.finished(len(plan.shards))
    kept = list(parts.values())
    if kept:
        watch.say(f"{len(kept):,} of {len(plan.shards):,} shards are finished and intact")
    wanted = [index for index in range(len(plan.shards)) if index not in parts]
    if wanted:
        done, total = 0, sum(plan.shards[index].num_rows for index in wanted)
        watch.scored(done, total)
        for finished in engine(worker, wanted):
            parts[finished.part.index] = finished.part
            clock.add(finished.seconds)
            done += plan.shards[finished.part.index].num_rows
            watch.scored(done, total)
    assert sum(part.counts.candidates for part in parts.values()) == plan.num_rows
    return [parts[index] for index in range(len(plan.shards))], kept


def _plan_anew(
    inputs: JobInputs,
    bundle: ModelBundle,
    source: FeatureSource,
    partial: PartialFolder,
    watch: Watch,
) -> ScoreJob:
    config = inputs.config
    if config.threads == 0:
        config = config.model_copy(update={"threads": os.cpu_count() or 1})
    root, schema = inputs.candidates, source.schema
    files = input_files(root)
    check_slate_config(config.slate, schema, open_file(files[0].path(root)).schema_arrow.names)
    looked_at = columns_read(config.slate, schema)
    travelling = travelling_columns(root, files, schema, inputs.keep_columns, looked_at=looked_at)
    plan = make_plan(root, schema, shard_rows=config.shard_rows, report=watch.planned)
    if config.runtime == "auto":
        runtime = _fastest_runtime(root, plan, bundle, source, watch)
        config = config.model_copy(update={"runtime": runtime})
    return _job(inputs, partial, config, travelling, plan)


def _fastest_runtime(
    root: Path, plan: ShardPlan, bundle: ModelBundle, source: FeatureSource, watch: Watch
) -> RuntimeName:
    """Measure on the first requests which exact runtime would be done first."""
    (shard,) = read_shards(root, plan, source.schema, travelling=(), wanted=[0])
    rows = shard.canonical
    codes = run_codes(rows, source.schema)
    measured = rows.slice(0, int(np.searchsorted(codes, codes[min(len(codes), MEASURED_ROWS) - 1])))
    runtimes = [r for r in EXACT_RUNTIMES if r != "compiled" or plan.num_rows >= COMPILING_PAYS]
    choice = choose_runtime(
        bundle,
        source,
        measured if measured.num_rows else rows,
        num_rows=plan.num_rows,
        runtimes=runtimes,
    )
    said = [
        f"{one.runtime} {one.unavailable or f'{one.rows_per_s:,.0f} rows/s'}"
        for one in choice.timings
    ]
    watch.say(f"runtime {choice.runtime}, after measuring: {'; '.join(said)}")
    return choice.runtime


def _continue(
    inputs: JobInputs, source: FeatureSource, partial: PartialFolder, begun: Mapping[str, Any]
) -> ScoreJob:
    """The job as it was begun.

    Raises:
        DataError: its inputs or settings were others; says which.
    """
    again = f"to score anew, leave out --resume (this discards {partial.path})"
    if begun.get("format") != FORMAT or begun.get(OWN_DIGEST) != digest_of(begun):
        raise DataError(
            f"{partial.path}: was begun by another version of ranker, or is damaged; {again}"
        )
    plan = ShardPlan.from_json(begun["plan"])
    config = inputs.config
    if config.threads == 0:
        config = config.model_copy(update={"threads": begun["config"]["threads"]})
    if config.runtime == "auto":
        config = config.model_copy(update={"runtime": begun["config"]["runtime"]})
    now_files = input_files(inputs.candidates)
    changes = [f"candidates: {phrase}" for phrase in describe_changes(plan.files, now_files)]
    travelling = travelling_columns(
        inputs.candidates,
        now_files,
        source.schema,
        inputs.keep_columns,
        looked_at=columns_read(config.slate, source.schema),
    )
    job = _job(inputs, partial, config, travelling, plan)
    changes += _changed_settings(begun, _record(inputs, job))
    if changes:
        raise DataError(
            f"{partial.path}: this is not the job that was begun there: {'; '.join(changes)}. "
            f"Resume it with the same inputs and settings; {again}"
        )
    return job


def _changed_settings(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = [
        f"another {name.replace('_', ' ')}"
        for name in ("bundle", "state", "score_weights")
        if begun[name] != now[name]
    ]
    before, after = begun["config"], now["config"]
    changes += [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if begun["columns"] != now["columns"]:
        changes.append(f"the columns were {begun['columns']} and are {now['columns']}")
    return changes


def _job(
    inputs: JobInputs,
    partial: PartialFolder,
    config: ScoreConfig,
    travelling: tuple[str, ...],
    plan: ShardPlan,
) -> ScoreJob:
    # absolute: another process may have another working directory
    return ScoreJob(
        bundle=inputs.bundle.absolute(),
        state=inputs.state.absolute(),
        candidates=inputs.candidates.absolute(),
        folder=partial.path.absolute(),
        score_weights=inputs.score_weights,
        config=config,
        travelling=travelling,
        plan=plan,
    )


def _record(inputs: JobInputs, job: ScoreJob) -> dict[str, Any]:
    """All that the bytes of the output depend on, and a digest of it."""
    record = {
        "format": FORMAT,
        "bundle": sha256_of(inputs.bundle / MANIFEST),
        "state": state_digest(inputs.state),
        "score_weights": digest(job.score_weights),
        "config": job.config.model_dump(mode="json"),
        "columns": list(job.travelling),
        "plan": job.plan.to_json(),
    }
    return {**record, OWN_DIGEST: digest_of(record)}


def _manifest(
    job: ScoreJob,
    record: Mapping[str, Any],
    worker: ShardWorker,
    parts: Sequence[FinishedPart],
    summary: ScoreSummary,
) -> dict[str, Any]:
    """What the slates were made of; the same whoever made them, and in how many attempts."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "bundle": worker.scorer.bundle.weights_sha256,
        "bundle_manifest": record["bundle"],
        "state": record["state"],
        "state_as_of_ms": worker.source.history.as_of_ms,
        "score_weights": {
            "digest": record["score_weights"],
            **job.score_weights.model_dump(mode="json"),
        },
        "config": record["config"],
        "candidates": [
            {
                "name": file.name,
                "size": file.size,
                "rows": sum(file.rows_by_row_group),
                "footer_sha256": file.footer_sha256,
            }
            for file in job.plan.files
        ],
        "columns": record["columns"],
        "parts": [{"name": p.name, "rows": p.rows, "sha256": p.sha256} for p in parts],
        "summary": summary.to_json(),
    }
