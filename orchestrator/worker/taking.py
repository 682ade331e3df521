"""Taking jobs from the queue, by PgQueuer's statement: it passes over what others hold and takes what the dead left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import (
    DBSettings,
    Durability,
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.types import Channel, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter

from orchestrator.storage.heavy_steps import HOLD_SECONDS, HeavyStep
from orchestrator.storage.pool import COMMAND_TIMEOUT_SECONDS
from orchestrator.worker.filing import Taken

log = structlog.get_logger(__name__)


def queue_settings() -> DBSettings:
    """The names of migration 0011, whatever PgQueuer is told by the environment for somebody else's queue."""
    return DBSettings(
        prefix="clip_",
        db_schema=None,
        durability=Durability.balanced,
        queue_table="clip_pgqueuer",
        queue_table_log="clip_pgqueuer_log",
        statistics_table="clip_pgqueuer_statistics",
        schedules_table="clip_pgqueuer_schedules",
        queue_status_type="clip_pgqueuer_status",
        function="clip_fn_pgqueuer_changed",
        trigger="clip_tg_pgqueuer_changed",
        channel=Channel("clip_ch_pgqueuer"),
    )


class Queue:
    """The queue, as worker *me* sees it."""

    def __init__(self, pool: asyncpg.Pool, me: UUID) -> None:
        settings = queue_settings()
        self._me = QueueManagerId(me)
        self._queries = Queries(
            AsyncpgPoolDriver(pool),
            QueryBuilderEnvironment(settings),
            QueryQueueBuilder(settings),
            QuerySchedulerBuilder(settings),
        )

    async def take(self, kind: str, at_most: int) -> Sequence[Taken]:
        """Jobs of *kind* that nobody holds, the oldest first; those whose holder has not renewed them, too."""
        limits = {QueueEntrypoint(kind): EntrypointExecutionParameter(concurrency_limit=0)}
        async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
            jobs = await self._queries.dequeue(
                batch_size=at_most,
                entrypoints=limits,
                queue_manager_id=self._me,
                global_concurrency_limit=None,
                heartbeat_timeout=timedelta(seconds=HOLD_SECONDS),
            )
        taken = []
        for job in jobs:
            try:
                taken.append(Taken(int(job.id), HeavyStep.from_payload(job.payload or b"")))
            except (ValueError, TypeError):
                # Somebody else's. It is not renewed, and met again whenever its time is over.
                log.exception("a job could not be read", job=int(job.id))
        return taken
