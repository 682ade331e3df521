"""Every call to the bucket meets everything an object store may answer, once and for a while; and writers are killed.

Each cell is a clip of three parts driven to its end through the real monitor, drivers and transfer, in virtual time.
Nothing is complete but the very bytes that were delivered, and no upload is left after the sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from simulation.bucket import refused
from simulation.bucket_faults import CELLS, STORE_FAULTS
from simulation.faults import Answer, Broken, Call, Change, Fault, Meanwhile, Reply
from simulation.movies import box
from simulation.nodes import Node
from simulation.surroundings import Secrets, Surroundings, in_surroundings

from orchestrator.drivers.errors import DriverError
from orchestrator.pipelines.stream.effects import TransferToBucket

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

pytest_plugins = ["simulation.lane_fixtures"]

MATRIX = [pytest.param(call, name, id=f"{call}-{name}") for call, name in CELLS]


def lead_to(around: Surroundings, call: str) -> None:
    """See to it that the clip comes to need *call*."""
    if call == "abort":
        # Another file on the way: what was uploaded of the first one is given up.
        def change() -> None:
            video = around.video()
            around.stream.replace_file(video.uid, _other(video.files[0]))

        around.stream_faults.once("span", None, Meanwhile(before=change))
    elif call == "delete":
        # An object that is not what its parts give is taken away.
        around.bucket_faults.once("head", Change(_with_another_etag))


def _other(data: bytes) -> bytes:
    """Another file of the same length: its last byte is changed."""
    return data[:-1] + bytes([data[-1] ^ 0xFF])


def _with_another_etag(reply: Reply) -> Reply:
    return Reply(reply.status, {**reply.headers, "ETag": '"00000000000000000000000000000000-3"'}, reply.body)


async def drive(around: Surroundings, call: str) -> dict[str, Any]:
    """A clip at rest; for the list, an hour or two later, when the monitor has cleared up."""
    async with around.program():
        row = await around.until_rest(await around.copied_clip())
        if call == "list":
            await around.wait(timedelta(hours=2, minutes=1).total_seconds())
        return row


def assert_at_once(around: Surroundings, row: dict[str, Any]) -> None:
    """It is complete in its first attempt."""
    assert row["attempt"] == 1
    assert_complete(around, row)


def assert_complete(around: Surroundings, row: dict[str, Any]) -> None:
    """It is complete, and the bucket holds the file that the host serves now."""
    assert (row["status"], row["processing_details"].get("error_code")) == ("complete", None)
    assert around.bucket.get(row["processing_details"]["r2_key"]) == around.video().files[-1]


@pytest.mark.parametrize(("call", "name"), MATRIX)
def test_once(call: str, name: str, secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    async def cell(around: Surroundings) -> None:
        lead_to(around, call)
        around.bucket_faults.once(call, STORE_FAULTS[name].fault)
        row = await drive(around, call)
        assert around.bucket_faults.met[call], "the clip never made the call"
        assert_at_once(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw(name, call)


PARTS = [name for name, one in STORE_FAULTS.items() if "part" in one.calls]


@pytest.mark.parametrize("part", [2, 3])
@pytest.mark.parametrize("name", PARTS)
def test_once_at_a_later_part(name: str, part: int, secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    async def cell(around: Surroundings) -> None:
        around.bucket_faults.once("part", *[None] * (part - 1), STORE_FAULTS[name].fault)
        row = await drive(around, "part")
        assert around.bucket_faults.met["part"] == 1
        assert_at_once(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw(name, f"part {part}")


@pytest.mark.parametrize(("call", "name"), MATRIX)
def test_for_a_while(
    call: str,
    name: str,
    amount: Callable[[Any, Any], Any],
    secrets: Secrets,
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    """As long as an effect's tries last, whatever the store says: then the clip completes in its first attempt."""
    seconds = amount(900, 3600)

    async def cell(around: Surroundings) -> None:
        lead_to(around, call)
        faults = around.bucket_faults
        faults.always(call, STORE_FAULTS[name].fault)
        faults.first_met = lambda: around.loop.after(seconds, faults.heal)
        row = await drive(around, call)
        assert faults.met[call], "the clip never made the call"
        assert_at_once(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw(f"{name} for a while", call)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        pytest.param(call, name, id=f"{call}-{name}")
        for call, name in CELLS
        if STORE_FAULTS[name].code and call in ("create", "part", "complete", "head", "read")
    ],
)
def test_for_ever(
    call: str,
    name: str,
    amount: Callable[[Any, Any], Any],
    secrets: Secrets,
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    """The clip ends and says why, unless the object was there all the same; a healed store lets the next attempt end
    well."""
    if name in _ALIKE and not amount(False, True):
        return
    one = STORE_FAULTS[name]

    async def cell(around: Surroundings) -> bool:
        around.bucket_faults.always(call, one.fault)
        async with around.program():
            clip_id = await around.copied_clip()
            row = await around.until_status(clip_id, "complete")
            if (call, name) in _THERE_ALL_THE_SAME:
                assert row["status"] == "complete"
            else:
                code = _NAMED_OTHERWISE.get((call, name), one.code)
                assert (row["status"], row["processing_details"]["error_code"]) == ("error", code)
                around.bucket_faults.heal()
                await around.wait(timedelta(minutes=15).total_seconds())
                row = await around.until_rest(clip_id)
            assert_complete(around, row)
        await around.check()
        return row["attempt"] > 1

    ended = in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1, ended_with_reason=int(ended))
    sometimes.saw(f"{name} for ever", call)


# For ever, these are met by the same branch as their neighbours in the catalogue.
_ALIKE = {"502-page", "503-page", "503-wait", "429-wait", "429-bare", "400-incomplete", "400-disconnect"}
# Silence is noticed first by the watch over a part's bytes; an empty success of Complete is believed until the look at
# the key.
_NAMED_OTHERWISE = {
    ("part", "silent"): "store_stalled",
    ("part", "silent-after"): "store_stalled",
    ("complete", "200-empty"): "object_missing",
    # HEAD has no body, and so no word but its status.
    ("head", "503-slow-down"): "store_failing",
}
# Complete says no, or nothing, each time, and has made the object at the first: a look at the key tells.
_THERE_ALL_THE_SAME = {
    ("complete", name)
    for name in ("500-after", "broken-after", "silent-after", "200-with-error-after", "no-such-upload-after")
}


@pytest.mark.parametrize("call", ["part", "complete", "abort"])
@pytest.mark.parametrize("good_before", [0, 1, 2])
def test_an_upload_that_the_store_forgets_is_begun_again(
    call: str, good_before: int, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    async def cell(around: Surroundings) -> None:
        lead_to(around, call)
        forgets = Meanwhile(before=around.bucket.forget_uploads)
        around.bucket_faults.once(call, *[None] * (good_before if call == "part" else 0), forgets)
        row = await drive(around, call)
        assert around.bucket_faults.met[call] == 1
        assert_at_once(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw("upload forgotten", call)


def test_a_day_without_the_store_costs_a_fresh_start(secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    """The upload was begun and a key is withdrawn; when somebody mends it, the store has dropped what was there."""

    async def cell(around: Surroundings) -> None:
        around.bucket_faults.once("part", None)
        around.bucket_faults.always("part", Answer(refused(403, "AccessDenied")))
        async with around.program():
            clip_id = await around.copied_clip()
            await around.wait(timedelta(hours=20).total_seconds())
            around.bucket.forget_uploads()
            around.bucket_faults.heal()
            assert_at_once(around, await around.until_rest(clip_id))
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw("upload forgotten", "after a day")


def _wrong_objects(data: bytes) -> dict[str, tuple[bytes, str | None]]:
    """What may stand at the key in place of *data*; the ETag None where it is that of a single write."""
    return {
        "one-byte-differs": (_other(data), "0123456789abcdef0123456789abcdef-3"),
        "one-byte-differs-plain": (_other(data), None),
        "a-byte-is-missing": (data[:-1], "0123456789abcdef0123456789abcdef-3"),
        "a-part-is-missing": (data[:2_000], "0123456789abcdef0123456789abcdef-2"),
        "longer-plain": (data + box(b"free", bytes(100)), None),
        "empty": (b"", None),
    }


@pytest.mark.parametrize("times", [1, 10_000], ids=["once", "for-ever"])
@pytest.mark.parametrize("name", _wrong_objects(bytes(1)))
def test_a_wrong_object_is_never_complete(
    name: str, times: int, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """The store says that all is well, and something else is at the key."""

    async def cell(around: Surroundings) -> None:
        def overwrite() -> None:
            (key,) = around.bucket.objects
            wrong, etag = _wrong_objects(around.video().files[0])[name]
            around.bucket.overwrite(key, wrong, etag)

        around.bucket_faults.once("complete", *[Meanwhile(after=overwrite)] * times)
        async with around.program():
            clip_id = await around.copied_clip()
            row = await around.until_status(clip_id, "complete")
            assert row["status"] == ("complete" if times == 1 else "error")
            around.bucket_faults.heal()
            await around.wait(timedelta(minutes=15).total_seconds())
            assert_complete(around, await around.until_rest(clip_id))
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1, ended_with_reason=int(times > 1))
    sometimes.saw(name, "complete")


def test_keys_that_are_changed_on_the_way(secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    """From one call on everything is refused, for an hour: no clip is failed for it, and all of them complete."""

    class Expired:
        def __init__(self, around: Surroundings, after_calls: int) -> None:
            self._around, self._left, self._until = around, after_calls, 0.0

        def next(self, call: Call) -> Fault | None:
            self._left -= 1
            if self._left == 0:
                self._until = self._around.loop.now + 3600
            if self._left > 0 or self._around.loop.now >= self._until:
                return None
            return Answer(refused(403, "InvalidAccessKeyId") if call.name == "part" else refused(401, "Unauthorized"))

    async def cell(around: Surroundings, after_calls: int) -> None:
        around.bucket.faults = Expired(around, after_calls)
        row = await drive(around, "")
        assert_complete(around, row)
        assert row["attempt"] == 1
        around.bucket.faults = around.bucket_faults
        await around.check()

    for after_calls in range(1, 8):
        in_surroundings(partial(cell, after_calls=after_calls), secrets)
        sometimes.saw("keys changed", f"call {after_calls}")
        figures.add(cells=1, completed=1)


# --- Two writers ----------------------------------------------------------------------------------------------------


def test_two_leaders_with_one_clip(
    amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    """A leader that was held up, and the one that took over, copy the same clip at once; one of them may be killed."""
    runs = amount(200, 5_000)
    for seed in range(runs):
        try:
            in_surroundings(_two_writers, secrets, seed)
        except BaseException:
            print(f"lane=bucket seed={seed} commit={commit}: two writers; repeat: python3 run.py lanes bucket")
            raise
    figures.add(two_writers=runs)
    sometimes.saw("two writers", "transfer", runs)


async def _two_writers(around: Surroundings) -> None:
    chance = around.loop.draw("writers")
    clip_id = await around.made_clip()
    row = around.clip(clip_id)
    effect = TransferToBucket(clip_id, 1, row["cloudflare_uid"], row["mp4_url"], row["duration"], is_private=False)
    for call in ("create", "part", "complete", "head"):
        if chance.random() < 0.3:
            fault = chance.choice((Broken(), Broken(applied=True), Answer(refused(503, "SlowDown"))))
            around.bucket_faults.once(call, *[None] * chance.choice((0, 0, 1, 2)), fault)
    writers = []
    for number in (1, 2):
        node = Node(f"writer-{number}")
        node.on_crash += [partial(around.loop.network.crashed, node), partial(around.database.drop, node.name)]
        writers.append(around.loop.spawn(node, _write(around, node, effect, chance.uniform(0, 1.5)), node.name))
        if number == 1 and chance.random() < 0.5:
            around.loop.after(chance.uniform(0, 2), partial(around.loop.pause, node, chance.uniform(1, 90)))
        elif number == 1 and chance.random() < 0.5:
            around.loop.after(chance.uniform(0, 2), partial(around.loop.crash, node))
    await asyncio.wait(writers, timeout=1800)
    assert not [one for one in writers if one.done() and one.exception()], [one.exception() for one in writers]
    # Whoever leads in the end carries on from where they stand.
    await _write(around, Node("the-last"), effect, 0.0, must_end=True)
    keys = list(around.bucket.objects)
    assert len(keys) == 1
    assert around.bucket.get(keys[0]) == around.video(clip_id).files[-1]
    assert {stored.body for stored in around.bucket.history[keys[0]]} == {around.video(clip_id).files[-1]}
    await around.check()


async def _write(
    around: Surroundings, node: Node, effect: TransferToBucket, after_seconds: float, *, must_end: bool = False
) -> None:
    """Copy as a leader does, a few tries over."""

    class Quiet:
        def progress(self, status: str, percent: float | None) -> None:
            """Nobody watches."""

        async def step(self, step: Any) -> None:
            """Nobody files it."""

    await asyncio.sleep(after_seconds)
    async with around.hands(node.name) as hands:
        for _ in range(6):
            try:
                await hands.carry_out(effect, Quiet())
                return
            except DriverError:
                await asyncio.sleep(3)
    assert not must_end, "the last writer did not come to an end"


# --- Killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_each_call_to_the_bucket(
    moment: str, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """Before it is done, or after and before its answer: the next leader completes the clip, and nothing is left."""

    async def cell(around: Surroundings, number: int) -> str:
        killing = _Killing(around, moment, number)
        around.bucket.faults = killing
        async with around.program() as first:
            killing.node = first
            clip_id = await around.copied_clip()
            while not first.is_dead and around.clip(clip_id)["status"] != "complete":
                await around.wait(0.5)
        if not first.is_dead:
            return ""
        async with around.program():
            assert_complete(around, await around.until_rest(clip_id))
        await around.check()
        return killing.at

    kills = 0
    while True:
        at = in_surroundings(partial(cell, number=kills + 1), secrets)
        if not at:
            break
        kills += 1
        sometimes.saw(f"killed {moment}", at)
    assert kills >= 7, "the clip makes more calls than it was killed at"
    figures.add(kills=kills, completed=kills)


class _Killing:
    """Kills a program at its n-th call to the bucket, *moment* it is done."""

    def __init__(self, around: Surroundings, moment: str, number: int) -> None:
        self.node: Node | None = None
        self.at = ""
        self._around, self._moment, self._left = around, moment, number

    def next(self, call: Call) -> Fault | None:
        self._left -= 1
        if self._left or self.node is None or self.node.is_dead:
            return None
        self.at = call.name
        kill = partial(self._around.loop.crash, self.node)
        return Meanwhile(before=kill) if self._moment == "before" else Meanwhile(after=kill)


def test_a_kill_at_each_step_of_the_transfer(
    amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """At every step of the program from the finished MP4 to `complete`; of many, an even choice in CI."""
    steps = in_surroundings(partial(_killed_at, step=None), secrets)
    chosen = range(1, steps + 1, max(1, steps // amount(150, steps)))
    for step in chosen:
        in_surroundings(partial(_killed_at, step=step), secrets)
    figures.add(kills=len(chosen), completed=len(chosen))
    figures.tell(steps_of_a_transfer=steps)
    sometimes.saw("killed", "a step of the transfer", len(chosen))


async def _killed_at(around: Surroundings, *, step: int | None) -> int:
    """Kill at the n-th step after the MP4 is ready; without *step*, the number of steps there are."""
    taken = 0

    def count(node: Node) -> None:
        nonlocal taken
        if node.name == "monitor-1":
            taken += 1
            if taken == step:
                around.loop.crash(node)

    async with around.program() as first:
        clip_id = await around.copied_clip()
        await around.until_status(clip_id, "waitformp4")
        around.loop.on_step = count
        while not first.is_dead and around.clip(clip_id)["status"] != "complete":
            await around.wait(0.05)
        around.loop.on_step = None
    if step is not None:
        async with around.program():
            assert_complete(around, await around.until_rest(clip_id))
    await around.check()
    return taken


# --- Several at once ------------------------------------------------------------------------------------------------


def test_faults_in_pairs(
    amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    pairs = amount(120, 5_000)
    for seed in range(pairs):
        chance = Random(seed)  # noqa: S311 - chance to be repeated, no secret
        met = [(*chance.choice(CELLS), chance.choice((0, 0, 1, 2))) for _ in range(chance.choice((2, 3, 4)))]
        try:
            in_surroundings(partial(_several, met=met), secrets, seed)
        except BaseException:
            said = ", ".join(f"{name} at {call} after {good}" for call, name, good in met)
            print(f"lane=bucket seed={seed} commit={commit}: {said}; repeat: python3 run.py lanes bucket")
            raise
        for call, name, _ in met:
            sometimes.saw(name, f"{call}, with others")
    figures.add(pairs=pairs, completed=pairs)


async def _several(around: Surroundings, *, met: list[tuple[str, str, int]]) -> None:
    for call, name, good_before in met:
        around.bucket_faults.once(call, *[None] * good_before, STORE_FAULTS[name].fault)
    row = await drive(around, "")
    assert_complete(around, row)
    await around.check()


@pytest.fixture(scope="session", autouse=True)
def judged(figures: Figures) -> None:
    """What every cell is judged by; a cell that breaks one of these has failed."""
    figures.tell(cells=0, completed=0, ended_with_reason=0, false_completes=0, orphans=0)
