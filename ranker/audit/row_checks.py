"""Who and what: duplicates, repeated pairs, sizes by user, slates, users and items that are new."""

from __future__ import annotations

import numpy as np

from ranker.audit.column import FloatArray, IntArray
from ranker.audit.finding import Finding, percent
from ranker.audit.view import LogView

EARLY_SHARE = 0.8
_MANY_ROWS_A_DAY = 1_000


def check_rows(view: LogView) -> list[Finding]:
    """Duplicates, repeated pairs, users, items, requests and cold starts."""
    findings = [_duplicates(view)]
    for owner, codes in (("user", view.user), ("item", view.item)):
        if codes is not None:
            findings += _owners(view, owner, codes)
    if view.user is not None and view.item is not None:
        findings.append(_pairs(view.user, view.item))
    findings += _requests(view)
    for owner, table in view.tables.items():
        missing = int((table.place < 0).sum())
        findings.append(_found_in_table(owner, missing, len(table.place)))
    return findings


def cold_share(codes: IntArray, time_ms: FloatArray) -> float | None:
    """Share of the rows in the last fifth of the time whose id no earlier row has.

    None where no row is so late or none is earlier.
    """
    used = (codes >= 0) & ~np.isnan(time_ms)
    codes, time_ms = codes[used], time_ms[used]
    if len(codes) == 0:
        return None
    cut = time_ms.min() + EARLY_SHARE * np.ptp(time_ms)
    late = time_ms > cut
    if not late.any() or late.all():
        return None
    known = np.zeros(int(codes.max()) + 1, dtype=bool)
    known[codes[~late]] = True
    return float((~known[codes[late]]).mean())


def _found_in_table(owner: str, missing: int, num_rows: int) -> Finding:
    return Finding(
        level="fine" if missing == 0 else "look" if missing < num_rows else "problem",
        topic="users and items",
        sentence=f"{percent(1 - missing / max(1, num_rows))} of the rows have their {owner} in "
        f"the {owner} table.",
        remedy=""
        if missing == 0
        else "Elsewhere its features are unknown: complete the table, or write ids in one type.",
        numbers={"rows_without": missing},
    )


def _duplicates(view: LogView) -> Finding:
    read = view.num_rows + view.num_duplicates
    share = view.num_duplicates / max(1, read)
    if view.num_duplicates == 0:
        return Finding(
            level="fine",
            topic="rows",
            sentence="No row repeats another exactly.",
            numbers={"exact_duplicates": 0, "share": 0.0},
        )
    return Finding(
        level="look" if share < 0.2 else "problem",
        topic="rows",
        sentence=f"{view.num_duplicates:,} of {read:,} rows ({percent(share)}) repeat another.",
        remedy="prepare drops them; all figures here are without them. Ask why they are there.",
        numbers={"exact_duplicates": view.num_duplicates, "share": share},
    )


def _owners(view: LogView, owner: str, codes: IntArray) -> list[Finding]:
    rows = np.bincount(codes[codes >= 0])
    rows = np.sort(rows[rows > 0])
    if len(rows) == 0:
        return []
    busiest = rows[-max(1, len(rows) // 100) :].sum() / rows.sum()
    number = round(len(rows) / view.share) if owner == "user" else len(rows)
    about = "About " if owner == "user" and view.share < 1 else ""
    enough = len(rows) >= (100 if owner == "user" else 20)
    findings = [
        Finding(
            level="fine" if enough else "look",
            topic="users and items",
            sentence=f"{about}{number:,} {owner}s, {np.median(rows):,.0f} rows in the median, at "
            f"most {rows[-1]:,}; the busiest 1 % have {percent(float(busiest))} of the rows.",
            remedy="" if enough else f"So few {owner}s carry no general finding.",
            numbers={
                f"num_{owner}s": number,
                "median_rows": float(np.median(rows)),
                "largest_rows": int(rows[-1]),
                "busiest_share": float(busiest),
            },
        )
    ]
    if view.time_ms is not None:
        findings += _cold(owner, cold_share(codes, view.time_ms))
        days = max(1.0, float(np.nanmax(view.time_ms) - np.nanmin(view.time_ms)) / 86_400_000)
        robots = int((rows > max(_MANY_ROWS_A_DAY * days, 100 * np.median(rows))).sum())
        if owner == "user" and robots:
            findings.append(
                Finding(
                    level="look",
                    topic="users and items",
                    sentence=f"{robots} users have over {_MANY_ROWS_A_DAY:,} rows a day.",
                    remedy="They may be robots or a default id: leave them out.",
                    numbers={"users": robots},
                )
            )
    return findings


def _cold(owner: str, share: float | None) -> list[Finding]:
    if share is None:
        return []
    return [
        Finding(
            level="look" if share > 0.2 else "fine",
            topic="users and items",
            sentence=f"{percent(share)} of the rows in the last fifth of the time have {owner}s "
            "that no earlier row has.",
            remedy=f"Features of the {owner} must carry them: its id alone says nothing."
            if share > 0.2
            else "",
            numbers={"cold_share": share},
        )
    ]


def _pairs(user: IntArray, item: IntArray) -> Finding:
    used = (user >= 0) & (item >= 0)
    pairs = user[used] * (int(item.max(initial=0)) + 1) + item[used]
    repeated = 1 - len(np.unique(pairs)) / max(1, len(pairs))
    return Finding(
        level="fine" if repeated < 0.3 else "look",
        topic="rows",
        sentence=f"{percent(repeated)} of the rows show a user an item that another row shows too.",
        remedy=""
        if repeated < 0.3
        else "What the user did last time is then the best feature: "
        "check that it is known when serving.",
        numbers={"repeated_pairs": repeated},
    )


def _requests(view: LogView) -> list[Finding]:
    if view.request is not None:
        codes, what = view.request, "request"
    elif view.user is not None and view.time_ms is not None:
        times = np.where(np.isnan(view.time_ms), 0, view.time_ms).astype(np.int64)
        _, moments = np.unique(times, return_inverse=True)
        codes, what = view.user * (int(moments.max(initial=0)) + 1) + moments, "user and time"
        codes = np.where(view.user < 0, -1, codes)
    else:
        return []
    _, sizes = np.unique(codes[codes >= 0], return_counts=True)
    if len(sizes) == 0:
        return []
    lists = float((sizes > 1).mean())
    return [
        Finding(
            level="fine" if lists > 0.5 else "look",
            topic="requests",
            sentence=f"{len(sizes):,} requests (by {what}), {sizes.mean():.1f} rows each, at most "
            f"{sizes.max():,}; {percent(lists)} have several.",
            remedy=""
            if lists > 0.5
            else "Metrics of ranked lists need several rows a list: group "
            "by user and window (list_by: user_window).",
            numbers={
                "requests": len(sizes),
                "mean_rows": float(sizes.mean()),
                "largest_rows": int(sizes.max()),
                "share_of_several": lists,
            },
        )
    ]
