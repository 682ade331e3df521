"""Real files through real ffmpeg: what comes out, what is kept over a crash, and how each failure is named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator.drivers.errors import DatabaseAwayError, DriverError, PermanentError, TransientError
from orchestrator.drivers.probing import probe
from orchestrator.pipelines.cut.effects import (
    AnalyzeVideo,
    CheckClips,
    ClearWork,
    CutClips,
    ExportClips,
    PrepareFile,
    PublishClips,
)
from orchestrator.pipelines.cut.hands import CutHands, CutTools
from orchestrator.pipelines.cut.ranges import Range
from orchestrator.pipelines.cut.request import CutRequest
from orchestrator.pipelines.cut.workshop import Workshop
from orchestrator.storage.artifacts import read_artifacts

RANGES = (Range(0.0, 1.0), Range(1.48, 3.2), Range(4.0, 5.0))
FRAME_SECONDS = 0.04


async def _run(hands: CutHands, told: Any, request: CutRequest) -> tuple[Range, ...]:
    """Every effect of a job, in the order of its plan; the pieces that were settled."""
    await hands.carry_out(PrepareFile("job", 1, request.upload_id), told)
    done = await hands.carry_out(AnalyzeVideo("job", 1, request), told)
    assert done.step is not None
    ranges = tuple(Range(*pair) for pair in done.step.details["ranges"])
    await hands.carry_out(CutClips("job", 1, ranges, request.is_exact), told)
    await hands.carry_out(ExportClips("job", 1, len(ranges)), told)
    await hands.carry_out(CheckClips("job", 1, ranges, request.is_exact), told)
    return ranges


async def test_exact_ranges_come_out_to_the_frame(
    hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path], pool: asyncpg.Pool
) -> None:
    await stored(make_video(5.0))
    assert await _run(hands, told, CutRequest("up", RANGES)) == RANGES
    for number, wanted in enumerate(RANGES, 1):
        path = workshop.served("job", number)
        clip = await probe(path, "mov", counts=True)
        assert abs(clip.duration_seconds - wanted.length_seconds) <= FRAME_SECONDS
        assert clip.pictures is not None
        assert abs(clip.pictures - wanted.length_seconds / FRAME_SECONDS) <= 1
        assert clip.has_sound
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    async with pool.acquire() as connection:
        artifacts = await read_artifacts(connection, "job")
    assert [(each.number, each.name) for each in artifacts] == [(n, f"clip_{n:03d}.mp4") for n in (1, 2, 3)]
    cutting = [percent for status, percent in told.percents if status == "clipping"]
    assert cutting == sorted(cutting)
    assert cutting[-1] == pytest.approx(100)


async def test_a_copied_clip_begins_at_a_key_frame_and_may_be_longer(
    hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path]
) -> None:
    await stored(make_video(5.0))
    await _run(hands, told, CutRequest("up", (Range(2.5, 3.5),), is_exact=False))
    clip = await probe(workshop.served("job", 1), "mov")
    assert clip.duration_seconds >= 1.0


async def test_slices_cover_the_video(hands: CutHands, told: Any, stored: Any, make_video: Callable[..., Path]) -> None:
    await stored(make_video(5.0))
    ranges = await _run(hands, told, CutRequest("up", clip_seconds=2.0))
    assert [(each.start_seconds, round(each.end_seconds, 2)) for each in ranges] == [(0, 2), (2, 4), (4, 5)]


async def test_what_is_finished_is_not_made_again(
    hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path]
) -> None:
    await stored(make_video(5.0))
    await hands.carry_out(PrepareFile("job", 1, "up"), told)
    await hands.carry_out(CutClips("job", 1, RANGES, True), told)
    made = [workshop.made("job", number).stat().st_ino for number in (1, 2)]
    workshop.made("job", 3).unlink()
    await hands.carry_out(CutClips("job", 1, RANGES, True), told)
    assert [workshop.made("job", number).stat().st_ino for number in (1, 2)] == made
    workshop.export("job", 1)  # and then the process was killed
    await hands.carry_out(ExportClips("job", 1, 3), told)
    assert workshop.served("job", 1).stat().st_ino == made[0]
    assert sorted(path.name for path in workshop.served("job", 1).parent.iterdir()) == [
        "clip_001.mp4",
        "clip_002.mp4",
        "clip_003.mp4",
    ]


async def test_the_upload_survives_its_expiry_while_the_job_runs(
    hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path]
) -> None:
    await stored(make_video(2.0))
    await hands.carry_out(PrepareFile("job", 1, "up"), told)
    workshop.upload("up", "0" * 64).unlink()
    await hands.carry_out(CutClips("job", 1, (Range(0, 1),), True), told)
    assert workshop.made("job", 1).exists()


async def test_clearing_keeps_what_is_served_and_nothing_else(
    hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path]
) -> None:
    await stored(make_video(5.0))
    await _run(hands, told, CutRequest("up", RANGES))
    for _ in range(2):
        await hands.carry_out(ClearWork("job", 1, "complete", keeps_outputs=True, count=3), told)
    assert not (workshop.work / "job").exists()
    assert workshop.served("job", 3).exists()
    await hands.carry_out(ClearWork("job", 1, "error", keeps_outputs=False, count=3), told)
    assert not (workshop.outputs / "job").exists()
    assert workshop.upload("up", "0" * 64).exists()


async def _reason(hands: CutHands, told: Any, request: CutRequest) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await _run(hands, told, request)
    return caught.value


class TestFailuresAreNamed:
    @pytest.mark.parametrize(
        ("content", "code"),
        [
            (b"", "empty_file"),
            (b"no video at all\n" * 999, "unreadable"),
            (b"#EXTM3U\nfile:///etc/passwd\n", "unreadable"),
        ],
        ids=["empty", "disguised", "a-playlist"],
    )
    async def test_of_a_file_that_is_no_video(
        self, hands: CutHands, told: Any, stored: Any, tmp_path: Path, content: bytes, code: str
    ) -> None:
        file = tmp_path / "file.mp4"
        file.write_bytes(content)
        await stored(file)
        assert (await _reason(hands, told, CutRequest("up"))).code == code

    async def test_of_sound_alone(
        self, hands: CutHands, told: Any, stored: Any, make_video: Callable[..., Path]
    ) -> None:
        await stored(make_video(2.0, picture=False))
        assert (await _reason(hands, told, CutRequest("up"))).code == "no_picture"

    async def test_of_a_file_that_is_cut_off(
        self, hands: CutHands, told: Any, stored: Any, make_video: Callable[..., Path], tmp_path: Path
    ) -> None:
        whole = make_video(5.0).read_bytes()
        file = tmp_path / "half.mp4"
        file.write_bytes(whole[: len(whole) * 6 // 10])
        await stored(file)
        problem = await _reason(hands, told, CutRequest("up", RANGES))
        assert isinstance(problem, PermanentError)
        assert problem.code in ("clip_short", "cut_failed")
        assert "clip 2 (1.48-3.2 s)" in problem.text.lower()

    async def test_of_a_range_outside_the_video(
        self, hands: CutHands, told: Any, stored: Any, make_video: Callable[..., Path]
    ) -> None:
        await stored(make_video(2.0))
        problem = await _reason(hands, told, CutRequest("up", (Range(0, 1), Range(1, 9))))
        assert (problem.code, "clips[1] (1-9 s)" in problem.text) == ("bad_range", True)

    async def test_of_an_upload_that_is_not_there(self, hands: CutHands, told: Any) -> None:
        assert (await _reason(hands, told, CutRequest("nobody"))).code == "upload_unknown"

    async def test_of_bytes_that_are_gone_or_changed(
        self, hands: CutHands, told: Any, workshop: Workshop, stored: Any, make_video: Callable[..., Path]
    ) -> None:
        await stored(make_video(2.0))
        with workshop.upload("up", "0" * 64).open("ab") as file:
            file.write(b"more")
        assert (await _reason(hands, told, CutRequest("up"))).code == "upload_damaged"
        await hands.carry_out(ClearWork("job", 1, "error", keeps_outputs=False, count=3), told)
        workshop.upload("up", "0" * 64).unlink()
        assert (await _reason(hands, told, CutRequest("up"))).code == "upload_missing"

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ("kill -9 $$", "ffmpeg_died"),
            ("exit 0", "nothing_written"),
            ("echo broken >&2; exit 1", "cut_failed"),
            ("echo 'x: No space left on device' >&2; exit 1", "disk_full"),
            ("sleep 60", "ffmpeg_hung"),
        ],
        ids=["dies", "writes-nothing", "refuses", "disk-full", "hangs"],
    )
    async def test_of_an_ffmpeg_that(
        self,
        workshop: Workshop,
        pool: asyncpg.Pool,
        told: Any,
        stored: Any,
        make_video: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        code: str,
    ) -> None:
        monkeypatch.setattr("orchestrator.pipelines.cut.hands.STALL_SECONDS", 0.5)
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        await stored(make_video(2.0))
        hands = CutHands(CutTools(workshop, str(program), 1), pool)
        problem = await _reason(hands, told, CutRequest("up"))
        assert problem.code == code
        assert isinstance(problem, TransientError) == (code != "cut_failed")
        assert [path.name for path in (workshop.work / "job").iterdir()] == ["source"]


@pytest.mark.as_root
async def test_over_the_border_of_a_volume(
    ffmpeg: str, pool: asyncpg.Pool, told: Any, stored: Any, workshop: Workshop, make_video: Callable[..., Path]
) -> None:
    """Another volume is another number of a device: /dev/shm is one on every Linux."""
    other = Path("/dev/shm") / f"clip-test-{os.getpid()}"
    try:
        elsewhere = Workshop(workshop.uploads, workshop.work, other)
        await stored(make_video(2.0))
        await _run(CutHands(CutTools(elsewhere, ffmpeg, 1), pool), told, CutRequest("up", (Range(0, 1),)))
        assert (await probe(elsewhere.served("job", 1), "mov")).duration_seconds == pytest.approx(1, abs=0.04)
        assert not elsewhere.made("job", 1).exists()
    finally:
        for path in sorted(other.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        other.rmdir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of its own, of a few hundred kilobytes."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)], check=False)
    if made.returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.as_root
@pytest.mark.on_linux
class TestAFullDisk:
    async def test_while_cutting_is_named_and_leaves_no_half_clip(
        self,
        ffmpeg: str,
        pool: asyncpg.Pool,
        told: Any,
        stored: Any,
        workshop: Workshop,
        make_video: Callable[..., Path],
        small_disk: Path,
    ) -> None:
        await stored(make_video(5.0))
        full = Workshop(workshop.uploads, small_disk, workshop.outputs)
        hands = CutHands(CutTools(full, ffmpeg, 1), pool)
        ranges = tuple(Range(n, n + 4.0) for n in (0.0, 0.2, 0.4, 0.6, 0.8))
        problem = await _reason(hands, told, CutRequest("up", ranges * 4))
        assert (problem.code, isinstance(problem, TransientError)) == ("disk_full", True)
        assert not list(small_disk.rglob("*.part"))

    async def test_while_exporting_is_named_and_keeps_the_clip(
        self,
        ffmpeg: str,
        pool: asyncpg.Pool,
        told: Any,
        stored: Any,
        workshop: Workshop,
        make_video: Callable[..., Path],
        small_disk: Path,
    ) -> None:
        await stored(make_video(5.0))
        full = Workshop(workshop.uploads, workshop.work, small_disk)
        hands = CutHands(CutTools(full, ffmpeg, 1), pool)
        (small_disk / "other").write_bytes(b"x" * 390_000)
        problem = await _reason(hands, told, CutRequest("up", RANGES))
        assert problem.code == "disk_full"
        assert full.made("job", 1).exists()
        assert not list(small_disk.rglob("*.part"))
        (small_disk / "other").unlink()
        await hands.carry_out(ExportClips("job", 1, 3), told)
        assert full.served("job", 3).exists()


@pytest.mark.parametrize("what", [PrepareFile("job", 1, "a"), PublishClips("job", 1, "stream", "https://c/"), "tidy"])
async def test_a_database_that_is_away_is_named_as_such(workshop: Workshop, ffmpeg: str, told: Any, what: Any) -> None:
    """Any other failure would be counted as a try of the job."""
    async with asyncpg.create_pool("postgresql://nobody@127.0.0.1:1/none", min_size=0) as pool:
        hands = CutHands(CutTools(workshop, ffmpeg, max_cuts=1), pool)
        with pytest.raises(DatabaseAwayError):
            await (hands.tidy() if what == "tidy" else hands.carry_out(what, told))
