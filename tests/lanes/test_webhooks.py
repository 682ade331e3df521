"""Notifications under fire: forged, stale, doubled, reordered, nonsense, in floods; only signed words count, once."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from wire.forgeries import PATH, Notice, forged, harmless, nonsense, notice_body
from wire.http import Connection, Reply, once, request_bytes
from wire.programs import load

from lanes.canaries import CANARIES
from orchestrator.drivers.signatures import HEADER, sign

if TYPE_CHECKING:
    from house import House

    from lanes.conftest import Figures

SECRET, FORMER = CANARIES["webhook secret"], CANARIES["former webhook secret"]
TABLES = ("clips", "clip_signals", "clip_events", "idempotency_keys", "call_budget", "transfers", "transfer_parts")
STATES = ("queued", "inprogress", "ready", "error")
# Goals on two quiet cores; a machine may be three times slower before the lane fails.
JUNK_PER_SECOND, GOOD_P99_MS, SLACK = 2000, 250, 3
# A flood may not fill the disk with what is said of it: the log has a line now and then.
LINE_EVERY_SECONDS = 10


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {"webhook_url": None, "encode": "copy", "max_in_flight": 200}


@dataclass
class Door:
    """The webhook of a running house, and everything its database holds."""

    house: House

    async def call(self, notice: Notice, **more: str) -> Reply:
        headers = (*notice.headers, *more.items())
        return await once("127.0.0.1", self.house.port, self.raw(headers, notice.body))

    def raw(self, headers: Any, body: bytes | None) -> bytes:
        return request_bytes("POST", PATH, f"127.0.0.1:{self.house.port}", headers, body)

    async def notify(self, body: bytes, secret: str = SECRET, at: float | None = None) -> Reply:
        signature = sign(body, secret, time.time() if at is None else at)
        return await self.call(Notice("", ((HEADER, signature),), body, frozenset()))

    async def clip(self, name: str) -> tuple[str, str]:
        """A clip with a video, straight into the table; its id and the video's uid."""
        await self.house.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $2)", name, f"uid-{name}")
        return name, f"uid-{name}"

    async def everything(self) -> str:
        """Changes when any row does."""
        parts = [f"coalesce((SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {name} t), '')" for name in TABLES]
        return str(await self.house.rows.fetchval(f"SELECT md5({' || '.join(parts)})"))

    async def signals(self, clip_id: str) -> list[str]:
        rows = await self.house.rows.fetch(
            "SELECT requested_status FROM clip_signals WHERE clip_id = $1 ORDER BY id", clip_id
        )
        return [row["requested_status"] for row in rows]


@pytest.fixture
async def door(house: House) -> Door:
    house.extra["CLOUDFLARE_WEBHOOK_SECRET"] = SECRET
    await house.start_web()
    return Door(house)


def anonymous(reply: Reply) -> tuple[int, bytes, tuple[str, ...]]:
    """The answer without what differs from call to call."""
    body = re.sub(rb'"request_id": ?"[0-9a-f]*"', b"", reply.body)
    return reply.status, body, tuple(name for name, _ in reply.headers)


async def test_what_is_not_signed_or_makes_no_sense_has_no_effect(door: Door, figures: Figures) -> None:
    _, uid = await door.clip("one")
    before = await door.everything()
    refusals = set()
    count = 0
    for notice in itertools.chain(forged(uid, SECRET, FORMER, time.time()), nonsense(uid, SECRET, time.time())):
        reply = await door.call(notice)
        assert reply.status in notice.statuses, (notice.name, reply)
        if reply.status != 200:
            assert await door.everything() == before, notice.name
            count += 1
        if reply.status == 401:
            refusals.add(anonymous(reply))
    assert len(refusals) == 1, "a refusal tells how near the guess was"
    figures.tell(notices_refused=count, effects_of_them=0)


async def test_bodies_without_an_end_and_two_lengths_are_refused(door: Door, figures: Figures) -> None:
    _, uid = await door.clip("one")
    before = await door.everything()
    body = notice_body(uid)
    signature = (HEADER, sign(body, SECRET, time.time()))
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    endless = door.raw([signature, ("Transfer-Encoding", "chunked")], None) + chunk * 20
    reply = await once("127.0.0.1", door.house.port, endless)
    assert reply.status == 413
    half = len(body) // 2
    for headers, sent in (
        ([("Content-Length", str(half)), ("Content-Length", str(len(body)))], body),
        ([("Content-Length", str(half)), ("Transfer-Encoding", "chunked")], b"0\r\n\r\n" + body),
        ([("Content-Length", "-1")], body),
        ([("Content-Length", "99999999999999999999")], body),
        ([("Content-Length", "+5")], body),
        ([("Transfer-Encoding", "gzip, chunked")], b"0\r\n\r\n"),
        ([("Transfer-Encoding", "chunked, identity")], b"0\r\n\r\n"),
        ([("Transfer-Encoding", "chunked")], b"zz\r\n" + body),
        ([("Content-Length", str(half))], body),
    ):  # fmt: skip
        try:
            reply = await once("127.0.0.1", door.house.port, door.raw([signature, *headers], None) + sent)
        except ConnectionError:
            pass  # hung up on: an answer, too
        else:
            assert 400 <= reply.status < 500, (headers, reply)
        assert await door.everything() == before, headers
        figures.add(notices_refused=1)


async def test_a_video_of_somebody_else_gets_the_same_answer_and_no_row(door: Door) -> None:
    _, uid = await door.clip("one")
    before = await door.everything()
    foreign = await door.notify(notice_body("f" * 32))
    assert await door.everything() == before
    assert anonymous(foreign) == anonymous(await door.notify(notice_body(uid)))
    assert await door.everything() != before


async def test_odd_but_signed_words_leave_exactly_one_signal(door: Door, figures: Figures) -> None:
    for number, (name, _, _) in enumerate(harmless("", time.time())):
        clip_id, uid = await door.clip(f"clip-{number}")
        _, body, status = list(harmless(uid, time.time()))[number]
        assert (await door.notify(body)).status == 200, name
        assert await door.signals(clip_id) == [status], name
        figures.add(odd_but_signed=1)


async def test_the_window_is_three_hundred_seconds_either_way(door: Door) -> None:
    clip_id, uid = await door.clip("one")
    body = notice_body(uid)
    for offset, status in ((-298, 200), (298, 200), (-301, 401), (302, 401), (-86_400, 401), (86_400, 401)):
        # A signature has whole seconds, so each edge has one second of room for the way there.
        assert (await door.notify(body, at=int(time.time()) + offset)).status == status, offset
    assert await door.signals(clip_id) == ["stream_ready"] * 2


async def test_two_secrets_count_while_one_is_rotated_and_the_former_no_longer(house: House) -> None:
    house.extra["CLOUDFLARE_WEBHOOK_SECRET"] = f"{FORMER},{SECRET}"
    process = await house.start_web()
    door = Door(house)
    clip_id, uid = await door.clip("one")
    assert [(await door.notify(notice_body(uid), secret)).status for secret in (FORMER, SECRET)] == [200, 200]
    house.extra["CLOUDFLARE_WEBHOOK_SECRET"] = SECRET
    process.terminate()
    await asyncio.to_thread(process.wait, 15)
    await house.start_web()
    before = await door.everything()
    assert (await door.notify(notice_body(uid), FORMER)).status == 401
    assert await door.everything() == before
    assert (await door.notify(notice_body(uid))).status == 200
    assert len(await door.signals(clip_id)) == 3


async def test_every_order_and_repetition_ends_alike(
    door: Door, sample: Path, figures: Figures, sometimes: Any
) -> None:
    """48 clips hear of four states in each of the 24 orders, half of them before anybody judges, each state twice."""
    house = door.house
    house.stream.faults.set(stuck_inprogress={})
    orders = list(itertools.permutations(STATES))
    gate = asyncio.Semaphore(4)

    async def make(number: int) -> dict[str, Any]:
        async with gate:
            clip = await house.create_upload(f"order {number}")
            await house.upload_form(clip["upload_url"], sample)
            return clip

    clips = await asyncio.gather(*(make(number) for number in range(2 * len(orders))))
    at_once, one_by_one = clips[: len(orders)], clips[len(orders) :]
    for clip, order in zip(at_once, orders, strict=True):
        for state in order:
            assert (await door.notify(notice_body(clip["cloudflare_uid"], state))).status == 200
    house.start("monitor")
    for step in range(len(STATES)):
        for clip, order in zip(one_by_one, orders, strict=True):
            body, at = notice_body(clip["cloudflare_uid"], order[step]), time.time()
            assert [(await door.notify(body, at=at)).status for _ in range(2)] == [200, 200]
        await _judged(house, one_by_one)
        sometimes.saw("webhook reordered", "while judged")
    await _judged(house, at_once)
    sometimes.saw("webhook reordered", "before judged")
    statuses = await _looked_at(house)
    assert statuses == {"processing"}, "hearsay was believed before the provider was looked at"
    house.stream.faults.clear()
    for clip in clips:
        await house.until_complete(clip["id"])
    ends = {await _end(house, clip["id"]) for clip in clips}
    assert len(ends) == 1, ends
    figures.tell(orders=len(orders), different_ends=len(ends) - 1)


async def test_repeated_early_and_late_words_change_nothing(
    door: Door, sample: Path, figures: Figures, sometimes: Any
) -> None:
    house = door.house
    clip = await house.create_upload("the one")
    uid = clip["cloudflare_uid"]
    await house.upload_form(clip["upload_url"], sample)
    body, at = notice_body(uid), time.time()
    replies = await asyncio.gather(*(door.notify(body, at=at) for _ in range(10)))
    assert {anonymous(reply) for reply in replies} == {anonymous(replies[0])}
    sometimes.saw("webhook duplicated", "uploading", 10)
    house.start("monitor")
    await house.until_complete(clip["id"])
    before = await _row(house, clip["id"])
    # An hour late, and after the end: whatever they say, the clip stays as it is.
    for state in (*STATES, "pendingupload", "downloading", "live-inprogress", "transmogrifying"):
        for modified in ("2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"):
            assert (await door.notify(notice_body(uid, state, modified=modified))).status == 200
    sometimes.saw("webhook late", "complete", 16)
    assert (await door.notify(body, at=at - 301)).status == 401
    await _judged(house, [clip])
    after = await _row(house, clip["id"])
    assert after == before
    figures.tell(words_after_the_end=16)


async def test_a_word_before_the_clip_exists_is_lost_without_harm(door: Door, sample: Path, sometimes: Any) -> None:
    house = door.house
    other = await house.create_upload("somebody else's")
    uid = other["cloudflare_uid"]
    await house.upload_form(other["upload_url"], sample)
    await house.rows.execute("DELETE FROM clips")  # as a video that another program had made
    before = await door.everything()
    assert (await door.notify(notice_body(uid))).status == 200
    assert await door.everything() == before
    sometimes.saw("webhook before the clip")
    house.start("monitor")
    status, clip = await house.api("POST", "/api/clips", json={"source": "stream", "cloudflare_uid": uid})
    assert status == 201
    await house.until_complete(clip["id"])


async def test_a_flood_is_refused_while_good_notices_pass(door: Door, figures: Figures, amount: Any) -> None:
    uids = [(await door.clip(f"clip-{number}"))[1] for number in range(50)]
    slow = await _slow_callers(door)
    seconds = amount(8, 60)
    junk, good = await asyncio.gather(
        load(kind="junk", port=door.house.port, seconds=seconds, connections=16, uids=uids),
        load(kind="notices", port=door.house.port, seconds=seconds, connections=4, rate=50, uids=uids, secret=SECRET),
    )
    told = _refusals_told(door.house)
    figures.tell(
        junk_a_second=round(junk["per_second"]), good_p99_ms=round(good["p99_ms"]), slow_callers_beside=len(slow)
    )
    assert set(junk["statuses"]) == {"401"}
    assert set(good["statuses"]) == {"200"}
    assert junk["broken"] == good["broken"] == 0
    assert junk["per_second"] >= JUNK_PER_SECOND / SLACK
    assert good["p99_ms"] <= GOOD_P99_MS * SLACK
    assert await door.house.rows.fetchval("SELECT count(*) FROM clip_signals") == good["statuses"]["200"]
    assert 1 <= told <= 2 + seconds / LINE_EVERY_SECONDS * SLACK, "a flood fills the log"
    await _gone(slow, amount(45, 120))


async def _slow_callers(door: Door) -> list[Connection]:
    """Callers that begin and never go on: some in the middle of the body, some in the middle of the headers."""
    callers = [await Connection.open("127.0.0.1", door.house.port) for _ in range(200)]
    for number, caller in enumerate(callers):
        raw = door.raw([(HEADER, "x"), ("Content-Length", "1000")], None)
        caller.send(raw + b"{" if number % 2 else raw[:60])
    return callers


async def _gone(callers: list[Connection], seconds: float) -> None:
    """A body that does not go on is given up after 30 s; half a head after the 75 s of an idle connection."""
    drip = callers[1::2] if seconds < 75 else callers
    async with asyncio.timeout(seconds):
        while not all(caller.is_closed for caller in drip):
            await asyncio.sleep(0.1)
    for caller in callers:
        caller.close()


def _refusals_told(house: House) -> int:
    return sum(path.read_text().count("a notification was refused") for path in house.directory.glob("*.log"))


async def _judged(house: House, clips: list[dict[str, Any]]) -> None:
    ids = [clip["id"] for clip in clips]
    async with asyncio.timeout(60):
        while await house.rows.fetchval("SELECT count(*) FROM clip_signals WHERE clip_id = ANY($1)", ids):
            await asyncio.sleep(0.02)


async def _looked_at(house: House) -> set[str]:
    """Where clips are once each of them has been looked at: what was heard of it is a reason to look, and no more."""
    async with asyncio.timeout(60):
        while True:
            statuses = {row["status"] for row in await house.rows.fetch("SELECT DISTINCT status FROM clips")}
            if not statuses & {"uploading", "queued"}:
                return statuses
            await asyncio.sleep(0.02)


async def _row(house: House, clip_id: str) -> dict[str, Any]:
    """The row without what every judgement touches."""
    row = dict(await house.rows.fetchrow("SELECT * FROM clips WHERE id = $1", clip_id))
    details = json.loads(row.pop("processing_details"))
    for name in ("version", "updated_at", "look_at", "tries"):
        row.pop(name)
    return row | {"details": _lasting(details)}


async def _end(house: House, clip_id: str) -> str:
    """How a clip ended, without what names it and times."""
    row = await _row(house, clip_id)
    kept = {name: row[name] for name in ("status", "attempt", "progress", "error_message", "pending", "duration")}
    kept |= {"has_file": row["r2_url"] is not None, "details": row["details"]}
    return json.dumps(kept, sort_keys=True, default=str)


def _lasting(details: dict[str, Any]) -> dict[str, Any]:
    """The document without times, the name of the clip's own file, and why the *last* request was refused."""
    named = ("r2_key", "requested_status_error")
    return {name: value for name, value in details.items() if name not in named and not _is_time(value)}


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) is not None
