"""What an event stream sends: events written out once for everybody, and a short queue for each reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.web.views import is_terminal, message_of, state_of, timestamp


class ChunkQueue:
    """Chunks that wait for one reader, at most *limit*; None among them ends the stream.

    A thousand readers have one each, so it is a list: `asyncio.Queue` keeps four deques, 3 KiB.
    """

    __slots__ = ("_chunks", "_limit", "_waiter")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes | None] = []
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._chunks)

    def put(self, chunk: bytes | None) -> bool:
        """Add *chunk*; False when the reader is too far behind."""
        if len(self._chunks) >= self._limit:
            return False
        self._chunks.append(chunk)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True

    async def get(self) -> bytes | None:
        """The next chunk; waits for it. One reader at a time."""
        while not self._chunks:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._chunks.pop(0)


class Batch:
    """Rows that were read together: each is written out once, each combination joined once."""

    def __init__(self, event_id: int) -> None:
        self._event_id = event_id
        self._texts: dict[tuple[str, int], bytes] = {}
        self._chunks: dict[tuple[tuple[str, int], ...], bytes] = {}

    def chunk(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """The events of *rows*, one after the other."""
        key = tuple((row["id"], row["version"]) for row in rows)
        found = self._chunks.get(key)
        if found is None:
            found = self._chunks[key] = b"".join(self._text(row) for row in rows)
        return found

    def _text(self, row: Mapping[str, Any]) -> bytes:
        key = row["id"], row["version"]
        found = self._texts.get(key)
        if found is None:
            found = self._texts[key] = event_text(row, self._event_id)
        return found


def event_text(row: Mapping[str, Any], event_id: int) -> bytes:
    """One event as it goes over the wire."""
    status = row["status"]
    data = {
        "clip_id": row["id"],
        "status": status,
        "state": state_of(row["pipeline"], status),
        "progress": row["progress"],
        "message": message_of(row["pipeline"], status, row["error_message"]),
        "terminal": is_terminal(status),
        "updated_at": timestamp(row["updated_at"]),
        "attempt": row["attempt"],
        "version": row["version"],
    }
    # JSON has no line breaks outside its texts, and inside they are escaped: one data line is enough.
    return f"id: {event_id}\nevent: clip\ndata: {json.dumps(data)}\n\n".encode()
