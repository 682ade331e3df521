"""Whether the same signals end in the same row, in whatever order and however often they come."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded

from twins import steps
from twins.checking import ORDER
from twins.sides import PostgresSide

#: Of a row, what is no moment, no count of writings, and no word about the last refusal.
_COMPARED = (
    "status", "progress", "attempt", "tries", "pending", "duration", "file_size", "hls_url", "mp4_url", "r2_url",
    "error_message", "cloudflare_uid",
)  # fmt: skip
#: What alone is the same when each signal is judged before the next: what came too late tells nothing, either.
_POSITION = ("status", "progress", "attempt", "pending", "error_message")
_PASSING = ("error_time", "requested_status_handled", "requested_status_error", "status_request_time")
_PAIR = ("waitformp4", "mp4_processing")

#: (how it comes, its status): one of each sort, so that what it carries is told by what it is.
asked = st.tuples(st.sampled_from(["api", "webhook", "person", "step", "late step", "retry"]), st.sampled_from(ORDER))
starts = st.sampled_from([status for status in ORDER if status != "complete"])


class Orders:
    """A database for the comparisons, and how many there were."""

    def __init__(self, dsn: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.side = PostgresSide(dsn)
        self.sets = 0
        self.orders = 0
        self._numbers = itertools.count()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        await self.side.open()
        await self.side.begin_anew()
        await steps.take("first")(self.side)

    def close(self) -> None:
        self.loop.run_until_complete(self.side.close())
        self.loop.close()

    def compare(self, start: str, orders: list[list[tuple[str, str]]], *, at_once: bool) -> None:
        """Give each order to a clip of its own that stands at *start*; they all have to end alike."""
        self.sets += 1
        self.orders += len(orders)
        rows = self.loop.run_until_complete(self._ends(start, orders, at_once))
        for order, row in zip(orders[1:], rows[1:], strict=True):
            assert row == rows[0], f"from {start}: {orders[0]} and {order} end differently"

    async def _ends(self, start: str, orders: list[list[tuple[str, str]]], at_once: bool) -> list[Any]:
        ids = [f"clip{next(self._numbers)}" for _ in orders]
        for clip_id in ids:
            await self._place(clip_id, start)
        now = datetime.now(UTC)
        for clip_id, order in zip(ids, orders, strict=True):
            for one in order:
                await self._send(clip_id, *one)
                if not at_once:
                    await steps.judge("first", now)(self.side)
        await steps.judge("first", now)(self.side)
        rows = await self.side.sessions["owner"].fetch(
            "SELECT * FROM clips WHERE id = ANY($1::text[]) ORDER BY array_position($1, id)", ids
        )
        await self.side.sessions["owner"].execute("DELETE FROM clips WHERE id = ANY($1)", ids)
        return [_end(row) if at_once else [row[name] for name in _POSITION] for row in rows]

    async def _place(self, clip_id: str, start: str) -> None:
        await steps.create("api", clip_id, None, None, "{}", None)(self.side)
        if start != ORDER[0]:
            move = "UPDATE clips SET status = r.status, progress = greatest(progress, r.floor) FROM status_rows() AS r"
            await self.side.sessions["owner"].execute(f"{move} WHERE id = $1 AND r.status = $2", clip_id, start)

    async def _send(self, clip_id: str, sort: str, status: str) -> None:
        said = {f"told_{sort}_{status}": 1}
        if sort in ("step", "late step"):
            attempt = 1 if sort == "step" else 0
            facts = {"duration": float(ORDER.index(status)), "mp4_url": f"https://{status}"}
            await steps.report("first", clip_id, attempt, status, {"reason": sort, "facts": facts, **said})(self.side)
        elif sort == "retry":
            await steps.retry("api", clip_id, status)(self.side)
        else:
            insists = sort == "person" and status == "error"
            is_heard = sort == "webhook"
            await steps.signal("api", clip_id, status, said, sort, insists=insists, hearsay=is_heard)(self.side)


def _end(row: Any) -> dict[str, Any]:
    document = {key: value for key, value in json.loads(row["processing_details"]).items() if key not in _PASSING}
    return {name: row[name] for name in _COMPARED} | {"document": document}


def check_orders(orders: Orders, seed: int, examples: int) -> None:
    """Draw that many sets of signals, and compare orders of each."""
    few = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=False
    )

    @seeded(seed)
    @few
    @given(start=starts, signals=st.lists(asked, min_size=1, max_size=5, unique=True), data=st.data())
    def of_one_moment(start: str, signals: list[tuple[str, str]], data: Any) -> None:
        """What waits together is judged together: no order and no repetition shows.

        But for words: of two errors that reach equally far, one told and one seen, the first to come gives its own.
        """
        if ("step", "error") in signals:
            signals = [one for one in signals if one != ("api", "error")]
        more = [data.draw(st.lists(st.sampled_from(signals), max_size=4)) for _ in range(2)]
        shuffled = [data.draw(st.permutations([*signals, *each])) for each in more]
        orders.compare(start, [signals, *shuffled], at_once=True)

    @seeded(seed)
    @few
    @given(
        start=starts,
        statuses=st.lists(st.sampled_from([one for one in ORDER[:-1] if one not in _PAIR]), min_size=1, max_size=4),
        data=st.data(),
    )
    def of_many_moments(start: str, statuses: list[str], data: Any) -> None:
        """What has been seen adds up also when each is judged before the next: late ones change nothing."""
        signals = [("step", status) for status in statuses]
        again = data.draw(st.lists(st.sampled_from(signals), max_size=3))
        orders.compare(start, [signals, data.draw(st.permutations([*signals, *again]))], at_once=False)

    of_one_moment()
    of_many_moments()
