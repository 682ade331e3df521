from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from orchestrator.drivers.ffmpeg import FfmpegFailed, FfmpegMissing, find_ffmpeg, run_ffmpeg

# Runs until it is killed: real-time input without end.
ENDLESS = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=10", "-f", "null", "-"]

_PARENT = """
import asyncio, structlog, sys
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # its output is what the test reads
from orchestrator.drivers.ffmpeg import run_ffmpeg
asyncio.run(run_ffmpeg(sys.argv[1], sys.argv[2:], lambda seconds: print(seconds, flush=True)))
"""


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_ffmpeg_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FfmpegMissing, match="nowhere"):
        find_ffmpeg(tmp_path / "nowhere")


def test_the_order_in_which_ffmpeg_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ffmpeg", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg(tmp_path / "mine") == str(tmp_path / "mine")
    assert find_ffmpeg(None) == str(tmp_path / "ffmpeg")
    (tmp_path / "ffmpeg").unlink()
    assert "ffmpeg" in Path(find_ffmpeg(None)).name


async def test_a_failure_says_why(ffmpeg: str, tmp_path: Path) -> None:
    with pytest.raises(FfmpegFailed, match="No such file"):
        await run_ffmpeg(ffmpeg, ["-i", str(tmp_path / "nothing.mp4"), "-f", "null", "-"])


async def test_a_cancelled_caller_leaves_no_child(ffmpeg: str) -> None:
    before = set(_children_of(os.getpid()))
    started = asyncio.Event()
    task = asyncio.create_task(run_ffmpeg(ffmpeg, ENDLESS, lambda _: started.set()))
    await started.wait()
    (child,) = set(_children_of(os.getpid())) - before
    assert os.getpriority(os.PRIO_PROCESS, child) > os.getpriority(os.PRIO_PROCESS, 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _is_running(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child's life to its parent's")
async def test_a_killed_parent_takes_its_child_along(ffmpeg: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, ffmpeg, *ENDLESS, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    await parent.stdout.readline()
    (child,) = _children_of(parent.pid)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(10):
        while _is_running(child):
            await asyncio.sleep(0.01)


async def test_its_command_is_logged_ready_to_paste(
    ffmpeg: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "it's here.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=10:duration=0.2"]
    await run_ffmpeg(ffmpeg, [*source, str(target)])
    said = capsys.readouterr().out
    assert target.stat().st_size > 0
    assert shlex.quote(str(target)) in said
