"""The bytes of uploads on disk: written beside their place, synced, and given their name when they are whole.

A file is named by its upload's id and its content, so that two uploads under one id never share a file:

    up_01hq….9f86d081884c7d65          whole
    up_01hq….9f86d081884c7d65.part     on its way in one request
    up_01hq….tus, up_01hq….tus.json    on its way in several (tus)
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

# What other programs on the volume, the database's log among them, must still find.
RESERVE_BYTES = 512 * 1024**2
_CHUNK_BYTES = 1024 * 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class NoSpace(Exception):
    """The volume cannot take the file."""


class TooLarge(Exception):
    """The file is larger than this installation takes."""


@dataclass(frozen=True, slots=True)
class Received:
    """A whole file, on disk and synced."""

    size_bytes: int
    sha256: str


class UploadFiles:
    """The directory of uploads. Everything that waits for the disk happens in threads."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self.most_bytes = most_bytes

    def path(self, upload_id: str, sha256: str) -> Path:
        """Where the whole file is."""
        return self._directory / f"{upload_id}.{sha256[:16]}"

    def check_space(self, wanted_bytes: int) -> None:
        """Refuse early what cannot fit.

        Raises:
            TooLarge, NoSpace: it cannot.
        """
        if wanted_bytes > self.most_bytes:
            raise TooLarge
        self._directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._directory).free - RESERVE_BYTES < wanted_bytes:
            raise NoSpace

    async def receive(self, upload_id: str, chunks: AsyncIterator[bytes]) -> Received:
        """Write *chunks* as the file of *upload_id*; it is there, whole and synced, when this returns.

        Raises:
            TooLarge, NoSpace: and nothing is left of it.
        """
        self.check_space(0)
        part = self._directory / f"{upload_id}.{secrets.token_hex(8)}.part"
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with part.open("xb", buffering=0) as file:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > self.most_bytes:
                        raise TooLarge
                    await asyncio.to_thread(_take, file, digest, chunk)
                await asyncio.to_thread(os.fsync, file.fileno())
            received = Received(size_bytes, digest.hexdigest())
            await asyncio.to_thread(_name, part, self.path(upload_id, received.sha256))
            return received
        except OSError as problem:
            if problem.errno in _NO_SPACE:
                raise NoSpace from problem
            raise
        finally:
            part.unlink(missing_ok=True)

    def drop(self, upload_id: str, sha256: str) -> None:
        """Remove a file that another one has won over."""
        self.path(upload_id, sha256).unlink(missing_ok=True)

    # tus: the bytes so far are the file; its size is the offset.

    def begun(self, upload_id: str) -> Path:
        """The file that grows by tus."""
        return self._directory / f"{upload_id}.tus"

    async def append(self, upload_id: str, chunks: AsyncIterator[bytes], most_bytes: int) -> int:
        """Add *chunks* to the growing file, what arrived also when the line breaks; its size then.

        Raises:
            TooLarge: more came than was announced; nothing beyond it is kept.
            NoSpace: the volume is full; what fitted is kept.
        """
        path = self.begun(upload_id)
        try:
            with path.open("r+b", buffering=0) as file:
                size_bytes = file.seek(0, os.SEEK_END)
                try:
                    async for chunk in chunks:
                        if size_bytes + len(chunk) > most_bytes:
                            raise TooLarge
                        await asyncio.to_thread(_write_all, file, chunk)
                        size_bytes += len(chunk)
                finally:
                    await asyncio.shield(asyncio.to_thread(os.fsync, file.fileno()))
        except OSError as problem:
            if problem.errno in _NO_SPACE:
                raise NoSpace from problem
            raise
        return size_bytes

    async def finish(self, upload_id: str) -> Received:
        """Give the whole file that came by tus its name; safe to repeat until it has one."""
        received = await asyncio.to_thread(_hash, self.begun(upload_id))
        await asyncio.to_thread(_name, self.begun(upload_id), self.path(upload_id, received.sha256))
        return received


def _take(file: object, digest: hashlib._Hash, chunk: bytes) -> None:
    digest.update(chunk)
    _write_all(file, chunk)


def _write_all(file: object, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]  # type: ignore[attr-defined]  # a raw file may take less than it is given


def _name(part: Path, path: Path) -> None:
    part.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(path: Path) -> Received:
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
        os.fsync(file.fileno())
    return Received(size_bytes, digest.hexdigest())
