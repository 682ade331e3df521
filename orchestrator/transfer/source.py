"""The delivery host as a source of bytes: ranged reads, and every way in which such a host may lie.

Whether the host honours ranges, gives a length or an ETag is documented nowhere, so each answer
is judged by itself. Nothing of aiohttp leaves this file, and no error is chained to one of its:
their texts quote the address, which may carry a token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)
from yarl import URL

from orchestrator.drivers.egress import (
    MAX_REDIRECTS,
    EgressPolicy,
    PrivateAddressError,
    check_source_address,
    open_session,
)
from orchestrator.drivers.errors import PermanentError, TransientError
from orchestrator.transfer import answers
from orchestrator.transfer.answers import SourceFacts
from orchestrator.transfer.parts import ByteSpan

#: Enough for the size and name of the first box, which tell an MP4 from everything else.
_PROBE_BYTES = 16
_REDIRECTS = {301, 302, 303, 307, 308}
#: Small enough to keep the loop free between two pieces (an MD5 of this takes 0.2 ms), large enough to be few.
_CHUNK_BYTES = 128 * 1024
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """How long the delivery host may be silent."""

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0


class HttpSource:
    """Reads of finished files over HTTP. Safe to share between transfers; close it at the end."""

    def __init__(self, policy: EgressPolicy, limits: SourceLimits | None = None) -> None:
        limits = limits or SourceLimits()
        self._policy = policy
        # No total: a large file takes hours. The transfer has a deadline of its own.
        self._timeout = ClientTimeout(total=None, sock_connect=limits.connect_seconds, sock_read=limits.stall_seconds)
        self._session: ClientSession | None = None

    async def probe(self, address: str) -> SourceFacts:
        """What the host says of the file, and that it starts like an MP4. Reads sixteen bytes.

        Raises:
            TransientError: not there yet, empty, not an MP4, or out of reach.
            PermanentError: refused, or an address that may not be read.
        """
        async with self._answer(address, ByteSpan(0, _PROBE_BYTES), None) as response:
            facts = answers.facts_of(response)
            head = b""
            async for chunk in _pieces(response):
                head += chunk
                if len(head) >= _PROBE_BYTES:
                    break
            answers.check_first_bytes(head)
            return facts

    @asynccontextmanager
    async def read_span(self, address: str, span: ByteSpan, facts: SourceFacts) -> AsyncIterator[AsyncIterator[bytes]]:
        """Exactly the bytes of *span*, of the same file that *facts* are about; anything else raises.

        Raises:
            SourceChangedError: it is another file now.
            RangeIgnoredError: the host sends the whole file; read it with `read_all`.
        """
        async with self._answer(address, span, facts.etag) as response:
            answers.check_span(response, span, facts)
            yield _exactly(response, span.length_bytes)

    @asynccontextmanager
    async def read_all(self, address: str, facts: SourceFacts) -> AsyncIterator[AsyncIterator[bytes]]:
        """The whole file from its start; exactly `facts.size_bytes` bytes where that is known."""
        async with self._answer(address, None, None) as response:
            answers.check_whole(response, facts)
            yield _exactly(response, facts.size_bytes)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _answer(self, address: str, span: ByteSpan | None, etag: str | None) -> AsyncIterator[ClientResponse]:
        headers = {"Accept-Encoding": "identity"}
        if span is not None:
            headers["Range"] = f"bytes={span.start}-{span.last}"
            if etag is not None:
                headers["If-Range"] = etag
        response = await self._follow(address, headers)
        try:
            answers.refuse_failure(response)
            yield response
        finally:
            # Not released: a body left unread would be read to its end to save the connection.
            response.close()

    async def _follow(self, address: str, headers: dict[str, str]) -> ClientResponse:
        """The answer at the end of the redirects, each of which is checked like the first address."""
        if self._session is None:
            self._session = open_session(self._policy, self._timeout, _CONNECTIONS)
        target = check_source_address(address, self._policy)
        for _ in range(MAX_REDIRECTS + 1):
            with _translated():
                response = await self._session.get(target, headers=headers, allow_redirects=False)
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.close()
            target = check_source_address(_joined(target, location), self._policy)
        raise PermanentError("source_redirects", f"The file's address redirects more than {MAX_REDIRECTS} times.")


def _joined(base: URL, location: str) -> str:
    try:
        return str(base.join(URL(location, encoded=True)))
    except ValueError:
        return ""  # refused by the check, like any other text that is no address


async def _pieces(response: ClientResponse) -> AsyncIterator[bytes]:
    with _translated():
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            yield chunk


async def _exactly(response: ClientResponse, length_bytes: int | None) -> AsyncIterator[bytes]:
    """The body, refused as soon as it is longer than *length_bytes*, or if it ends before (None: any length)."""
    seen_bytes = 0
    async for chunk in _pieces(response):
        seen_bytes += len(chunk)
        if length_bytes is not None and seen_bytes > length_bytes:
            raise TransientError("source_longer", f"The source sent more than the {length_bytes} bytes it named.")
        yield chunk
    if length_bytes is not None and seen_bytes < length_bytes:
        raise TransientError("source_cut", f"The source ended after {seen_bytes} of {length_bytes} bytes.")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise TransientError("source_stalled", "The source was silent for too long.") from None
    except ClientPayloadError:
        raise TransientError("source_cut", "The source broke off in the middle.") from None
    except ClientConnectorError as exc:
        if isinstance(exc.os_error, PrivateAddressError):
            raise PermanentError(
                "source_address_not_allowed", "The file's host resolves to an address that is not public."
            ) from None
        raise TransientError("source_unreachable", "The source takes no connection.") from None
    except (ClientError, OSError) as exc:
        raise TransientError("source_unreachable", f"The source broke off ({type(exc).__name__}).") from None
