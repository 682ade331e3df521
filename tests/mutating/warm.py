"""Running pytest many times without paying for its start: a process that has the libraries, and forks for each run.

What is tested is never loaded before the fork, so each run sees the files as they are.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

# What nearly every test loads, and no change touches.
_LIBRARIES = (
    "aiohttp.web", "asyncpg", "boto3", "botocore.client", "hypothesis.strategies", "prometheus_client",
    "pydantic_settings", "structlog", "tenacity", "yarl",
)  # fmt: skip
# How often it is looked whether a run has ended.
_LOOK_SECONDS = 0.02


class Warm:
    """Such a process, whose runs happen in *place*, with *environment* beside ours."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mutating.warm"],
            cwd=place,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, arguments: list[str], output: Path, limit_seconds: float) -> bool:
        """Run ``pytest`` with *arguments*, its words in *output*; whether it was ended for taking too long.

        Raises:
            RuntimeError: the process is no more.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"arguments": arguments, "output": str(output), "limit_seconds": limit_seconds}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"the process that runs pytest has ended: {self._process.wait()}")
        return bool(json.loads(said)["hung"])


def serve() -> None:
    """The whole life of such a process: one job a line, one answer a line."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    # The children share what is there now, untouched.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps({"hung": _forked(json.loads(line))}), flush=True)


def _forked(job: dict[str, Any]) -> bool:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _in_the_child(job)
        finally:
            os._exit(code)
    until = time.monotonic() + job["limit_seconds"]
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            # A group of its own: what the tests have started ends with them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(_LOOK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return False


def _in_the_child(job: dict[str, Any]) -> int:
    os.setsid()
    words = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((nothing, 0), (words, 1), (words, 2)):
        os.dup2(ours, standard)
    import pytest

    code = int(pytest.main(job["arguments"]))
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
