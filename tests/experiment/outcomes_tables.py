"""Outcomes tables for tests, and the settings that read them."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from ranker.experiment.analysis_settings import AnalysisSettings

START = datetime.date(2026, 3, 8)


def settings(**changes) -> AnalysisSettings:
    values = {
        "start": START,
        "metrics": [
            {
                "name": "watch",
                "measure": {"kind": "mean", "column": "watch_s"},
                "role": "primary",
            },
            {
                "name": "ctr",
                "measure": {"kind": "ratio", "numerator": "clicks", "denominator": "shown"},
                "role": "guardrail",
                "margin": 0.05,
            },
            {
                "name": "p75",
                "measure": {"kind": "quantile", "column": "watch_s", "quantile": 0.75},
            },
        ],
    }
    return AnalysisSettings.model_validate({**values, **changes})


def make_frame(
    *,
    num_users: int = 601,
    lift: float = 0.0,
    num_days: int = 5,
    num_past_days: int = 3,
    arms: tuple[str, ...] = ("control", "treatment"),
    seed: int = 3,
) -> pd.DataFrame:
    """Users who differ in activity, rows on every day; ``lift`` is of the last arm's watch time."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(len(arms), size=num_users)
    activity = rng.gamma(3.0, 1.0, size=num_users)
    frames = []
    for day in range(-num_past_days, num_days):
        shown = rng.poisson(4 * activity)
        treated = (arm == len(arms) - 1) & (day >= 0)
        watch = activity * rng.lognormal(2.0, 0.4, num_users) * np.where(treated, 1 + lift, 1.0)
        frames.append(
            pd.DataFrame(
                {
                    "user": np.arange(num_users) * 17,
                    "arm": np.array(arms)[arm],
                    "day": START + datetime.timedelta(days=day),
                    "watch_s": watch,
                    "shown": shown.astype(float),
                    "clicks": rng.binomial(shown, 0.3).astype(float),
                    "device": np.array(["ios", "web"])[(arm + np.arange(num_users)) % 2],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def as_table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)
