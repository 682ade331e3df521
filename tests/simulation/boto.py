"""boto3 without sockets: its HTTP session calls the simulated bucket inline."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import botocore.httpsession
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from orchestrator.drivers import object_store
from orchestrator.drivers.object_store_client import ObjectStoreSettings, build_client
from simulation.faults import NoReply, ReplyLost

if TYPE_CHECKING:
    from simulation.bucket import SimulatedBucket

#: How long boto3 waits for an answer, as the product has set it.
_READ_SECONDS = 60.0


def _on_the_loop(seconds: float) -> None:
    """Tell a simulated loop that the thread at work is blocked for so long; others have no way to be told."""
    takes = getattr(asyncio.get_running_loop(), "thread_takes", None)
    if takes is not None:
        takes(seconds)


@contextlib.contextmanager
def boto_through(bucket: SimulatedBucket, takes: Callable[[float], None] = _on_the_loop) -> Iterator[None]:
    """Within, every boto3 client talks to *bucket*: no socket is opened, and one client serves all.

    *takes* is told the seconds for which a call would have blocked its thread: the bucket's latency, what is slow,
    and a minute of waiting for an answer that never comes.
    """

    def send(_: Any, request: Any) -> AWSResponse:
        headers = {name: _text(value) for name, value in request.headers.items()}
        bucket.owed_seconds = bucket.latency()
        try:
            status, answered, content = bucket.handle(request.method, request.url, headers, _bytes(request.body))
        except ReplyLost as lost:
            raise ConnectionClosedError(error=lost, request=request, endpoint_url=request.url) from lost
        except NoReply as silent:
            bucket.owed_seconds += _READ_SECONDS
            raise ReadTimeoutError(endpoint_url=request.url, error=silent) from silent
        finally:
            takes(bucket.owed_seconds)
        if request.method != "HEAD":
            answered.setdefault("Content-Length", str(len(content)))
        return AWSResponse(request.url, status, answered, _Raw(content))

    with (
        mock.patch.object(botocore.httpsession.URLLib3Session, "send", send),
        mock.patch.object(object_store, "build_client", _client),
    ):
        yield


@functools.cache
def _client(settings: ObjectStoreSettings, connections: int) -> Any:
    """One client for all with the same settings: it holds nothing, and takes a tenth of a second to build."""
    return build_client(settings, connections)


class _Raw(io.BytesIO):
    """A body as urllib3 hands it over."""

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield self.read()


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else bytes(body)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
