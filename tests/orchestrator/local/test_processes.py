from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.local import processes
from orchestrator.local.processes import Account, Command, has_ended, kill, spawn, stop, wait_until_ended

_LIMIT_SECONDS = 20.0  # far above what any of this takes; a hang fails instead of blocking the run

# Says "ready" once its handlers are set, so that no test has to guess.
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)
_PLAIN = "import time; print('ready', flush=True); time.sleep(60)"


def python(code: str, **settings: object) -> Command:
    arguments = [sys.executable, "-c", code]
    return Command(arguments=arguments, cwd=Path("/"), environment=dict(os.environ), **settings)  # type: ignore[arg-type]


def started(code: str, **settings: object) -> subprocess.Popen[bytes]:
    process = spawn(python(code, **settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not collected yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(_LIMIT_SECONDS):
        while is_alive(pid):
            await asyncio.sleep(0.01)


async def test_a_willing_process_is_stopped_by_the_first_signal() -> None:
    process = started(_PLAIN)
    assert await stop(process, signal.SIGTERM, _LIMIT_SECONDS) is True
    assert process.returncode == -signal.SIGTERM


async def test_a_stubborn_process_is_killed_when_the_limit_has_passed() -> None:
    process = started(_STUBBORN)
    assert await stop(process, signal.SIGTERM, 0.05) is False
    assert process.returncode == -signal.SIGKILL


async def test_a_system_that_cannot_look_before_it_collects_stops_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_CAN_LOOK_FIRST", False)
    willing, stubborn = started(_PLAIN), started(_STUBBORN)
    assert await stop(willing, signal.SIGTERM, _LIMIT_SECONDS) is True
    assert await stop(stubborn, signal.SIGTERM, 0.05) is False


async def test_stopping_twice_is_harmless() -> None:
    process = started(_PLAIN)
    await stop(process, signal.SIGTERM, _LIMIT_SECONDS)
    assert await stop(process, signal.SIGTERM, _LIMIT_SECONDS) is True


async def test_a_cancelled_stop_kills_before_it_passes_the_cancellation_on() -> None:
    process = started(_STUBBORN)
    stopping = asyncio.create_task(stop(process, signal.SIGTERM, _LIMIT_SECONDS))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await wait_until_ended(process, _LIMIT_SECONDS)


async def test_what_an_ended_process_left_in_its_group_is_killed() -> None:
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {_PLAIN!r}], stdout=subprocess.PIPE); "
    code += "p.stdout.readline(); print(p.pid, flush=True)"
    process = spawn(python(code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    assert await wait_until_ended(process, _LIMIT_SECONDS)
    await until_gone(orphan)


async def test_kill_does_not_wait_and_does_not_mind_an_ended_process() -> None:
    process = started(_STUBBORN)
    kill(process)
    assert await wait_until_ended(process, _LIMIT_SECONDS)
    kill(process)


def test_a_child_has_a_group_of_its_own_so_that_ctrl_c_does_not_reach_it() -> None:
    process = started(_PLAIN)
    try:
        assert os.getpgid(process.pid) == process.pid
    finally:
        kill(process)
        process.wait(_LIMIT_SECONDS)


def test_starting_from_another_thread_is_refused() -> None:
    refused: list[BaseException] = []

    def attempt() -> None:
        try:
            spawn(python(_PLAIN), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except RuntimeError as exc:
            refused.append(exc)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(_LIMIT_SECONDS)
    assert len(refused) == 1


@pytest.mark.on_linux
@pytest.mark.parametrize("code", [_PLAIN, _STUBBORN], ids=["willing", "stubborn"])
async def test_a_child_does_not_outlive_a_parent_that_is_killed(code: str) -> None:
    parent_code = f"""
import subprocess, sys, signal
from pathlib import Path
from orchestrator.local.processes import Command, spawn
command = Command([sys.executable, "-c", {code!r}], Path("/"), {{}}, signal.SIGKILL)
child = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    parent = spawn(python(parent_code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    # Only the parent: its group is its own, and the child has left that for one of its own.
    parent.kill()
    await until_gone(child)
    assert await wait_until_ended(parent, _LIMIT_SECONDS)


@pytest.mark.as_root
async def test_an_account_is_taken_on_for_good_and_without_further_groups() -> None:
    arguments = ["/bin/sh", "-c", "id -u; id -g; id -G"]
    command = Command(arguments, Path("/"), {"PATH": os.defpath}, account=Account(65534, 65534))
    process = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    assert await wait_until_ended(process, _LIMIT_SECONDS)
    assert said.split() == ["65534", "65534", "65534"]


async def test_a_program_that_does_not_exist_is_named() -> None:
    command = Command(["/nowhere/at-all"], Path("/"), {})
    process = spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"/nowhere/at-all" in process.stderr.read()
    assert await wait_until_ended(process, _LIMIT_SECONDS)
    assert process.returncode == 127
    assert has_ended(process)
