"""One call to the Cloudflare API: counted, bounded in time and size, repeated only where that is safe.

Every try takes its place in the call budget. A 429 is never repeated here: the budget goes quiet, for all
processes. Nothing of aiohttp leaves this file.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from orchestrator.drivers import provider_metrics
from orchestrator.drivers.budget import BLOCK_SECONDS, CallBudget, CallClass
from orchestrator.drivers.call_log import CallNote
from orchestrator.drivers.cloudflare_answers import (
    Answer,
    Operation,
    RateLimitedError,
    RepeatableError,
    Reply,
    no_answer,
    read_answer,
)
from orchestrator.drivers.cloudflare_models import is_uid
from orchestrator.drivers.errors import DriverError, TransientError
from orchestrator.drivers.fencing import changing
from orchestrator.drivers.rate_headers import retry_after_seconds

log = structlog.get_logger(__name__)

API_URL = "https://api.cloudflare.com/client/v4"
# A list of 1,000 videos has 2 to 3 MB. What is larger is not an answer.
ANSWER_MAX_BYTES = 8 * 1024 * 1024
# What stands below `/stream` and is no video.
_NO_VIDEOS = frozenset({"copy", "direct_upload", "storage-usage", "webhook"})
_VIDEO = re.compile(r"/stream/([A-Za-z0-9_-]{1,64})(?:/|$)")
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")


@dataclass(frozen=True, slots=True)
class CloudflareSettings:
    """Whose videos, where, and how long to wait for them."""

    account_id: str
    api_token: str = field(repr=False)
    api_url: str = API_URL
    # A connection takes milliseconds; the list of a large library some seconds.
    connect_timeout_seconds: float = 5.0
    total_timeout_seconds: float = 30.0
    # Of calls that are safe to repeat. Two repeats outlast a restart at the other end, more is for the caller.
    tries: int = 3
    first_pause_seconds: float = 0.5

    def __post_init__(self) -> None:
        address = urlsplit(self.api_url)
        if not _ACCOUNT_ID.fullmatch(self.account_id):
            raise ValueError("the account's id has letters it cannot have")
        if not _TOKEN.fullmatch(self.api_token):
            raise ValueError("the API token is empty or has letters that no header carries")
        if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc or address.query:
            raise ValueError("the API's address must be http or https, without user name and query")


class CloudflareCalls:
    """The way to the API for one account. Make it inside a running loop, and close it."""

    def __init__(
        self,
        settings: CloudflareSettings,
        budget: CallBudget,
        jitter: Callable[[], float] = random.random,
        on_call: Callable[[CallNote], None] = lambda call: None,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._jitter = jitter
        self._on_call = on_call
        self._base_url = f"{settings.api_url.rstrip('/')}/accounts/{settings.account_id}"
        self._session = aiohttp.ClientSession(
            # No proxy and no password file from the environment: the token goes where the settings say.
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_only_once,),
            headers={"Authorization": f"Bearer {settings.api_token}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(
                total=settings.total_timeout_seconds,
                connect=settings.connect_timeout_seconds,
                sock_connect=settings.connect_timeout_seconds,
            ),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def headroom(self) -> float:
        """The share of the call budget that is left, 0 to 1."""
        return self._budget.headroom()

    async def call(
        self,
        operation: Operation,
        path: str,
        call_class: CallClass,
        *,
        query: Mapping[str, str] | None = None,
        payload: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """What the API answers to *operation* at *path*, which begins below the account.

        Raises:
            TransientError, PermanentError: with the codes of `cloudflare_answers`, and `call_budget`.
            DatabaseAwayError: the call could not be counted, and was not made.

        What changes something is refused, as `fencing` says, when whoever asked may not do so any more.
        """
        request = _Request(f"{self._base_url}{path}", query, payload, headers, uid=_uid_in(path))
        if not operation.repeatable:
            return await self._once(operation, request, call_class)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RepeatableError),
            stop=stop_after_attempt(self._settings.tries),
            wait=self._pause_seconds,
            reraise=True,
        )
        return await retrying(self._once, operation, request, call_class)

    async def _once(self, operation: Operation, request: _Request, call_class: CallClass) -> Answer:
        """One try: one place in the budget, one request."""
        asked_at = asyncio.get_running_loop().time()
        await self._budget.take(call_class)
        if operation.method == "GET":
            return await self._sent(operation, request, call_class, asked_at)
        with changing():
            return await self._sent(operation, request, call_class, asked_at)

    async def _sent(self, operation: Operation, request: _Request, call_class: CallClass, asked_at: float) -> Answer:
        clock = asyncio.get_running_loop().time
        begun_at = clock()
        status, code, uid = "none", None, request.uid
        try:
            reply = await self._send(operation, request)
            status = str(reply.status)
            answer = await self._judge(operation, reply)
            uid = uid or _uid_made(operation, answer)
            return answer
        except DriverError as problem:
            code = problem.code
            log.warning("a call to the provider failed", operation=operation.name, status=status, code=problem.code)
            raise
        finally:
            provider_metrics.calls_made().labels(operation.name, call_class.value, status).inc()
            if uid is not None:
                self._on_call(
                    CallNote(
                        cloudflare_uid=uid,
                        at=datetime.now(UTC),
                        operation=operation.name,
                        call_class=call_class.value,
                        try_number=next(request.tries),
                        waited_ms=round((begun_at - asked_at) * 1000),
                        took_ms=round((clock() - begun_at) * 1000),
                        http_status=int(status) if status != "none" else None,
                        problem=code,
                    )
                )

    async def _judge(self, operation: Operation, reply: Reply) -> Answer:
        """The answer's meaning, after the budget has learned from it."""
        try:
            answer = read_answer(operation, reply)
        except RateLimitedError as problem:
            await self._budget.learn(429, reply.headers)
            wait_seconds = reply.retry_after or BLOCK_SECONDS
            raise TransientError(problem.code, problem.text, wait_seconds) from None
        except DriverError:
            await self._learn(reply)
            raise
        await self._learn(reply)
        return answer

    async def _learn(self, reply: Reply) -> None:
        # A 429 that comes here is about videos, not about calls.
        if reply.status != 429:
            await self._budget.learn(reply.status, reply.headers)

    async def _send(self, operation: Operation, request: _Request) -> Reply:
        try:
            async with self._session.request(
                operation.method,
                request.url,
                params=request.query,
                data=None if request.payload is None else json.dumps(request.payload).encode(),
                headers=request.all_headers(),
                allow_redirects=False,
            ) as response:
                headers = response.headers
                body = await self._read(operation, response)
                return Reply(response.status, headers, body, retry_after_seconds(headers, time.time()))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            # Nothing was sent, so this is no doubtful outcome even of a call that creates.
            kind = RepeatableError if operation.repeatable else TransientError
            raise kind("provider_unavailable", f"{operation.name}: the provider cannot be reached") from exc
        except TimeoutError as exc:
            raise no_answer(operation, "provider_timeout", f"{operation.name}: no answer in time") from exc
        except (aiohttp.ClientError, OSError, ValueError):
            # Without the original: some of aiohttp's errors carry the request's headers, with the token in them.
            sentence = f"{operation.name}: the connection broke"
            raise no_answer(operation, "provider_unavailable", sentence) from None

    async def _read(self, operation: Operation, response: aiohttp.ClientResponse) -> bytes:
        """The body, without the token should somebody echo it. That of a 429 may break: its status says enough."""
        parts: list[bytes] = []
        size = 0
        try:
            async for part in response.content.iter_chunked(64 * 1024):
                parts.append(part)
                size += len(part)
                if size > ANSWER_MAX_BYTES:
                    raise no_answer(operation, "provider_unavailable", f"{operation.name}: the answer is too large")
        except (aiohttp.ClientError, OSError, DriverError):
            if response.status != 429:
                raise
            return b""
        return b"".join(parts).replace(self._settings.api_token.encode(), b"(token)")

    def _pause_seconds(self, state: RetryCallState) -> float:
        """Doubling, spread over its upper half so that many callers do not come back as one; or as was asked."""
        pause = self._settings.first_pause_seconds * 2.0 ** (state.attempt_number - 1) * (0.5 + self._jitter() / 2)
        failure = state.outcome.exception() if state.outcome is not None else None
        asked = failure.retry_after if isinstance(failure, TransientError) else None
        return max(pause, asked or 0.0)


class _BrokenError(OSError):
    """The connection broke before an answer came."""


async def _only_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a GET, PUT or DELETE again by itself when a connection breaks: that would be a
    call nobody counted. An error it does not know passes through its own repetition."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise _BrokenError from None


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, the same in every try."""

    url: str
    query: Mapping[str, str] | None
    payload: Mapping[str, Any] | None = field(repr=False)
    headers: Mapping[str, str] | None
    # The video it is about, None where it is about several or none yet.
    uid: str | None = None
    tries: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    def all_headers(self) -> dict[str, str]:
        json_type = {} if self.payload is None else {"Content-Type": "application/json"}
        return {**json_type, **(self.headers or {})}


def _uid_in(path: str) -> str | None:
    """The video that a call to *path* is about."""
    found = _VIDEO.match(path)
    return found.group(1) if found and found.group(1) not in _NO_VIDEOS else None


def _uid_made(operation: Operation, answer: Answer) -> str | None:
    """The video that a call has made."""
    if not operation.creates:
        return None
    uid = answer.result.get("uid") if isinstance(answer.result, dict) else (answer.headers or {}).get("stream-media-id")
    return uid if is_uid(uid) else None
