from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.local.errors import DirectoryInUse
from orchestrator.local.locks import DirectoryLock


def test_a_directory_is_used_by_one_at_a_time_and_the_refusal_names_the_other(tmp_path: Path) -> None:
    with (
        DirectoryLock(tmp_path),
        pytest.raises(DirectoryInUse, match=rf"{tmp_path} is in use by process {os.getpid()}"),
    ):
        DirectoryLock(tmp_path).__enter__()


def test_it_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with DirectoryLock(tmp_path):
            pass


def test_a_killed_process_locks_nobody_out(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, os, signal; from orchestrator.local.locks import DirectoryLock;"
        "DirectoryLock(pathlib.Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30)
    assert (tmp_path / "lock").exists()
    with DirectoryLock(tmp_path):
        pass


def test_a_child_does_not_inherit_it(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        command = ["/bin/sh", "-c", "echo started; read line"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
    try:
        with DirectoryLock(tmp_path):
            pass
    finally:
        child.communicate(timeout=30)


@pytest.mark.as_user
def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").touch(mode=0o000)
    with pytest.raises(DirectoryInUse, match="another account"):
        DirectoryLock(tmp_path).__enter__()
