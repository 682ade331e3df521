"""A bucket on this machine: rclone speaks S3 over a directory, and serves the same files to everybody who reads.

Two small servers on loopback, as with R2: one takes signed requests only, the other is the public address that a
browser plays from. The objects are ordinary files:

    objects/clips/…         one directory per bucket
    s3.log, public.log      what the servers say, of this run and the one before
    lock                    held as long as a process of ours uses the directory

    async with EmbeddedBucket(Path("/srv/demo/bucket"), BucketOptions("key", "secret", "clips")) as bucket:
        print(bucket.endpoint_url, bucket.public_url)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import structlog

from .errors import BucketUnavailable
from .locks import DirectoryLock
from .processes import Command, has_ended, kill, spawn, stop
from .programs import answers
from .rclone import find_rclone
from .server_logs import rotate, tail

_START_SECONDS = 30.0  # takes 0.2 s; the same cold disk
_STOP_SECONDS = 2.5  # takes 0.05 s; nothing is lost by a kill but uploads that no restart would keep
_POLL_SECONDS = 0.02
_ADDRESS = re.compile(r"(?:Starting|started) .*\[(http://[^/\]]+)")

# What a server that was killed left of unfinished uploads; nobody can go on with them (rclone's documentation).
_LEFTOVERS = (".rclone_temp_*", ".rclone_multipart_upload_*")

_SHORTEST_KEY = 3  # with 2, rclone answers InvalidAccessKeyId (seen with 1.75.2)
# R2's own rule; it also keeps the name from being anything but one directory.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """What the bucket is called, who may write, and where it listens (port 0: any free one)."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    name: str
    host: str = "127.0.0.1"
    port: int = 0
    public_port: int = 0
    rclone: Path | None = None
    """The program; None looks for one."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("a bucket's name is 3 to 63 small letters, digits and dashes")
        if any("," in key for key in (self.access_key_id, self.secret_access_key)):
            raise ValueError("rclone takes no comma in an access key or its secret")
        if len(self.access_key_id) < _SHORTEST_KEY:
            raise ValueError(f"rclone knows no access key of fewer than {_SHORTEST_KEY} characters")


class EmbeddedBucket:
    """One bucket over one directory. To be started and stopped on the main thread."""

    def __init__(self, directory: Path, options: BucketOptions) -> None:
        self._directory = directory
        self._options = options
        self._lock = contextlib.ExitStack()
        self._writing: _Server | None = None
        self._reading: _Server | None = None

    async def __aenter__(self) -> EmbeddedBucket:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def name(self) -> str:
        """What people call it."""
        return "bucket"

    @property
    def endpoint_url(self) -> str:
        """Where S3 is spoken, for signed requests."""
        return _started(self._writing).url

    @property
    def public_url(self) -> str:
        """The base of the finished objects' addresses, for reading only; a key follows after a slash."""
        return f"{_started(self._reading).url}/{quote(self._options.name)}"

    @property
    def is_running(self) -> bool:
        """Whether both servers live."""
        return all(server is not None and not has_ended(server.process) for server in (self._writing, self._reading))

    @property
    def exit_code(self) -> int | None:
        """None: the servers' exit codes mean nothing to us."""
        return None

    def last_words(self) -> str:
        """The last lines of the logs."""
        logs = (self._directory / "s3.log", self._directory / "public.log")
        return " / ".join(tail(log_file) for log_file in logs if log_file.exists())

    async def start(self) -> None:
        """Return once both servers answer and the bucket exists.

        Raises:
            NotInstalled: there is no rclone here.
            BucketUnavailable: it does not start; the text says why.
            DirectoryInUse: another process serves this directory.
        """
        rclone = find_rclone(self._options.rclone)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._lock.enter_context(DirectoryLock(self._directory))
            objects = self._directory.resolve() / "objects"
            _prepare(objects, self._options.name)
            self._writing = await self._serve_writing(rclone, objects)
            self._reading = await self._serve_reading(rclone, objects)
        except BaseException:
            self.kill()
            self._forget()
            raise
        _log.info("the bucket is ready", endpoint=self.endpoint_url, public=self.public_url)

    async def stop(self) -> None:
        """Return once both servers have ended. Safe to repeat."""
        running = [server.process for server in (self._writing, self._reading) if server is not None]
        try:
            await asyncio.gather(*(stop(process, signal.SIGTERM, _STOP_SECONDS) for process in running))
        finally:
            self._forget()

    def kill(self) -> None:
        """End both servers at once and wait for nothing."""
        for server in (self._writing, self._reading):
            if server is not None:
                kill(server.process)

    def _forget(self) -> None:
        self._writing = self._reading = None
        self._lock.close()

    async def _serve_writing(self, rclone: Path, objects: Path) -> _Server:
        # In the environment, as the arguments of a process are for everybody to see.
        keys = ",".join((self._options.access_key_id, self._options.secret_access_key))
        environment = {"RCLONE_AUTH_KEY": '"' + keys.replace('"', '""') + '"'}
        arguments = [str(rclone), "serve", "s3", "--addr", f"{self._options.host}:{self._options.port}", str(objects)]
        return await _launch(arguments, environment, self._directory / "s3.log")

    async def _serve_reading(self, rclone: Path, objects: Path) -> _Server:
        address = f"{self._options.host}:{self._options.public_port}"
        arguments = [str(rclone), "serve", "http", "--read-only", "--addr", address]
        # Without its memory of directories, which would hide a new object for minutes.
        arguments += ["--dir-cache-time", "0s", "--poll-interval", "0s", str(objects)]
        return await _launch(arguments, {}, self._directory / "public.log")


@dataclass(frozen=True, slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    url: str


def _prepare(objects: Path, name: str) -> None:
    """Make the bucket's directory, and clear away what a killed server left of unfinished uploads."""
    (objects / name).mkdir(parents=True, exist_ok=True)
    for pattern in _LEFTOVERS:
        for leftover in objects.rglob(pattern):
            leftover.unlink(missing_ok=True)


async def _launch(arguments: list[str], environment: Mapping[str, str], log_file: Path) -> _Server:
    """Start rclone and wait until it names its address and answers there."""
    rotate(log_file)
    # No configuration of the user's, in a file or in variables: it would change what is served.
    command = Command(
        arguments=[*arguments, "--config", "", "--log-format", "date,time"],
        cwd=log_file.parent,
        death_signal=signal.SIGKILL,
        environment={"PATH": os.defpath, "HOME": str(log_file.parent), **environment},
    )
    with log_file.open("ab") as output:
        process = spawn(command, stdout=output, stderr=output)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while (url := _announced(log_file)) is None or not await answers(url):
                if has_ended(process):
                    raise BucketUnavailable(f"rclone does not start ({log_file}): {tail(log_file)}")
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as exc:
        kill(process)
        raise BucketUnavailable(f"rclone did not start in time ({log_file}): {tail(log_file)}") from exc
    except BaseException:
        kill(process)
        raise
    return _Server(process, url)


def _announced(log_file: Path) -> str | None:
    """The address that rclone says it listens on; with port 0 the only way to know."""
    found = _ADDRESS.search(log_file.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None


def _started(server: _Server | None) -> _Server:
    if server is None:
        raise RuntimeError("the bucket has no address before it is started")
    return server
