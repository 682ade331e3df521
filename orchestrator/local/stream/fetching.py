"""Uploads by address: asks HEAD first, as Cloudflare does, then fetches the bytes to disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from orchestrator.local.stream.files import remove, size_of
from orchestrator.local.stream.media import ProcessingFailed

_CHUNK_BYTES = 1024 * 1024
# A source that breaks off is asked for the rest this often before the copy fails.
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)


class _BrokenOff(Exception):
    """The connection ended early; the rest may be had by another request."""


async def fetch(url: str, target: Path, limit_bytes: int) -> int:
    """Bring *url* to *target* and return its size.

    Raises ProcessingFailed (ERR_FETCH_ORIGIN_ERROR) when the origin refuses HEAD or GET, sends more
    than *limit_bytes* or keeps breaking off.
    """
    async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session:
        try:
            async with session.head(url, allow_redirects=True) as answer:
                if answer.status >= 300:
                    raise _refused(f"The origin answered HEAD with {answer.status}.")
            return await _fetch_all(session, url, target, limit_bytes)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise _refused("The origin cannot be reached.") from exc


async def _fetch_all(session: aiohttp.ClientSession, url: str, target: Path, limit_bytes: int) -> int:
    remove(target)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _fetch_rest(session, url, target, limit_bytes)
            return size_of(target)
        except _BrokenOff:
            if attempt < _ATTEMPTS:
                await asyncio.sleep(_PAUSE_SECONDS)
    raise _refused("The origin kept breaking off.")


async def _fetch_rest(session: aiohttp.ClientSession, url: str, target: Path, limit_bytes: int) -> None:
    have = size_of(target)
    headers = {"Range": f"bytes={have}-"} if have else {}
    async with session.get(url, headers=headers) as answer:
        if answer.status not in (200, 206):
            raise _refused(f"The origin answered GET with {answer.status}.")
        resumed = answer.status == 206
        try:
            with target.open("ab" if resumed else "wb") as file:
                async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                    await asyncio.to_thread(file.write, chunk)
                    if file.tell() > limit_bytes:
                        raise _refused("The file is too large.")
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, TimeoutError) as exc:
            raise _BrokenOff from exc


def _refused(text: str) -> ProcessingFailed:
    return ProcessingFailed("ERR_FETCH_ORIGIN_ERROR", text)
