"""ffmpeg as a child that never outlives us: found, started at low priority, followed, limited and killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from orchestrator.drivers import tether

log = structlog.get_logger(__name__)

# Encoding must never make the page or the API slow; 10 is what `nice` itself adds.
_NICENESS = 10
_ALWAYS = ["-hide_banner", "-nostdin", "-progress", "pipe:1", "-nostats", "-stats_period", "0.2"]
# What is kept of the child's messages: the end says why it failed, and a description of a source fits.
_KEPT_BYTES = 65_536
# As long as a sentence for people gets.
_SAID_CHARACTERS = 500


class FfmpegMissing(RuntimeError):
    """No ffmpeg was found."""


class FfmpegFailed(RuntimeError):
    """ffmpeg ended with an error; the text is the end of what it said."""


class FfmpegHung(FfmpegFailed):
    """ffmpeg was killed: it had taken too long, or nothing had moved for too long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one run may take in all, and how long without a word of progress; seconds."""

    limit_seconds: float
    stall_seconds: float


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
    ffmpeg: str,
    arguments: Sequence[str],
    on_seconds: Callable[[float], None] | None = None,
    *,
    must_succeed: bool = True,
    patience: Patience | None = None,
) -> str:
    """Run ffmpeg to its end and return the end of its messages.

    *on_seconds* is told how far the output has come, five times a second. When the caller is cancelled the child is
    killed.

    Raises:
        FfmpegHung: it met the limits of *patience*.
        FfmpegFailed: it ended with an error, unless *must_succeed* is False.
    """
    command = [ffmpeg, *_ALWAYS, *arguments]
    # In the sentence itself: a field's value would be quoted once more, and could not be pasted.
    log.info(f"ffmpeg starts: {shlex.join(command)}")
    child = await _start(command)
    watch = _Watch(patience, on_seconds)
    try:
        messages, progress = child.stderr, child.stdout
        if messages is None or progress is None:
            raise FfmpegFailed("ffmpeg has no pipes")
        async with asyncio.timeout(None) as limit:
            watch.set(limit)
            said, _ = await asyncio.gather(_tail(messages), _follow(progress, watch))
            code = await child.wait()
    except TimeoutError:
        raise FfmpegHung(watch.verdict()) from None
    finally:
        await _end(child)
    if code != 0 and must_succeed:
        raise FfmpegFailed(said[-_SAID_CHARACTERS:])
    return said


class _Watch:
    """When a run has taken too long: in all, or since the output last grew."""

    def __init__(self, patience: Patience | None, on_seconds: Callable[[float], None] | None) -> None:
        self._patience = patience
        self._on_seconds = on_seconds
        self._started_at = time.monotonic()
        self._furthest_seconds = -1.0
        self._limit: asyncio.Timeout | None = None

    def set(self, limit: asyncio.Timeout) -> None:
        """Use *limit* as the alarm."""
        self._limit = limit
        self._put_off()

    def reached(self, seconds: float) -> None:
        """Take in how far the output has come; only growth puts the alarm off."""
        if seconds > self._furthest_seconds:
            self._furthest_seconds = seconds
            self._put_off()
        if self._on_seconds is not None:
            self._on_seconds(seconds)

    def verdict(self) -> str:
        """Which limit was met."""
        assert self._patience is not None  # noqa: S101 - without it there is no alarm
        taken_seconds = time.monotonic() - self._started_at
        if taken_seconds >= self._patience.limit_seconds:
            return f"ffmpeg was ended after {taken_seconds:.0f} s"
        return f"ffmpeg made no progress for {self._patience.stall_seconds:.0f} s"

    def _put_off(self) -> None:
        if self._patience is None or self._limit is None:
            return
        left_seconds = self._started_at + self._patience.limit_seconds - time.monotonic()
        self._limit.reschedule(asyncio.get_running_loop().time() + min(self._patience.stall_seconds, left_seconds))


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    # A script ties the child's life to ours: code between fork and exec may hang where there are threads.
    tied = [sys.executable, "-I", "-S", tether.__file__, str(int(signal.SIGKILL)), str(os.getpid()), "-1", "-1"]
    child = await asyncio.create_subprocess_exec(
        *tied,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, child.pid, _NICENESS)
    return child


async def _tail(stream: asyncio.StreamReader) -> str:
    said = b""
    while chunk := await stream.read(_KEPT_BYTES):
        said = (said + chunk)[-_KEPT_BYTES:]
    return said.decode(errors="replace")


async def _follow(stream: asyncio.StreamReader, watch: _Watch) -> None:
    async for line in stream:
        name, _, value = line.decode(errors="replace").strip().partition("=")
        if name == "out_time_us" and value.lstrip("-").isdigit():
            watch.reached(max(0, int(value)) / 1_000_000)


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    # A killed child ends at once; the shield lets a second cancellation not leave a zombie.
    await asyncio.shield(child.wait())
