"""Calls to the provider for each clip from upload to complete, and how late it is found that a clip has gone on.

On a simulated clock (`polling_world` says what is simulated and how clips are drawn), with webhooks and without, with
the provider refusing all calls for a second in the middle, and by fixed intervals as the peer (`polling_baseline`).
The figures are the same on every machine. The headroom of the budget over time is left as ``headroom-*.csv``.
"""

from __future__ import annotations

import asyncio
import csv
import multiprocessing
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.harness import Place, Row, at_least, at_most, percentile
from benchmarks.polling_day import Day, Seen
from orchestrator.drivers.budget import BudgetSettings

WINDOW_SECONDS = 300.0
# Fewer clips are mostly a beginning and an end, when few share a list: their calls are told and held against nothing.
WHOLE = 1_000


async def measure(place: Place) -> list[Row]:
    """The figures of each day. A day is a process of its own, for it takes the clocks over."""
    clips, compared = place.amount(120, 10_000), place.amount(40, 1_000)
    days: dict[str, dict[str, Any]] = {
        "without webhooks": {"clips": clips},
        "with webhooks": {"clips": clips, "webhooks": True},
        "refused for a second": {"clips": compared, "block_seconds": 1.0},
        "not refused": {"clips": compared},
        "fixed intervals": {"clips": compared, "fixed": True},
    }
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as processes:
        loop = asyncio.get_running_loop()
        asked = [loop.run_in_executor(processes, live_through, day) for day in days.values()]
        seen = dict(zip(days, await asyncio.gather(*asked), strict=True))
    rows: list[Row] = []
    for name in ("without webhooks", "with webhooks"):
        rows += _rows_of(name, clips, seen[name], is_whole=clips >= WHOLE)
        _write_headroom(place.directory / f"headroom-{name.replace(' ', '-')}.csv", seen[name])
    rows.append(_block_row(compared, seen["refused for a second"], seen["not refused"]))
    rows.append(_peer_row(compared, seen["not refused"], seen["fixed intervals"]))
    return rows


def live_through(day: Mapping[str, Any]) -> Seen:
    """The figures of one day."""
    # The simulation is a part of the tests.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from benchmarks import polling_world

    return polling_world.live_through(Day(**day))


def most_in_a_window(times: Sequence[float], seconds: float) -> int:
    """The most of *times* that lie within any *seconds*."""
    ordered = sorted(times)
    return max((n + 1 - bisect_left(ordered, at - seconds + 1e-9) for n, at in enumerate(ordered)), default=0)


def _rows_of(name: str, clips: int, seen: Seen, *, is_whole: bool) -> list[Row]:
    delays = [delay for of_kind in seen.delays.values() for delay in of_kind]
    by_kind = {f"{kind} a clip": round(count / clips, 3) for kind, count in sorted(seen.calls.items())}
    by_transition = {
        f"s until {what!r} was found, half and nine of ten and 99 of 100": " / ".join(
            f"{percentile(of_kind, share):.1f}" for share in (0.5, 0.9, 0.99)
        )
        for what, of_kind in seen.delays.items()
    }
    share = int(BudgetSettings().calls * BudgetSettings().share)
    largest = most_in_a_window(seen.call_times, WINDOW_SECONDS)
    headroom = [left for _, left in seen.tokens]
    return [
        Row(
            f"calls a clip, {clips} clips {name}",
            len(seen.call_times) / clips,
            at_most(3) if is_whole else None,
            "calls",
            by_kind,
        ),
        Row(f"median delay of detection, {name}", percentile(delays, 0.5), at_most(15), "s", by_transition),
        Row(f"most calls in any 300 s, {name}", largest, at_most(share), "calls", {"refused": seen.limited}),
        Row(
            f"least headroom of the budget, {name}",
            min(headroom),
            at_least(0),
            "",
            {
                "of it on average": round(fmean(headroom), 3),
                "probes of an address a clip": round(seen.probes / clips, 2),
            },
        ),
        Row(
            f"clips that ended otherwise than complete in their first attempt, {name}",
            clips - seen.ends["complete in attempt 1"],
            at_most(0),
            "clips",
            {"MP4s asked for twice": seen.doubled},
        ),
    ]


def _block_row(clips: int, refused: Seen, free: Seen) -> Row:
    """What a second of refusal changes but time: ends, and what was asked of the provider to make."""
    made = ("direct_upload", "tus_upload", "copy", "enable_download", "reset_download")
    changed = sum(abs(refused.calls[each] - free.calls[each]) for each in ("direct_upload", "copy"))
    changed += sum((refused.ends - free.ends).values()) + refused.doubled
    figures = {
        "calls refused": refused.limited,
        "s longer in all": round(refused.seconds - free.seconds, 1),
        "made": ", ".join(f"{each} {refused.calls[each]}" for each in made if refused.calls[each]),
    }
    return Row(f"ends and makes that a refusal of a second changed, {clips} clips", changed, at_most(0), "", figures)


def _peer_row(clips: int, product: Seen, fixed: Seen) -> Row:
    medians = [percentile([d for each in one.delays.values() for d in each], 0.5) for one in (product, fixed)]
    return Row(
        f"calls a clip against fixed intervals, {clips} clips",
        len(product.call_times) / len(fixed.call_times),
        at_most(0.75),
        "",
        {
            "calls a clip": round(len(product.call_times) / clips, 2),
            "by fixed intervals": round(len(fixed.call_times) / clips, 2),
            "s of median delay": round(medians[0], 1),
            "s by fixed intervals": round(medians[1], 1),
        },
    )


def _write_headroom(file: Path, seen: Seen) -> None:
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(("seconds", "share of the bucket left"))
        lines.writerows((round(at), round(left, 3)) for at, left in seen.tokens)
