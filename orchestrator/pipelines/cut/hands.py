"""The cut pipeline's hands: files, ffmpeg and probing on this machine."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never

import asyncpg

from orchestrator.drivers.database import connection_of
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.drivers.ffmpeg import FfmpegFailed, FfmpegHung, Patience, run_ffmpeg
from orchestrator.drivers.probing import probe, probe_foreign
from orchestrator.pipelines.cut.arguments import CONTAINERS, cut_arguments
from orchestrator.pipelines.cut.effects import (
    AnalyzeVideo,
    CheckClips,
    ClearWork,
    CutClips,
    CutEffect,
    ExportClips,
    PrepareFile,
    PublishClips,
)
from orchestrator.pipelines.cut.outlets import DirectoryOutlet, Outlet
from orchestrator.pipelines.cut.plan import cleared_mark
from orchestrator.pipelines.cut.ranges import BadRange, Range, checked, slices
from orchestrator.pipelines.cut.sweeping import abandoned_jobs, forget_files, remove_parts, remove_work
from orchestrator.pipelines.cut.workshop import Workshop, told
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports, Step
from orchestrator.storage.artifacts import Artifact, note_artifact, publish_artifacts, write_artifacts
from orchestrator.storage.clips import Clip
from orchestrator.storage.uploads import forget_uploads, read_upload

# What waits for a free ffmpeg costs nothing; what copies files should leave the disk to the others.
MAX_SMALL_EFFECTS = 8
# A slow core encodes 1080p at a quarter of real time; a minute more covers the start and the seek in a large file.
ENCODING_SECONDS_PER_SECOND = 20.0
LEAST_LIMIT_SECONDS = 120.0
# ffmpeg says how far it is five times a second; seeking in a file of many GB takes seconds, not a minute.
STALL_SECONDS = 60.0

# Of these jobs, those that no longer need their work directory.
_OVER = """
SELECT j.id FROM unnest($1::text[]) AS j(id) LEFT JOIN clips c USING (id) WHERE c.id IS NULL OR c.look_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class CutTools:
    """What the hands work with: where, with which ffmpeg, how many at once, how long uploads are kept.

    Without an *outlet* clips are served from the workshop's own directory.
    """

    workshop: Workshop
    ffmpeg: str
    max_cuts: int
    keep_hours: float = 24.0
    outlet: Outlet | None = None


class CutHands:
    """The tools of the cut pipeline, and what is done with them."""

    def __init__(self, tools: CutTools, pool: asyncpg.Pool) -> None:
        self._tools = tools
        self._workshop = tools.workshop
        self._outlet = tools.outlet or DirectoryOutlet(tools.workshop)
        self._pool = pool

    def capacity(self, effect: Effect) -> int:
        """Jobs that encode are bounded by the owner's setting, everything else by what the disk takes."""
        return self._tools.max_cuts if isinstance(effect, CutClips) else MAX_SMALL_EFFECTS

    def queue_of(self, effect: Effect) -> str | None:
        """Nowhere but here: the files are in directories of this host."""
        return None

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Any]:
        """Nothing: a job waits for nobody outside."""
        return {}

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        """Do one effect of this pipeline; safe to repeat and to cancel. Raises as the drivers do."""
        cut_effect: CutEffect = effect  # type: ignore[assignment]  # the plan makes no other effects
        match cut_effect:
            case PrepareFile():
                return await self._prepare(cut_effect)
            case AnalyzeVideo():
                return await self._analyze(cut_effect)
            case CutClips():
                return await self._cut(cut_effect, reports)
            case ExportClips():
                return await self._export(cut_effect, reports)
            case CheckClips():
                return await self._check(cut_effect, reports)
            case ClearWork():
                await asyncio.to_thread(self._workshop.clear, cut_effect.clip_id)
                if not cut_effect.keeps_outputs:
                    await self._outlet.withdraw(cut_effect.clip_id, cut_effect.count)
                return Done(details={"cleared": cleared_mark(cut_effect.attempt, cut_effect.status)})
            case PublishClips():
                return await self._publish(cut_effect)
            case _:
                assert_never(cut_effect)

    async def tidy(self) -> Mapping[str, int]:
        """Remove uploads nobody has wanted for long, and what crashes have left. Raises as the drivers do."""
        with told("what former jobs have left"):
            left = await asyncio.to_thread(abandoned_jobs, self._workshop)
        async with connection_of(self._pool) as connection:
            forgotten = await forget_uploads(connection, timedelta(hours=self._tools.keep_hours))
            over = await connection.fetch(_OVER, left)
        with told("what former jobs have left"):
            files = await asyncio.to_thread(forget_files, self._workshop, forgotten)
            parts = await asyncio.to_thread(remove_parts, self._workshop)
            await asyncio.to_thread(remove_work, self._workshop, [row["id"] for row in over])
        unfinished = await self._outlet.tidy()
        return {
            "uploads": files,
            "unfinished_uploads": parts,
            "work_directories": len(over),
            "unfinished_exports": unfinished,
        }

    async def _prepare(self, effect: PrepareFile) -> Done:
        async with connection_of(self._pool) as connection:
            upload = await read_upload(connection, effect.upload_id)
        if upload is None:
            raise PermanentError("upload_unknown", f"There is no upload {effect.upload_id}; it may have expired")
        stored = self._workshop.upload(upload.id, upload.sha256)
        await asyncio.to_thread(self._workshop.prepare, effect.clip_id, stored, upload.size_bytes)
        return Done(step=Step("prepared", "File prepared", facts={"file_size": upload.size_bytes}))

    async def _analyze(self, effect: AnalyzeVideo) -> Done:
        source = self._workshop.source(effect.clip_id)
        with told("the job's source"):
            probed = await probe_foreign(source, CONTAINERS)
        request = effect.request
        try:
            ranges = (
                checked(request.ranges, probed.duration_seconds)
                if request.ranges
                else slices(probed.duration_seconds, request.clip_seconds, request.most_clips)
            )
        except BadRange as problem:
            raise PermanentError("bad_range", str(problem)) from problem
        if not ranges:
            raise PermanentError("no_clips", "The video is too short for a single clip")
        details = {
            "ranges": [[each.start_seconds, each.end_seconds] for each in ranges],
            "source": {"width": probed.width, "height": probed.height, "has_sound": probed.has_sound},
        }
        reason = f"{len(ranges)} clips of {probed.duration_seconds:.1f} s of video"
        return Done(step=Step("clipping", reason, facts={"duration": probed.duration_seconds}, details=details))

    async def _cut(self, effect: CutClips, reports: Reports) -> Done:
        total_seconds = sum(each.length_seconds for each in effect.ranges)
        done_seconds = 0.0
        for number, wanted in enumerate(effect.ranges, 1):
            if not self._workshop.made(effect.clip_id, number).exists():
                before = done_seconds

                def tell(seconds: float, before: float = before, most: float = wanted.length_seconds) -> None:
                    reports.progress("clipping", 100 * (before + min(seconds, most)) / total_seconds)

                await self._cut_one(effect, number, wanted, tell)
            done_seconds += wanted.length_seconds
            reports.progress("clipping", 100 * done_seconds / total_seconds)
        return Done(step=Step("exporting", f"{len(effect.ranges)} clips are cut"))

    async def _cut_one(self, effect: CutClips, number: int, wanted: Range, tell: Any) -> None:
        source = self._workshop.source(effect.clip_id)
        making = self._workshop.making(effect.clip_id, number, secrets.token_hex(4))
        arguments = cut_arguments(source, making, wanted, is_exact=effect.is_exact)
        limit_seconds = LEAST_LIMIT_SECONDS + ENCODING_SECONDS_PER_SECOND * wanted.length_seconds
        try:
            await run_ffmpeg(self._tools.ffmpeg, arguments, tell, patience=Patience(limit_seconds, STALL_SECONDS))
            if not making.exists() or making.stat().st_size == 0:
                raise TransientError("nothing_written", f"ffmpeg wrote nothing for clip {number} ({wanted})")
            made = self._workshop.made(effect.clip_id, number)
            await asyncio.to_thread(self._workshop.keep, making, made)
            found = await self._checked(made, number, wanted, is_exact=effect.is_exact)
        except FfmpegHung as problem:
            raise TransientError("ffmpeg_hung", f"Clip {number} ({wanted}): {problem}") from problem
        except FfmpegFailed as problem:
            raise _failed(number, wanted, str(problem)) from problem
        finally:
            making.unlink(missing_ok=True)
        async with connection_of(self._pool) as connection:
            await note_artifact(connection, effect.clip_id, found)

    async def _export(self, effect: ExportClips, reports: Reports) -> Done:
        for number in range(1, effect.count + 1):
            await self._outlet.export(effect.clip_id, number)
            reports.progress("exporting", 100 * number / effect.count)
        return Done(step=Step("finalizing", f"{effect.count} clips are where they are served"))

    async def _check(self, effect: CheckClips, reports: Reports) -> Done:
        found = []
        for number, wanted in enumerate(effect.ranges, 1):
            path = await self._outlet.whole(effect.clip_id, number)
            found.append(await self._checked(path, number, wanted, is_exact=effect.is_exact))
            reports.progress("finalizing", 100 * number / len(effect.ranges))
        async with connection_of(self._pool) as connection:
            await write_artifacts(connection, effect.clip_id, found)
        return Done(
            step=Step("complete", f"{len(found)} clips are whole and served", details={"clips_made": len(found)})
        )

    async def _publish(self, effect: PublishClips) -> Done:
        async with connection_of(self._pool) as connection:
            ids = await publish_artifacts(connection, effect.clip_id, effect.pipeline, effect.base_url)
        return Done(details={"published": len(ids)})

    async def _checked(self, path: Path, number: int, wanted: Range, *, is_exact: bool) -> Artifact:
        """The clip as it is served; an exact one has the length that was asked for, to the frame."""
        try:
            with told(f"the clip {path.name}"):
                probed = await probe(path, "mov,mp4", counts=True)
        except PermanentError as problem:
            if problem.code not in ("no_picture", "empty_file", "unreadable"):
                raise
            said = f"Clip {number} ({wanted}) has no picture: the source ends before it"
            raise PermanentError("clip_short", said) from problem
        missing_seconds = wanted.length_seconds - probed.duration_seconds
        if probed.pictures == 0 or (is_exact and missing_seconds > 1.5 * probed.frame_seconds):
            text = (
                f"Clip {number} ({wanted}) has only {probed.duration_seconds:.3f} s of picture: the source ends there"
            )
            raise PermanentError("clip_short", text)
        return Artifact(
            number=number,
            name=path.name,
            start_seconds=wanted.start_seconds,
            end_seconds=wanted.end_seconds,
            duration_seconds=probed.duration_seconds,
            size_bytes=probed.size_bytes,
            width=probed.width,
            height=probed.height,
            has_sound=probed.has_sound,
        )


def _failed(number: int, wanted: Range, said: str) -> PermanentError | TransientError:
    """ffmpeg's failure with a name: a full disk and a broken source do not heal, a killed child may."""
    if "No space left on device" in said:
        return TransientError("disk_full", f"The disk is full: clip {number} ({wanted}) could not be written")
    if not said.strip():
        return TransientError("ffmpeg_died", f"ffmpeg died while cutting clip {number} ({wanted})")
    last = said.strip().splitlines()[-1][:200]
    return PermanentError("cut_failed", f"Clip {number} ({wanted}) could not be cut: {last}")
