"""A delivery host on loopback: one file, whole or in ranges, straight from the kernel.

python -m benchmarks.movie_source FILE PORT
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

from aiohttp import web

_MIB = 1024 * 1024


def write_movie(path: Path, size_bytes: int) -> None:
    """A file of *size_bytes* whose boxes are those of a whole MP4 of ten seconds; its media is noise."""
    mvhd = _box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, 10_000) + bytes(80))
    head = _box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + _box(b"moov", mvhd)
    left = size_bytes - len(head)
    with Path("/dev/urandom").open("rb") as noise, path.open("wb") as file:
        file.write(head + struct.pack(">I4s", left, b"mdat"))
        left -= 8
        while left:
            left -= file.write(noise.read(min(left, _MIB)))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def main() -> None:
    """Serve until the process is ended."""
    file = Path(sys.argv[1])

    async def send(_: web.Request) -> web.FileResponse:
        return web.FileResponse(file, chunk_size=_MIB)

    app = web.Application()
    app.router.add_get("/movie.mp4", send)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None)


if __name__ == "__main__":
    main()
