"""What columns are usually called: names of ids, times, positions and outcomes in many spellings.

A name is cut into words (`words`), and a pattern is a set of words that must all be among them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Words = frozenset[str]
Family = Literal["engagement", "satisfaction"]
Direction = Literal["positive", "negative"]


def word_set(spellings: str) -> Words:
    """The words of a text."""
    return frozenset(spellings.split())


def _in_order(spellings: str) -> tuple[str, ...]:
    return tuple(spellings.split())


ID_WORDS = frozenset({"id", "ids", "uuid", "guid", "key", "code", "no"})
COUNTED_WORDS = word_set(
    "cnt count counts num number total sum avg mean rate ratio freq frequency ctr cvr score "
    "prior history hist past last prev previous pred prediction logit"
)
AMOUNT_WORDS = COUNTED_WORDS | word_set(
    "age days day hours duration length width height size price amount weight lat lon distance "
    "gain gains loss losses wage weeks affinity quality bid budget fans tenure"
)
CATEGORY_WORDS = word_set(
    "id type category cat class genre tag topic level region city country language lang gender sex "
    "feat onehot tab page channel scene code recode brand author creator music group segment "
    "bucket status"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A kind of feedback.

    Attributes:
        words: any of these in a column's name.
        score_weight: its share of the score in a draft.
    """

    name: str
    words: Words
    family: Family
    direction: Direction = "positive"
    score_weight: float = 0.1


def words(name: str) -> Words:
    """The lower-case words of a column's name: ``playTimeMs`` and ``play_time_ms`` are the same."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return frozenset(w for w in re.split(r"[^a-z0-9]+", spaced.lower()) if w)


def _outcome(
    name: str,
    spellings: str,
    family: Family,
    direction: Direction = "positive",
    score_weight: float = 0.1,
) -> Outcome:
    return Outcome(
        name=name,
        words=word_set(spellings),
        family=family,
        direction=direction,
        score_weight=score_weight,
    )


# In this order: "dislike" before "like", "unfollow" before "follow".
OUTCOMES = (
    _outcome("dislike", "dislike disliked downvote thumbsdown", "satisfaction", "negative"),
    _outcome("hate", "hate hated", "satisfaction", "negative", 0.3),
    _outcome(
        "dismiss",
        "dismiss dismissed dismissal hide hidden uninterested notinterested reduce",
        "satisfaction",
        "negative",
        0.3,
    ),
    _outcome("report", "report reported complaint abuse", "satisfaction", "negative", 0.3),
    _outcome("block", "block blocked mute muted", "satisfaction", "negative", 0.3),
    _outcome("unfollow", "unfollow unsubscribe unsubscribed", "satisfaction", "negative"),
    _outcome("negative_feedback", "negative", "satisfaction", "negative", 0.3),
    _outcome("skip", "skip skipped bounce bounced", "engagement", "negative"),
    _outcome("like", "like liked upvote thumbsup heart fav favorite favourite", "satisfaction"),
    _outcome("follow", "follow followed subscribe subscribed", "satisfaction"),
    _outcome("share", "share shared forward forwarded retweet repost reshare", "satisfaction"),
    _outcome("comment", "comment commented reply replied", "satisfaction"),
    _outcome("save", "save saved bookmark bookmarked collect collected wishlist", "satisfaction"),
    _outcome("survey", "survey satisfied satisfaction csat nps", "satisfaction", "positive", 0.5),
    _outcome("rating", "rating ratings stars star overall", "satisfaction", "positive", 1.0),
    _outcome("profile_enter", "profile", "satisfaction"),
    _outcome("purchase", "purchase purchased buy bought order ordered pay paid", "engagement"),
    _outcome("conversion", "conversion converted convert cart install download", "engagement"),
    _outcome("complete", "complete completed completion finish finished", "engagement"),
    _outcome("long_view", "long effective", "engagement", "positive", 1.0),
    _outcome("click", "click clicked clicks clk tap tapped", "engagement", "positive", 1.0),
    _outcome("view", "view viewed watch watched play played open opened read", "engagement"),
    _outcome("label", "label target outcome response reward", "engagement", "positive", 1.0),
)

USER_WORDS = _in_order(
    "user uid userid member customer visitor viewer reviewer account client consumer cookie profile"
)
ITEM_WORDS = _in_order(
    "item iid itemid video movie film product article news photo doc document ad creative sku "
    "asin content track song post pin note feed book recipe listing business hotel job merchant "
    "offer app game vid aid pid"
)
REQUEST_WORDS = _in_order("request query search slate list impression trace pageview pv")
TIME_WORDS = _in_order("time timestamp ts datetime date created unix event at")
POSITION_WORDS = _in_order("position pos slot rank placement")
DEVICE_WORDS = _in_order("device platform os terminal")
WATCH_WORDS = _in_order("play watch watched dwell view viewing listen read reading stay playing")
DURATION_WORDS = _in_order("time ms s sec secs second seconds duration length millis")
PROPENSITY_WORDS = _in_order("propensity pscore prob probability")
RANDOM_WORDS = _in_order("rand random exploration explore")
FEEDBACK_WORDS = _in_order("feedback conversion conv click label convert purchase")


def outcome_of(name: str) -> Outcome | None:
    """The kind of feedback a column is named after; None for counts, rates and other names."""
    found = words(name)
    if found & (COUNTED_WORDS - {"score"}):
        return None
    if {"not", "interested"} <= found or {"see", "less"} <= found:
        return next(outcome for outcome in OUTCOMES if outcome.name == "dismiss")
    if {"thumbs", "down"} <= found:
        return next(outcome for outcome in OUTCOMES if outcome.name == "dislike")
    if {"thumbs", "up"} <= found:
        return next(outcome for outcome in OUTCOMES if outcome.name == "like")
    return next((outcome for outcome in OUTCOMES if outcome.words & found), None)
