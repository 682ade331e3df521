"""What a media file really is, by FFmpeg's own libraries: duration, streams, and how many pictures are in it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.drivers.errors import PermanentError, TransientError

# Playlists and protocols are left out on purpose: one could make the library read other files of this machine.
# Headers are read in milliseconds; a minute is a disk that hangs.
_CHILD_SECONDS = 60.0
_OPTIONS = {"protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class Probed:
    """One file. *pictures* counts the video packets, when they were counted; a header can claim more than is there."""

    duration_seconds: float
    width: int
    height: int
    frame_seconds: float
    has_sound: bool
    size_bytes: int
    pictures: int | None = None


async def probe(path: Path, containers: str, *, counts: bool = False) -> Probed:
    """What is at *path*, a file of our own making. With *counts* the whole file is read.

    Raises:
        PermanentError: it is no video of one of the *containers*, or broken beyond use; the code says which.
    """
    return await asyncio.to_thread(_probe, path, containers, counts)


async def probe_foreign(path: Path, containers: str) -> Probed:
    """The same of a file that strangers made, in a child process: what makes the library crash may not end ours.

    Raises:
        PermanentError: as `probe`; also when the library crashed on it.
        TransientError: the child could not answer in time.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(path),
        containers,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_CHILD_SECONDS):
            said, _ = await child.communicate()
    except TimeoutError:
        raise TransientError("probe_hung", "Reading the file's headers took too long") from None
    finally:
        if child.returncode is None:
            child.kill()
            await asyncio.shield(child.wait())
    if child.returncode != 0:
        raise PermanentError("unreadable", "The file is no video that can be read: the reader crashed on it")
    answer: dict[str, Any] = json.loads(said)
    if "code" in answer:
        raise PermanentError(answer["code"], answer["text"])
    return Probed(**answer)


def _main(path: str, containers: str) -> None:
    """The child: what `probe` would say, as JSON."""
    try:
        answer: dict[str, Any] = asdict(_probe(Path(path), containers, counts=False))
    except PermanentError as problem:
        answer = {"code": problem.code, "text": problem.text}
    except OSError as problem:
        answer = {"code": "unreadable", "text": f"The file cannot be read ({problem.strerror})"}
    print(json.dumps(answer))


def _probe(path: Path, containers: str, counts: bool) -> Probed:
    # Brings FFmpeg's libraries with it: only who probes pays for that.
    import av

    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise PermanentError("empty_file", "The file is empty")
    try:
        with av.open(str(path), options={**_OPTIONS, "format_whitelist": containers}) as media:
            if not media.streams.video:
                raise PermanentError("no_picture", "The file has sound but no picture")
            picture = media.streams.video[0]
            if media.duration is None and picture.duration is None:
                raise PermanentError("unreadable", "The file does not say how long it is; it may be cut off")
            rate = picture.average_rate or picture.guessed_rate
            pictures = sum(1 for packet in media.demux(picture) if packet.size) if counts else None
            return Probed(
                duration_seconds=_duration_seconds(media.duration, picture),
                width=picture.codec_context.width,
                height=picture.codec_context.height,
                frame_seconds=float(1 / rate) if rate else 0.04,
                has_sound=bool(media.streams.audio),
                size_bytes=size_bytes,
                pictures=pictures,
            )
    except av.FFmpegError as problem:
        said = f"The file is no video that can be read ({type(problem).__name__})"
        raise PermanentError("unreadable", said) from None


def _duration_seconds(container: int | None, picture: object) -> float:
    """The picture's duration where it is known: sound may go on a little longer."""
    ticks, base = getattr(picture, "duration", None), getattr(picture, "time_base", None)
    if ticks and base:
        return float(ticks * base)
    return (container or 0) / 1_000_000


if __name__ == "__main__":
    _main(*sys.argv[1:])
