"""Where scipy, statsmodels or tea-tasting do the same thing: how far ours is from theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tea_tasting as tt
from laboratory_fixed import effects
from laboratory_runs import CONFIDENCE, FloatArray
from laboratory_users import Arm, draw_arm
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from ranker.experiment.assignment import check_arm_counts
from ranker.experiment.effect import Effect
from ranker.experiment.group_sequential import group_sequential_bounds, obrien_fleming_spending
from ranker.experiment.multiplicity import benjamini_hochberg, holm
from ranker.experiment.power import Baseline, detectable_lift, power_of_lift

Numbers = Sequence[float] | FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One thing done twice.

    Attributes:
        largest: absolute difference or, of numbers beyond 1, relative.
    """

    what: str
    library: str
    largest: float

    def to_json(self) -> dict[str, str | float]:
        return {"what": self.what, "library": self.library, "largest_difference": self.largest}


def compare_with_others(rng: np.random.Generator) -> list[Comparison]:
    control = draw_arm(3_000, lift=0.0, rng=rng)
    treatment = draw_arm(2_600, lift=0.04, rng=rng)
    ours = effects(control, treatment)
    return [
        *_welch(control, treatment, ours=ours["mean"]),
        *_tea_tasting(control, treatment, ours=ours),
        *_multiplicity(rng.beta(0.3, 2.0, size=101)),
        *_sizes(),
        _sample_ratio(),
        _bounds(),
    ]


def _welch(control: Arm, treatment: Arm, *, ours: Effect) -> list[Comparison]:
    numbers = [ours.p_value, ours.difference_ci_low, ours.difference_ci_high]
    scipys = stats.ttest_ind(treatment.seconds, control.seconds, equal_var=False)
    models = CompareMeans(DescrStatsW(treatment.seconds), DescrStatsW(control.seconds))
    return [
        _compare(
            "mean: p and interval (Welch)",
            "scipy",
            numbers,
            [scipys.pvalue, *scipys.confidence_interval(CONFIDENCE)],
        ),
        _compare(
            "mean: p and interval (Welch)",
            "statsmodels",
            numbers,
            [
                models.ttest_ind(usevar="unequal")[1],
                *models.tconfint_diff(alpha=1 - CONFIDENCE, usevar="unequal"),
            ],
        ),
    ]


def _tea_tasting(control: Arm, treatment: Arm, *, ours: Mapping[str, Effect]) -> list[Comparison]:
    table = pa.table(
        {
            "variant": np.repeat([0, 1], [len(control.seconds), len(treatment.seconds)]),
            **{
                name: np.concatenate([getattr(control, name), getattr(treatment, name)])
                for name in ("seconds", "visits", "past_seconds", "past_visits")
            },
        }
    )
    settings = {"confidence_level": CONFIDENCE, "equal_var": False, "use_t": True}
    metrics = {
        "mean": tt.Mean("seconds", **settings),
        "ratio": tt.RatioOfMeans("seconds", "visits", **settings),
        "cuped_mean": tt.Mean("seconds", "past_seconds", **settings),
        "cuped_ratio": tt.RatioOfMeans(
            "seconds", "visits", "past_seconds", "past_visits", **settings
        ),
    }
    theirs = tt.Experiment(metrics, variant="variant").analyze(table)
    return [
        _compare(
            f"{ours[name].method}: values, difference, interval, p, lift",
            "tea-tasting",
            [
                ours[name].control,
                ours[name].treatment,
                ours[name].difference,
                ours[name].difference_ci_low,
                ours[name].difference_ci_high,
                ours[name].p_value,
                ours[name].lift or 0.0,
            ],
            [
                theirs[name].control,
                theirs[name].treatment,
                theirs[name].effect_size,
                theirs[name].effect_size_ci_lower,
                theirs[name].effect_size_ci_upper,
                theirs[name].pvalue,
                theirs[name].rel_effect_size,
            ],
        )
        for name in metrics
    ]


def _multiplicity(p_values: FloatArray) -> list[Comparison]:
    return [
        _compare(
            f"adjusted p-values, {name}",
            "statsmodels",
            adjust(p_values),
            multipletests(p_values, method=theirs)[1],
        )
        for name, adjust, theirs in (
            ("Holm", holm, "holm"),
            ("Benjamini-Hochberg", benjamini_hochberg, "fdr_bh"),
        )
    ]


def _sizes() -> list[Comparison]:
    baseline, num_users = Baseline(mean=3.0, variance=9.0), 4_000
    arms = {"num_users_control": num_users, "num_users_treatment": num_users}
    lifts = [0.01, 0.02, 0.05]
    detectable = detectable_lift(baseline, power=0.8, **arms, confidence=CONFIDENCE)
    # Their own search for it stops early, where their power is .80002: hence their power of ours.
    powers = [
        TTestIndPower().power(lift, nobs1=num_users, alpha=1 - CONFIDENCE)
        for lift in (*lifts, detectable)
    ]
    return [
        _compare(
            "power of lifts of 1, 2, 5 %",
            "statsmodels",
            [power_of_lift(baseline, lift=lift, **arms, confidence=CONFIDENCE) for lift in lifts],
            powers[:3],
        ),
        _compare("power of the minimal detectable lift", "statsmodels", [0.8], powers[3:]),
    ]


def _sample_ratio() -> Comparison:
    counts, shares = [510, 301, 222, 77], [0.45, 0.27, 0.2, 0.08]
    ours = check_arm_counts(
        dict(zip("abcd", counts, strict=True)), share_by_arm=dict(zip("abcd", shares, strict=True))
    )
    theirs = stats.chisquare(counts, np.array(shares) * sum(counts))
    return _compare("sample ratio of four arms", "scipy", [ours.p_value], [theirs.pvalue])


def _bounds() -> Comparison:
    """The chance that two correlated normal variables both stay inside is a known integral."""
    fractions = np.array([0.4, 1.0])
    bounds = group_sequential_bounds(
        fractions, spent=obrien_fleming_spending(fractions, alpha=1 - CONFIDENCE)
    )
    correlation = np.sqrt(fractions[0])
    inside = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    return _compare(
        "group-sequential bounds: chance to stay inside",
        "scipy",
        [CONFIDENCE],
        [inside.cdf(bounds, lower_limit=-bounds)],
    )


def _compare(what: str, library: str, ours: Numbers, theirs: Numbers) -> Comparison:
    mine, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    largest = np.max(np.abs(mine - other) / np.maximum(1.0, np.abs(other)))
    return Comparison(what=what, library=library, largest=float(largest))
