"""Small valid MP4 files: the shape that the transfer's check walks, with random bytes as media."""

from __future__ import annotations

import random
import struct


def box(name: bytes, body: bytes) -> bytes:
    """One box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(body), name) + body


def movie(rng: random.Random, size_bytes: int, seconds: float) -> bytes:
    """A whole file of exactly *size_bytes* (at least 200) that says it lasts *seconds*."""
    mvhd = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 1000, round(seconds * 1000)) + bytes(80))
    head = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + box(b"moov", mvhd)
    media_bytes = size_bytes - len(head) - 8
    if media_bytes < 0:
        raise ValueError(f"a movie has at least {len(head) + 8} bytes")
    return head + box(b"mdat", rng.randbytes(media_bytes))
