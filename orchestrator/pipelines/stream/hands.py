"""The stream pipeline's hands: it looks at Cloudflare Stream and carries out the pipeline's effects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import assert_never

import asyncpg

from orchestrator.drivers.cloudflare import CloudflareStream
from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video
from orchestrator.drivers.database import connection_of
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.pipelines.stream.effects import (
    AbandonTransfer,
    CopyFromUrl,
    DeleteVideo,
    EnableMp4,
    StreamEffect,
    TransferToBucket,
)
from orchestrator.pipelines.stream.foresight import Foresight
from orchestrator.pipelines.stream.ghosts import GhostSweep
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, VIDEO, NothingThere, VideoMissing, mp4_ready
from orchestrator.pipelines.terms import Done, Effect, LookKind, Reports, Step
from orchestrator.storage.clips import Clip
from orchestrator.storage.provider_asks import forget_asks, note_first_ask
from orchestrator.transfer import (
    Checkpoints,
    HttpSource,
    NotYetThereError,
    TransferJob,
    TransferLimits,
    TransferProgress,
    abandon,
    copy_to_bucket,
    sweep_orphans,
)

# Calls to the provider are bounded by their budget; this bounds what waits for it in memory.
MAX_CALLS_AT_ONCE = 32
# The queue of transfers, for whoever takes them on another host.
TRANSFERS = "transfer-to-bucket"
FIRST_PART_BYTES = TransferLimits().part_floor_bytes
# Addresses of MP4s that are being made: many times what the provider makes at once. One that is not known is asked for.
MAX_ADDRESSES = 5000
# A delivery host that is silent for longer may not hold up the looks at other clips.
ADDRESS_SECONDS = 5.0

Look = Video | Download | VideoMissing | NothingThere | DriverError


class StreamHands:
    """The drivers of the stream pipeline, and what is done with them."""

    def __init__(
        self,
        stream: CloudflareStream,
        store: ObjectStore,
        source: HttpSource,
        checkpoints: Checkpoints,
        pool: asyncpg.Pool,
        max_transfers: int,
        *,
        clock: Callable[[], datetime],
        removes_ghosts: bool = False,
        foresight: Foresight | None = None,
    ) -> None:
        self._stream = stream
        self._store = store
        self._source = source
        self._checkpoints = checkpoints
        self._pool = pool
        self._max_transfers = max_transfers
        self._ghosts = GhostSweep(stream, pool, removes=removes_ghosts)
        self._foresight = foresight or Foresight()
        # The plan compares what is noted here with times in rows: it has to be the clock that the plan is told.
        self._clock = clock
        # Where MP4s will be, by uid, as the provider named it; known to this process alone, for the document of a clip
        # may be written by others.
        self._addresses: dict[str, str] = {}

    def capacity(self, effect: Effect) -> int:
        """Transfers are bounded by the owner's setting, everything else by what may wait for the call budget."""
        return self._max_transfers if isinstance(effect, TransferToBucket) else MAX_CALLS_AT_ONCE

    def queue_of(self, effect: Effect) -> str | None:
        """A transfer needs the provider, the bucket and the database, and so any host will do."""
        return TRANSFERS if isinstance(effect, TransferToBucket) else None

    async def observe(self, kind: LookKind, clips: Sequence[Clip]) -> Mapping[str, Look]:
        """Videos by one list call for all; an MP4 at its address, or by its own call. Raises as the driver does."""
        await self._foresight.refresh(self._pool)
        by_uid = {clip.cloudflare_uid: clip.id for clip in clips if clip.cloudflare_uid is not None}
        try:
            if kind in (DOWNLOAD, DELIVERY):
                look = self._look_at_download if kind == DOWNLOAD else self._look_at_address
                found = await asyncio.gather(*map(look, by_uid))
                return dict(zip(by_uid.values(), found, strict=True))
            assert kind == VIDEO, kind  # noqa: S101 - the plan knows no other kind
            return await self._list(by_uid)
        finally:
            self._foresight.note_calls(self._stream.headroom())

    async def _list(self, by_uid: Mapping[str, str]) -> Mapping[str, Look]:
        listed = await self._stream.list_by_ids(list(by_uid))
        self._foresight.note_list(len(by_uid))
        seen: dict[str, Look] = {by_uid[uid]: video for uid, video in listed.items()}
        for uid, clip_id in by_uid.items():
            if uid not in listed:  # a list that leaves one out is no evidence
                seen[clip_id] = await self._look_for(uid)
        return seen

    async def _downloads(self, uid: str) -> Download:
        """What the provider says of the MP4; its address is remembered."""
        return self._remember(uid, await self._stream.get_downloads(uid))

    def _remember(self, uid: str, download: Download) -> Download:
        if download.url is not None:
            while len(self._addresses) >= MAX_ADDRESSES:
                del self._addresses[next(iter(self._addresses))]
            self._addresses[uid] = download.url
        return download

    async def _look_at_download(self, uid: str) -> Look:
        """What the provider says of one MP4; a refusal concerns that one alone."""
        try:
            return await self._downloads(uid)
        except DriverError as problem:
            return problem

    async def _look_at_address(self, uid: str) -> Look:
        """Whether the MP4 is at its address, told by its first bytes; where that is not known, what the provider says.

        The look goes by an address of its own: on the way somebody may keep the answer that nothing is there, and the
        transfer must not be given it. Whatever else the host says is no evidence, neither for the MP4 nor against it.
        """
        address = self._addresses.get(uid)
        if address is None:
            return await self._look_at_download(uid)
        mark = "&" if "?" in address else "?"
        try:
            async with asyncio.timeout(ADDRESS_SECONDS):
                await self._source.probe(f"{address}{mark}filename=look-{time.time_ns()}")
        except (TimeoutError, DriverError):
            return NothingThere()
        self._addresses.pop(uid, None)
        return Download(DownloadState.READY, 100.0, address)

    async def _look_for(self, uid: str) -> Video | VideoMissing | DriverError:
        """One video by a call of its own; a refusal concerns that one alone."""
        try:
            return await self._stream.get(uid) or VideoMissing()
        except DriverError as problem:
            return problem

    async def carry_out(self, effect: Effect, reports: Reports) -> Done:
        """Do one effect of this pipeline; safe to repeat and to cancel. Raises as the drivers do."""
        stream_effect: StreamEffect = effect  # type: ignore[assignment]  # the plan makes no other effects
        match stream_effect:
            case CopyFromUrl():
                return await self._copy_from_url(stream_effect)
            case EnableMp4():
                return await self._enable_mp4(stream_effect)
            case TransferToBucket():
                return await self._transfer(stream_effect, reports)
            case DeleteVideo():
                await self._stream.delete(stream_effect.uid)
                return Done(details={"deleted_at": self._clock().isoformat()})
            case AbandonTransfer():
                await abandon(self._store, self._checkpoints, stream_effect.clip_id, stream_effect.attempt)
                return Done(details={"abandoned_in_attempt": stream_effect.attempt})
            case _:
                assert_never(stream_effect)

    async def tidy(self) -> Mapping[str, int]:
        """Abort unfinished uploads in the bucket that nobody knows; find videos that belong to no clip.

        One does not wait for the other: a bucket that fails hides no ghost. Raises as the drivers do.
        """
        failed: DriverError | None = None
        aborted = 0
        try:
            aborted = await sweep_orphans(self._store, self._checkpoints)
        except DriverError as problem:
            failed = problem
        found = await self._ghosts.sweep()
        async with connection_of(self._pool) as connection:
            await forget_asks(connection)
        if failed is not None:
            raise failed
        return {"uploads_aborted": aborted, **found}

    async def _copy_from_url(self, effect: CopyFromUrl) -> Done:
        """A copy may not be asked for twice: look for one that carries this clip's mark, if there can be one."""
        mark = f"{effect.clip_id}.{effect.attempt}"
        is_first = await self._asks_first(effect.clip_id, f"copy {effect.attempt}")
        video = None if is_first else await self._stream.find_by_creator(mark)
        if video is None:
            async with connection_of(self._pool) as connection:
                url = await connection.fetchval("SELECT source_url FROM clips WHERE id = $1", effect.clip_id)
            if url is None:
                raise PermanentError("source_unknown", "The address to fetch the clip from is no longer known")
            meta = {"clip_id": effect.clip_id, "name": effect.title or effect.clip_id}
            video = await self._stream.copy_from_url(url, creator=mark, meta=meta)
        step = Step(
            "queued",
            "Cloudflare is fetching the clip from its address",
            facts={"cloudflare_uid": video.uid},
            details={
                "copied_in_attempt": effect.attempt,
                "copied_from_url": True,
                "cloudflare_status": video.state_raw,
            },
        )
        return Done(step=step)

    async def _enable_mp4(self, effect: EnableMp4) -> Done:
        """Ask for the MP4 only when there is none, so that a repeat asks for nothing twice.

        That is known of a video made for this clip if none was ever asked for, and told by a look at any other.
        """
        is_first = effect.is_fresh and await self._asks_first(effect.clip_id, f"mp4 {effect.uid}")
        download = Download() if is_first and effect.make == 1 else await self._downloads(effect.uid)
        details: dict[str, object] = {
            "mp4_makes": effect.make,
            "mp4_makes_in_attempt": effect.attempt,
            "mp4_asked_at": self._clock().isoformat(),
        }
        if effect.make > 1 and download.state == DownloadState.ERROR:
            await self._stream.reset_download(effect.uid)
            download = Download()
        if download.state == DownloadState.ABSENT:
            download = self._remember(effect.uid, await self._stream.enable_download(effect.uid))
        if download.state == DownloadState.READY and download.url:
            return Done(step=mp4_ready(download), details=details)
        details["mp4_status"] = str(download.state)
        return Done(step=Step("waitformp4", "Cloudflare has taken the request for the MP4"), details=details)

    async def _asks_first(self, clip_id: str, what: str) -> bool:
        """Whether it is certain that nobody has asked for *what*; the note of that comes before the asking.

        Raises:
            DatabaseAwayError, TransientError: it could not be noted. Who asked all the same would be asked after by
                nobody: the next one would find no note, and ask for a second time.
        """
        try:
            async with connection_of(self._pool) as connection:
                return await note_first_ask(connection, clip_id, what)
        except asyncpg.PostgresError as exc:
            text = "What the provider is to be asked for cannot be noted: the database does not take it."
            raise TransientError("ask_not_noted", text) from exc

    async def _transfer(self, effect: TransferToBucket, reports: Reports) -> Done:
        job = TransferJob(
            clip_id=effect.clip_id,
            uid=effect.uid,
            attempt=effect.attempt,
            source_url=await self._readable_address(effect),
            expected_duration_seconds=effect.duration_seconds,
        )
        phases = _Phases(reports)
        try:
            result = await copy_to_bucket(job, self._source, self._store, self._checkpoints, phases.tell)
            await phases.announced()
        except NotYetThereError:
            await self._ask_again_if_lost(effect.uid)
            raise
        finally:
            phases.close()
        facts = {"r2_url": result.public_url, "file_size": result.size_bytes}
        details = {"r2_key": result.key, "r2_etag": result.etag, "sha256": result.sha256}
        return Done(step=Step("complete", "The file is in the bucket, whole and verified", facts, details))

    async def _ask_again_if_lost(self, uid: str) -> None:
        """Have an MP4 made afresh that was called ready and is gone: a reset that arrived late may have taken it.

        The clip stays where it is, for its address will be the same.
        """
        if (await self._stream.get_downloads(uid)).state == DownloadState.ABSENT:
            await self._stream.enable_download(uid)

    async def _readable_address(self, effect: TransferToBucket) -> str:
        """The MP4's address; a private video's with a token in place of its uid, which is never stored."""
        if not effect.is_private:
            return effect.mp4_url
        if f"/{effect.uid}/" not in effect.mp4_url:
            raise TransientError("mp4_address", "The MP4's address does not have the form of a private video's")
        token = await self._stream.create_token(effect.uid, downloadable=True)
        return effect.mp4_url.replace(f"/{effect.uid}/", f"/{token}/")


class _Phases:
    """Turns the bytes of one transfer into the progress of two statuses.

    The clip is at `mp4downloading` until its first part is durable in the bucket, and at `r2_uploading` from then on.
    """

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._announcement: asyncio.Task[None] | None = None
        self._written_at_first = 0

    def tell(self, progress: TransferProgress) -> None:
        """Take in one report of the transfer."""
        if progress.is_first_part_durable and self._announcement is None:
            step = Step("r2_uploading", "The first part is in the bucket")
            self._announcement = asyncio.create_task(self._reports.step(step))
            self._written_at_first = progress.bytes_done
        total = progress.bytes_total
        if self._announcement is None:
            # The first part's bytes: of its usual size, or of all there is.
            share = progress.bytes_done / max(1, min(total or FIRST_PART_BYTES, FIRST_PART_BYTES))
            self._reports.progress("mp4downloading", 100 * share)
        elif total is not None:
            rest = max(1, total - self._written_at_first)
            self._reports.progress("r2_uploading", 100 * (progress.bytes_done - self._written_at_first) / rest)

    async def announced(self) -> None:
        """Wait until the announcement, if there was one, is filed: it comes before the end."""
        if self._announcement is not None:
            await self._announcement

    def close(self) -> None:
        """Drop an announcement that is still under way."""
        if self._announcement is not None:
            self._announcement.cancel()
