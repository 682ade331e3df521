"""ffmpeg as a child that never outlives us: found, started at low priority, followed and killed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

# Linux: "send me this signal when my parent dies" (linux/prctl.h).
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# Encoding must never make the page or the API slow; 10 is what `nice` itself adds.
_NICENESS = 10
_ALWAYS = ["-hide_banner", "-nostdin", "-progress", "pipe:1", "-nostats", "-stats_period", "0.2"]
# What is kept of the child's messages: the end says why it failed, and a description of a source fits.
_KEPT_BYTES = 65_536


class FfmpegMissing(RuntimeError):
    """No ffmpeg was found."""


class FfmpegFailed(RuntimeError):
    """ffmpeg ended with an error; the text is the end of what it said."""


def find_ffmpeg(explicit: Path | None) -> str:
    """The ffmpeg to use: *explicit*, else the one on the PATH, else imageio-ffmpeg's. Raises FfmpegMissing."""
    if explicit is not None:
        found = shutil.which(str(explicit))
        if found is None:
            raise FfmpegMissing(f"{explicit} cannot be run")
        return found
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        return on_path
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as exc:
        raise FfmpegMissing("no ffmpeg on the PATH, and the package imageio-ffmpeg brings none") from exc


async def run_ffmpeg(
    ffmpeg: str, arguments: list[str], on_seconds: Callable[[float], None] | None = None, *, must_succeed: bool = True
) -> str:
    """Run ffmpeg to its end and return the end of its messages.

    *on_seconds* is told how far the output has come, five times a second. When the caller is
    cancelled the child is killed. Raises FfmpegFailed, unless *must_succeed* is False.
    """
    child = await _start([ffmpeg, *_ALWAYS, *arguments])
    try:
        messages, progress = child.stderr, child.stdout
        if messages is None or progress is None:
            raise FfmpegFailed("ffmpeg has no pipes")
        said, _ = await asyncio.gather(_tail(messages), _follow(progress, on_seconds))
        code = await child.wait()
    finally:
        await _end(child)
    if code != 0 and must_succeed:
        raise FfmpegFailed(said[-500:])
    return said


async def _start(command: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_in_child(os.getpid()),
    )


def _in_child(parent_pid: int) -> Callable[[], None]:
    """What the child does before it becomes ffmpeg: die with us, and be modest."""

    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            # Our end may have come between fork and prctl; then nobody would send the signal.
            if os.getppid() != parent_pid:
                os._exit(1)
        os.nice(_NICENESS)

    return prepare


async def _tail(stream: asyncio.StreamReader) -> str:
    said = b""
    while chunk := await stream.read(_KEPT_BYTES):
        said = (said + chunk)[-_KEPT_BYTES:]
    return said.decode(errors="replace")


async def _follow(stream: asyncio.StreamReader, on_seconds: Callable[[float], None] | None) -> None:
    async for line in stream:
        name, _, value = line.decode(errors="replace").strip().partition("=")
        if name == "out_time_us" and on_seconds is not None and value.lstrip("-").isdigit():
            on_seconds(max(0, int(value)) / 1_000_000)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    # A killed child ends at once; the shield lets a second cancellation not leave a zombie.
    await asyncio.shield(child.wait())
