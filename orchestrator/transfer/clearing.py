"""Giving up unfinished uploads, which cost storage until the store's own seven days are over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from orchestrator.drivers.errors import DriverError
from orchestrator.drivers.object_store import ObjectStore
from orchestrator.transfer.checkpoints import Checkpoint, Checkpoints
from orchestrator.transfer.jobs import KEY_PREFIX

log = structlog.get_logger(__name__)

#: R2 aborts unfinished uploads after seven days; a checkpoint older than that is about nothing.
_STORE_FORGETS_AFTER = timedelta(days=8)


async def give_up(store: ObjectStore, checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    """Abort the upload, then forget it; in this order, so that a crash between leaves something that finds it."""
    await store.abort(checkpoint.key, checkpoint.upload_id)
    await checkpoints.discard(checkpoint)


async def give_up_quietly(store: ObjectStore, checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
    """The same on the way out of another failure, which must not be hidden; the sweep gets what stays."""
    try:
        await give_up(store, checkpoints, checkpoint)
    except DriverError as exc:
        log.warning(
            "Could not give up an upload", clip_id=checkpoint.clip_id, attempt=checkpoint.attempt, code=exc.code
        )


async def give_up_before(store: ObjectStore, checkpoints: Checkpoints, clip_id: str, attempt: int) -> None:
    """Give up what attempts older than *attempt* left unfinished."""
    for old in await checkpoints.unfinished(clip_id, attempt):
        await give_up(store, checkpoints, old)
        log.info("Gave up the upload of an older attempt", clip_id=clip_id, attempt=old.attempt)


async def abandon(store: ObjectStore, checkpoints: Checkpoints, clip_id: str, attempt: int) -> None:
    """Give up whatever is unfinished of a clip that ended, *attempt* included. Safe to repeat."""
    await give_up_before(store, checkpoints, clip_id, attempt + 1)


async def sweep_orphans(
    store: ObjectStore, checkpoints: Checkpoints, older_than: timedelta = timedelta(hours=24)
) -> int:
    """Abort our unfinished uploads that no checkpoint knows and that began before *older_than*; returns how many.

    Such an upload is left by a crash between its beginning and its first checkpoint. The age keeps
    the sweep away from one that is being begun right now.
    """
    now = datetime.now(UTC)
    await checkpoints.discard_unfinished(now - _STORE_FORGETS_AFTER)
    old = [one for one in await store.list_uploads(KEY_PREFIX) if one.started_at < now - older_than]
    live = await checkpoints.live_uploads([one.upload_id for one in old])
    orphans = [one for one in old if one.upload_id not in live]
    for orphan in orphans:
        await store.abort(orphan.key, orphan.upload_id)
    if orphans:
        log.info("Aborted uploads that nobody knew", count=len(orphans))
    return len(orphans)
