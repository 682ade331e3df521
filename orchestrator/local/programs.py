"""A program of ours as a service: its output appears line by line under its name."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from .errors import ProgramUnavailable
from .processes import Command, has_ended, kill, spawn, stop

_READY_SECONDS = 60.0  # a start takes 1 to 2 s here; a cold disk on a busy machine takes many times that
_READY_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 5.0
_LAST_OUTPUT_SECONDS = 1.0  # an ended program's output is read at once, unless a child of it holds the pipe
_CHUNK_BYTES = 65_536
_LONGEST_LINE_BYTES = 16_384  # longer ones are shown in pieces
_LAST_LINES = 5


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """How to run a program: under which name, with which arguments for Python, and when it counts as ready."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    stop_limit_seconds: float
    ready_url: str | None = None
    """Answers without a server error once the program is ready; None: it is ready when it runs."""


class Program:
    """`python <arguments>` as a service. *show* gets its name and each line of its output."""

    def __init__(self, plan: ProgramPlan, show: Callable[[str, str], None]) -> None:
        self._plan = plan
        self._show = show
        self._process: subprocess.Popen[bytes] | None = None
        self._output: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def name(self) -> str:
        """What people call it."""
        return self._plan.name

    @property
    def is_running(self) -> bool:
        """False before the start and once it has ended."""
        return self._process is not None and not has_ended(self._process)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def exit_code(self) -> int | None:
        """What it ended with; minus the signal's number when a signal ended it."""
        return None if self._process is None or not has_ended(self._process) else self._process.returncode

    async def start(self) -> None:
        """Return once the program is ready.

        Raises:
            ProgramUnavailable: it ended before that, or took too long.
        """
        self._last_lines.clear()
        # Killed at once should we be killed: it may be killed at any moment without loss, and nothing is left behind.
        command = Command(
            arguments=[sys.executable, *self._plan.arguments],
            cwd=self._plan.cwd,
            environment=self._plan.environment,
            death_signal=signal.SIGKILL,
        )
        self._process = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._output = asyncio.create_task(self._relay(self._process))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._is_ready():
                    if not self.is_running:
                        await self._read_rest()
                        raise ProgramUnavailable(self.last_words())
                    await asyncio.sleep(_READY_POLL_SECONDS)
        except TimeoutError as exc:
            raise ProgramUnavailable(f"{self.name} is not ready after {_READY_SECONDS:g} s") from exc

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when the limit has passed. Safe to repeat."""
        if self._process is None:
            return
        if not await stop(self._process, signal.SIGTERM, self._plan.stop_limit_seconds):
            self._show(self.name, f"did not stop within {self._plan.stop_limit_seconds:g} s and was killed")
        await self._read_rest()

    def kill(self) -> None:
        """SIGKILL at once."""
        if self._process is not None:
            kill(self._process)

    def last_words(self) -> str:
        """How it ended and the last lines it wrote."""
        code = self.exit_code
        if code is None:
            how = "it runs"
        elif code < 0:
            how = f"ended by {signal.Signals(-code).name}"
        else:
            how = f"exit code {code}"
        return " / ".join((how, *self._last_lines))

    async def _is_ready(self) -> bool:
        if self._plan.ready_url is None:
            return self.is_running
        return await answers(self._plan.ready_url) and self.is_running

    async def _relay(self, process: subprocess.Popen[bytes]) -> None:
        """Show what the program writes, whole lines if they have a reasonable length."""
        if process.stdout is None:
            return
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        pending = b""
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._tell(line)
                if len(pending) > _LONGEST_LINE_BYTES:
                    self._tell(pending)
                    pending = b""
            if pending:
                self._tell(pending)
        finally:
            transport.close()

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._last_lines.append(text)
        self._show(self.name, text)

    async def _read_rest(self) -> None:
        """The output up to its end; not for long, as a stray child may keep the pipe open."""
        output, self._output = self._output, None
        if output is None:
            return
        await asyncio.wait([output], timeout=_LAST_OUTPUT_SECONDS)
        output.cancel()


async def answers(url: str) -> bool:
    """Whether *url* is answered, with anything but a server error."""
    limit = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=limit, trust_env=False) as session, session.get(url) as answer:
            return answer.status < 500
    except (aiohttp.ClientError, TimeoutError):
        return False
