"""What a training run depends on besides its data, and what it reports while it runs."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, field_validator

from ranker.config import Config, ConfigError
from ranker.evaluation.calibration_fit import CalibrationConfig
from ranker.models.build import ModelConfig
from ranker.training.gradients import Precision
from ranker.training.optimizers import OptimizerConfig


class TrainConfig(Config):
    """Everything a training run depends on besides its data.

    Attributes:
        first_window, before_window: train on windows with ``first <= label < before`` (local
            dates); left out, the data's ends.
        micro_batch_rows: so many rows of a batch are computed at a time, for one step a batch; what
            fits the processor's cache is faster. 0: the whole batch. Batch normalisation sees a
            micro-batch.
        precision: ``bf16`` computes the forward pass and its gradients in bfloat16 where torch's
            autocast deems it safe; losses, weights and predictions stay float32.
        compile_model: compile the layers above the embeddings (torch.compile) in the first step,
            which then takes long; predictions are made without. `ranker doctor` measures whether
            this, ``precision``, ``threads`` and ``micro_batch_rows`` pay on a machine.
        progressive_validation: predict each window before it is trained on, which takes about a
            third of the time of training on it; without, the model is the same.
        passes_per_window: how often a window is passed over before the next one's turn.
        shuffle_block_rows, shuffle_buffer_rows: see `ranker.data.loader.ShuffleSettings`.
        checkpoint_every_s: seconds between checkpoints; one more at each window's end.
        log_every_steps: how often Lightning's loggers, if there are any, are told the loss.
        processes: so many share every batch (`ranker.training.ranks`), one a GPU where there are.
        threads: torch's threads in each process; byte identity is promised for equal numbers of
            processes and threads.
        calibration: see `ranker.evaluation.calibration_fit.CalibrationConfig`.
    """

    seed: int = Field(default=0, ge=0)
    first_window: str = ""
    before_window: str = ""
    batch_rows: int = Field(default=512, ge=1)
    micro_batch_rows: int = Field(default=0, ge=0)
    precision: Precision = "fp32"
    compile_model: bool = False
    progressive_validation: bool = True
    passes_per_window: int = Field(default=1, ge=1)
    shuffle_block_rows: int = Field(default=256, ge=1)
    shuffle_buffer_rows: int = Field(default=131_072, ge=1)
    loader_workers: int = Field(default=0, ge=0)
    checkpoint_every_s: float = Field(default=60.0, ge=0)
    log_every_steps: int = Field(default=50, ge=1)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    processes: int = Field(default=1, ge=1, le=1024)
    threads: int = Field(default=2, ge=1, le=1024)
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    calibration: CalibrationConfig = CalibrationConfig()

    @field_validator("first_window", "before_window", mode="before")
    @classmethod
    def _date_as_text(cls, value: object) -> object:
        # YAML reads an unquoted 2022-05-05 as a date
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            return value.isoformat()
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Where a run stands, in rows since it was started or resumed; reported after every step."""

    window: str
    rows_done: int
    rows_total: int
    seconds: float


def uses_gpu(config: TrainConfig) -> bool:
    """True if the run's tensors go to a GPU."""
    return config.accelerator != "cpu" and torch.cuda.is_available()


def require_gpus(config: TrainConfig) -> None:
    """Check that every process has its GPU, if the run is to use any.

    Raises:
        ConfigError: there are too few.
    """
    num_gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if (config.accelerator == "gpu" or uses_gpu(config)) and num_gpus < config.processes:
        raise ConfigError(
            f"accelerator: {config.accelerator} needs a GPU for each process, {config.processes} "
            f"in all, and torch {torch.__version__} finds {num_gpus}; --set accelerator=cpu takes "
            f"the {os.cpu_count()} CPU cores"
        )
