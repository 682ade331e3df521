"""Every body that a delivery host may send: named for what it is, never taken for a whole file, outlived if it passes.

Each cell is a clip of three parts driven to its end through the real monitor, drivers and transfer, in virtual time;
the file in the bucket is compared byte by byte with what the host had to give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from simulation.bodies import ANYWHERE, AT_A_PART, AT_THE_PROBE, AT_THE_WHOLE, Body
from simulation.delivery import Wire
from simulation.faults import Meanwhile, Raw
from simulation.movies import box, movie
from simulation.surroundings import QUICK, Secrets, Surroundings, in_surroundings

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

pytest_plugins = ["simulation.lane_fixtures"]

# Where an answer goes wrong: at the first look, at the first part, at the second; or at the only read there is.
PLACES: dict[str, tuple[str, int, dict[str, Body], bool]] = {
    # The first is the look whether the MP4 is there; what it meets proves nothing, so it is let pass.
    "probe": ("probe", 1, {**ANYWHERE, **AT_THE_PROBE}, True),
    "first-part": ("span", 0, {**ANYWHERE, **AT_A_PART}, True),
    "second-part": ("span", 1, {**ANYWHERE, **AT_A_PART}, True),
    "last-part": ("span", 2, {**ANYWHERE, **AT_A_PART}, True),
    "whole": ("whole", 0, {**ANYWHERE, **AT_THE_WHOLE}, False),
}
# For ever, what is wrong at one part is not told from what is wrong at another.
_LIKE_ANOTHER = {"first-part", "last-part"}
CELLS = [pytest.param(place, name, id=f"{place}-{name}") for place in PLACES for name in PLACES[place][2]]


async def drive(around: Surroundings) -> dict[str, Any]:
    """A clip at rest."""
    async with around.program():
        return await around.until_rest(await around.copied_clip())


def assert_complete(around: Surroundings, row: dict[str, Any]) -> None:
    """It is complete, and the bucket holds the file that the host serves now."""
    assert (row["status"], row["processing_details"].get("error_code")) == ("complete", None)
    assert around.bucket.get(row["processing_details"]["r2_key"]) == around.video().files[-1]


def assert_ended(around: Surroundings, row: dict[str, Any], code: str) -> None:
    """It ended with that reason, and nothing that could be taken for the file is in the bucket."""
    assert (row["status"], row["processing_details"].get("error_code")) == ("error", code)
    assert row["error_message"]
    assert not around.bucket.objects


async def heal_and_complete(around: Surroundings, row: dict[str, Any], code: str) -> None:
    """The clip has ended with *code*; with a good host its next attempt completes it."""
    assert_ended(around, row, code)
    around.stream_faults.heal()
    if "retry_at" not in row["processing_details"]:
        await around.retry(row["id"])
    await around.wait(timedelta(minutes=15).total_seconds())
    assert_complete(around, await around.until_rest(row["id"]))


@pytest.mark.parametrize(("place", "name"), CELLS)
def test_one_bad_body(place: str, name: str, secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    call, good_before, bodies, has_ranges = PLACES[place]
    body = bodies[name]

    async def cell(around: Surroundings) -> None:
        around.stream.delivery.has_ranges = has_ranges
        around.stream_faults.once(call, *[None] * good_before, Raw(body.write))
        row = await drive(around)
        assert around.stream_faults.met[call] == 1, "the answer was never met"
        if body.is_final:
            assert body.code
            assert_ended(around, row, body.code)
        else:
            assert_complete(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=int(not body.is_final), ended_with_reason=int(body.is_final))
    sometimes.saw(name, place)


@pytest.mark.parametrize(("place", "name"), CELLS)
def test_never_a_better_one(
    place: str,
    name: str,
    amount: Callable[[Any, Any], Any],
    secrets: Secrets,
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    """The clip ends with the reason; once the host is well it is tried again, by a person where it must be."""
    call, good_before, bodies, has_ranges = PLACES[place]
    body = bodies[name]
    if place in _LIKE_ANOTHER and not amount(False, True):
        return

    async def cell(around: Surroundings) -> None:
        around.stream.delivery.has_ranges = has_ranges
        around.stream_faults.once(call, *[None] * good_before)
        around.stream_faults.always(call, Raw(body.write))
        async with around.program():
            clip_id = await around.copied_clip()
            row = await around.until_status(clip_id, "complete")
            assert around.stream_faults.met[call], "the answer was never met"
            if body.code is None:
                assert_complete(around, row)
            else:
                await heal_and_complete(around, row, body.code)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=int(body.code is None), ended_with_reason=int(body.code is not None))
    sometimes.saw(f"{name} for ever", place)


# --- Another file -----------------------------------------------------------------------------------------------


def _file(size_bytes: int, seconds: float = 30.0) -> bytes:
    return movie(Random(size_bytes), size_bytes, seconds)  # noqa: S311 - a file to be made again, no secret


@pytest.mark.parametrize("size_bytes", [2_499, 2_501, 900, 1_000, 3_000, 7_777])
@pytest.mark.parametrize("place", ["before-the-first-part", "after-the-first-part", "before-the-last-part", "whole"])
def test_a_file_that_changes_on_the_way_is_read_afresh(
    place: str, size_bytes: int, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    async def cell(around: Surroundings) -> None:
        def change() -> None:
            around.stream.replace_file(around.clip()["cloudflare_uid"], _file(size_bytes))

        faults, delivery = around.stream_faults, around.stream.delivery
        delivery.has_ranges = place != "whole"
        if place == "after-the-first-part":
            faults.once("span", Meanwhile(after=change))
        elif place == "before-the-last-part":
            faults.once("span", None, None, Meanwhile(before=change))
        else:
            faults.once("whole" if place == "whole" else "span", Meanwhile(before=change))
        row = await drive(around)
        assert_complete(around, row)
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw("another file", place)


@pytest.mark.parametrize("has_etags", [True, False], ids=["with-etags", "without-etags"])
def test_a_file_that_never_stays_the_same_is_never_complete(
    has_etags: bool, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    async def cell(around: Surroundings) -> None:
        sizes = around.loop.draw("sizes")

        def change() -> None:
            around.stream.replace_file(around.clip()["cloudflare_uid"], _file(sizes.randint(1_100, 5_000)))

        around.stream.delivery.has_etags = has_etags
        around.stream_faults.always("span", Meanwhile(before=change))
        row = await drive(around)
        assert_ended(around, row, "source_changed")
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, ended_with_reason=1)
    sometimes.saw("always another file", "span")


def _broken_files() -> dict[str, tuple[bytes, str]]:
    good = _file(2_500)
    media = good.index(b"mdat") - 4
    return {
        "no-mp4": (b"\0\0\0\x18RIFF" + good[8:], "source_not_mp4"),
        "cut-in-its-media": (good[:1_700], "object_cut"),
        "cut-where-a-part-ends": (good[:2_000], "object_cut"),
        "cut-before-its-media": (good[:media], "object_incomplete"),
        "cut-in-a-header": (good[: media + 5], "object_cut"),
        "without-an-index": (good[: good.index(b"moov") - 4] + good[media:], "object_incomplete"),
        "an-index-that-says-nothing": (good[:24] + box(b"moov", b"") + good[media:], "object_incomplete"),
        "padding-behind-it": (good + bytes(500), "object_not_mp4"),
        "much-shorter-than-it-should-be": (_file(2_500, seconds=12.0), "object_duration_differs"),
        "much-longer-than-it-should-be": (_file(2_500, seconds=300.0), "object_duration_differs"),
    }


@pytest.mark.parametrize("mode", ["ranges", "whole", "without-length"])
@pytest.mark.parametrize("name", _broken_files())
def test_a_broken_file_is_refused_and_a_good_one_taken_later(
    name: str, mode: str, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    data, code = _broken_files()[name]

    async def without_length(wire: Wire) -> None:
        await wire.head("200 OK", Content_Type="video/mp4", Transfer_Encoding="chunked")
        await wire.chunk(wire.data)
        await wire.chunk(b"")

    async def cell(around: Surroundings) -> None:
        around.stream.delivery.has_ranges = mode == "ranges"
        async with around.program():
            clip_id = await around.copied_clip()
            await around.until_status(clip_id, "queued")
            uid = around.clip(clip_id)["cloudflare_uid"]
            good = around.video(clip_id).files.pop()
            around.stream.replace_file(uid, data)
            if mode == "without-length":
                around.stream_faults.always("probe", Raw(without_length))
                around.stream_faults.always("whole", Raw(without_length))
            row = await around.until_status(clip_id, "complete")
            around.video(clip_id).files[:] = [good]
            await heal_and_complete(around, row, code)
        await around.check()

    in_surroundings(cell, secrets, max_bytes=3_000_000)
    figures.add(cells=1, ended_with_reason=1)
    sometimes.saw(name, mode)


# --- Without end ------------------------------------------------------------------------------------------------


async def _endless(wire: Wire, *, piece: bytes, pause_seconds: float, around: Surroundings) -> None:
    await wire.head("200 OK", Content_Type="video/mp4", Transfer_Encoding="chunked")
    await wire.chunk(wire.data)
    while not wire.is_gone:
        await wire.chunk(piece)
        await around.wait(pause_seconds)


@pytest.mark.parametrize(
    ("name", "piece", "pause_seconds", "code"),
    [
        ("endless", bytes(50_000), 0.1, "source_too_large"),
        # A byte now and then is no silence; the time that a copy may take is what ends it.
        ("endless-and-slow", b"x", 25.0, "transfer_deadline"),
    ],
)
def test_a_body_without_end_ends_the_clip(
    name: str, piece: bytes, pause_seconds: float, code: str, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    async def cell(around: Surroundings) -> None:
        around.stream.delivery.has_ranges = False
        write = partial(_endless, piece=piece, pause_seconds=pause_seconds, around=around)
        around.stream_faults.always("probe", Raw(write))
        around.stream_faults.always("whole", Raw(write))
        async with around.program():
            row = await around.until_status(await around.copied_clip(), "complete")
        assert_ended(around, row, code)
        await around.check()

    # Ten minutes in place of six hours, so that a byte now and then costs hundreds of them and not thousands.
    in_surroundings(cell, secrets, max_bytes=2_000_000, deadline_seconds=600)
    figures.add(cells=1, ended_with_reason=1)
    sometimes.saw(name, "whole")


@pytest.mark.parametrize("has_ranges", [True, False], ids=["ranges", "whole"])
def test_an_hour_of_silence_in_the_middle(
    has_ranges: bool, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    async def pause(wire: Wire) -> None:
        await (wire.part_head() if wire.span else wire.whole_head())
        await wire.send(b"0123")
        await around_of[0].wait(3600)

    around_of: list[Surroundings] = []

    async def cell(around: Surroundings) -> None:
        around_of.append(around)
        around.stream.delivery.has_ranges = has_ranges
        around.stream_faults.once("span" if has_ranges else "whole", Raw(pause))
        began = around.now()
        row = await drive(around)
        assert_complete(around, row)
        assert (around.now() - began).total_seconds() < 600, "silence was sat out instead of given up"
        await around.check()

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=1)
    sometimes.saw("an hour of silence", "span" if has_ranges else "whole")


# --- Every place at which a file may be cut ----------------------------------------------------------------------

_CUT_EVERY_BYTES = 64 * 1024
_LARGE_FILE_BYTES = 20_000_000
_LARGE_PART_BYTES = 5 * 1024 * 1024


@pytest.mark.parametrize("has_ranges", [True, False], ids=["ranges", "whole"])
def test_every_cut_point_of_a_large_file(
    has_ranges: bool, amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """The file arrives whole; what is read again is what follows the last durable part."""
    points = range(0, _LARGE_FILE_BYTES, _CUT_EVERY_BYTES)
    chosen = list(points)[:: amount(80, 1)]
    for cut_at in chosen:
        in_surroundings(
            partial(_cut_large, cut_at=cut_at, has_ranges=has_ranges), secrets, part_bytes=_LARGE_PART_BYTES
        )
        sometimes.saw("cut of a large file", "ranges" if has_ranges else "whole")
    figures.add(cut_points=len(chosen), completed=len(chosen))


async def _cut_large(around: Surroundings, *, cut_at: int, has_ranges: bool) -> None:
    around.fate = replace(QUICK, size_bytes=_LARGE_FILE_BYTES)
    around.stream.delivery.has_ranges = has_ranges

    async def cut(wire: Wire) -> None:
        first = wire.span[0] if wire.span else 0
        await (wire.part_head() if wire.span else wire.whole_head())
        await wire.send(wire.data[first:cut_at], first)
        wire.close()

    good_before = cut_at // _LARGE_PART_BYTES if has_ranges else 0
    around.stream_faults.once("span" if has_ranges else "whole", *[None] * good_before, Raw(cut))
    row = await drive(around)
    assert_complete(around, row)
    delivered = sum(one.length_bytes for one in around.stream.delivery.delivered)
    again = _LARGE_PART_BYTES if has_ranges else cut_at
    # A host without ranges says sixteen bytes' worth by sending everything: what of it was read is not counted here.
    if has_ranges:
        assert delivered <= _LARGE_FILE_BYTES + again + 64, "more than one part was read twice"
    await around.check()


@pytest.fixture(scope="session", autouse=True)
def judged(figures: Figures) -> None:
    """What every cell is judged by; a cell that breaks one of these has failed."""
    figures.tell(cells=0, completed=0, ended_with_reason=0, false_completes=0, orphans=0)
