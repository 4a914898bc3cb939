"""What a world is made of. Every number here is an invention until `fit_to` has set it to a log's.

Rates are those of an average item, user and device; slopes say what one standard deviation does to
a logit (or, for times, to a logarithm).
"""

from __future__ import annotations

import datetime
from typing import Self

from pydantic import Field, model_validator

from ranker.config import Config
from ranker.experiment.world.examination import Examination, PowerExamination

MAX_REQUESTS_PER_DAY = 64
SHARE_PUBLISHED_BEFORE = 0.6


class DeviceSettings(Config):
    """A device, and how people differ on it.

    Attributes:
        share: of sessions, relative to the other devices'.
        position_decay: the power of the examination curve: above 1, fewer look far down.
        watch_factor: multiplies watch times.
    """

    name: str
    share: float = Field(gt=0)
    position_decay: float = Field(default=1.0, ge=0)
    watch_factor: float = Field(default=1.0, gt=0)


class ActivitySettings(Config):
    """When users come.

    Attributes:
        requests_per_day: mean on a day on which a user is active; at least one.
        spread: standard deviation, between users, of the logarithm of the further requests' mean.
        requests_per_session: a session keeps its mood and its device.
        return_rate: P(active tomorrow | active today) of an average user, content with the day.
        return_spread: between users, on the logit.
        return_slope: what a standard deviation of the day's satisfaction adds to the logit.
        comeback_rate: P(active tomorrow | not active today).
        share_active: on the first day simulated.
    """

    requests_per_day: float = Field(default=3.0, ge=1)
    spread: float = Field(default=0.8, ge=0)
    requests_per_session: int = Field(default=3, ge=1)
    return_rate: float = Field(default=0.8, gt=0, lt=1)
    return_spread: float = Field(default=0.7, ge=0)
    return_slope: float = Field(default=0.5, ge=0)
    comeback_rate: float = Field(default=0.3, ge=0, le=1)
    share_active: float = Field(default=0.6, ge=0, le=1)


class CandidateSettings(Config):
    """Where candidates come from: items ordered by popularity × topic match, thinned downwards.

    Attributes:
        count: length of every candidate list.
        popularity_noise: popularity is appeal plus so many standard deviations of noise.
        age_slope: what a factor e of age takes off the logarithm of popularity.
        topic_match: what the query item's topic adds to it (its second topic adds half).
        depth: 1 draws evenly from the order, larger numbers mostly from its top.
    """

    count: int = Field(default=60, ge=2)
    popularity_noise: float = Field(default=1.0, ge=0)
    age_slope: float = Field(default=0.3, ge=0)
    topic_match: float = Field(default=2.5, ge=0)
    depth: float = Field(default=2.0, ge=1)


class BehaviourSettings(Config):
    """What users do with what they are shown.

    Attributes:
        click_rate: P(click | examined); ``appeal_slope`` is of the item's appeal, ``click_taste``
            of the user's affinity to its topics.
        mood: how much a session prefers its topic, in standard deviations of taste.
        satisfaction_taste: what affinity adds to satisfaction, whose item part has deviation 1.
        like_rate, like_slope: of a like, given a click; the slope is satisfaction's.
        dismissal_rate, dismissal_slope: given examination; satisfaction lowers it.
        watch_median_s, watch_slope, watch_spread: log-normal time after a click.
        survey_rate: share of impressions about which a user is asked, at random.
        rating_mean, rating_slope, rating_noise: of an opinion, rounded to 1..5.
    """

    click_rate: float = Field(default=0.06, gt=0, lt=1)
    appeal_slope: float = Field(default=0.6, ge=0)
    click_taste: float = Field(default=0.8, ge=0)
    mood: float = Field(default=0.5, ge=0)
    satisfaction_taste: float = Field(default=0.6, ge=0)
    like_rate: float = Field(default=0.08, gt=0, lt=1)
    like_slope: float = Field(default=1.0, ge=0)
    dismissal_rate: float = Field(default=0.01, gt=0, lt=1)
    dismissal_slope: float = Field(default=1.0, ge=0)
    watch_median_s: float = Field(default=60.0, gt=0)
    watch_slope: float = Field(default=0.3, ge=0)
    watch_spread: float = Field(default=0.9, ge=0)
    survey_rate: float = Field(default=0.03, ge=0, le=1)
    rating_mean: float = Field(default=3.4, ge=1, le=5)
    rating_slope: float = Field(default=0.8, ge=0)
    rating_noise: float = Field(default=0.7, gt=0)


class NoveltySettings(Config):
    """What is new is clicked more, for a while.

    Attributes:
        size: added to the click logit of users in a treatment on their first day in it; 0 = off.
        half_life_days: after so many days half of it is left.
    """

    size: float = 0.0
    half_life_days: float = Field(default=4.0, gt=0)


class WorldSettings(Config):
    """A whole world.

    Attributes:
        num_days: length; sessions of later days can't be drawn.
        first_date: the calendar date (UTC) of day 0.
        conflict: correlation over items between expected click rate and expected rating;
            negative: what is clicked disappoints.
        logging_temperature: the logging policy is Plackett–Luce on the click logit over this.
        interference: what a factor e of exposure, to users of all arms, takes off an item's click
            logit (0 = off; below 0, exposure attracts).
    """

    seed: int = Field(default=0, ge=0)
    num_users: int = Field(default=5_000, ge=1)
    num_items: int = Field(default=2_000, ge=4)
    num_topics: int = Field(default=16, ge=2)
    num_days: int = Field(default=14, ge=1)
    first_date: datetime.date = datetime.date(2024, 3, 4)
    slate_size: int = Field(default=10, ge=1)
    conflict: float = Field(default=-0.3, gt=-1, lt=1)
    logging_temperature: float = Field(default=0.7, gt=0)
    interference: float = 0.0
    examination: Examination = PowerExamination(kind="power", eta=0.6)
    devices: tuple[DeviceSettings, ...] = Field(
        default=(
            DeviceSettings(name="phone", share=0.6),
            DeviceSettings(name="tablet", share=0.15, position_decay=0.8, watch_factor=1.2),
            DeviceSettings(name="tv", share=0.25, position_decay=0.5, watch_factor=1.6),
        ),
        min_length=1,
    )
    activity: ActivitySettings = ActivitySettings()
    candidates: CandidateSettings = CandidateSettings()
    behaviour: BehaviourSettings = BehaviourSettings()
    novelty: NoveltySettings = NoveltySettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slate_size > self.candidates.count:
            raise ValueError(
                f"slate_size {self.slate_size} needs at least as many candidates, got "
                f"candidates.count {self.candidates.count}"
            )
        num_at_start = int(SHARE_PUBLISHED_BEFORE * self.num_items)
        if num_at_start <= self.candidates.count:
            raise ValueError(
                f"num_items {self.num_items}: {num_at_start} exist on the first day, a request's "
                f"{self.candidates.count} candidates and its query item need more"
            )
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError(f"devices: names must differ, got {names}")
        return self
