"""Idempotency-Key: a call that is sent twice makes its thing once, and gets the same answer both times.

The first call claims the key; the transaction that makes the thing keeps the answer, too, so a crash between the
two cannot happen. A call that made nothing (any problem) gives its key back.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web

from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.bodies import MAX_BYTES, decode_object, read_limited
from orchestrator.web.connections import connection_of
from orchestrator.web.edge import CALLER
from orchestrator.web.problems import Problem, invalid
from orchestrator.web.sealing import seal, unseal
from orchestrator.web.views import json_response

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEY_MAX_CHARACTERS = 255
_KEPT = "24 hours"
# Every call is answered or given up well inside a minute: provider 20 s, database 30 s.
_ABANDONED = "60 seconds"
# How long a repeated call waits for the first one's answer before it is told to come again.
_WAIT_SECONDS = 5.0
_LOOK_EVERY_SECONDS = 0.05

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# claim: a key that is free, has expired, or was abandoned by a process that died
_CLAIM = f"""
INSERT INTO idempotency_keys AS k (scope, key_sha256, call_sha256) VALUES ($1, $2, $3)
ON CONFLICT (scope, key_sha256) DO UPDATE
   SET call_sha256 = excluded.call_sha256, claimed_at = clock_timestamp(), status = NULL, answer = NULL
 WHERE k.claimed_at < clock_timestamp() - interval '{_KEPT}'
    OR (k.status IS NULL AND k.call_sha256 = excluded.call_sha256
        AND k.claimed_at < clock_timestamp() - interval '{_ABANDONED}')
RETURNING claimed_at
"""
_READ = "SELECT call_sha256, status, answer FROM idempotency_keys WHERE scope = $1 AND key_sha256 = $2"
# keep: only by whoever holds the claim; the time is its proof
_KEEP = """
UPDATE idempotency_keys SET status = $4, answer = $5
 WHERE scope = $1 AND key_sha256 = $2 AND claimed_at = $3 AND status IS NULL
RETURNING true
"""
_GIVE_BACK = """
DELETE FROM idempotency_keys WHERE scope = $1 AND key_sha256 = $2 AND claimed_at = $3 AND status IS NULL
"""
# forget: a few with each claim, so that the table never holds much more than a day. The time of the statement, which an
# index can be asked for: by the clock of each row every claim would read the whole day.
_FORGET = f"""
DELETE FROM idempotency_keys WHERE (scope, key_sha256) IN (
    SELECT scope, key_sha256 FROM idempotency_keys WHERE claimed_at < statement_timestamp() - interval '{_KEPT}'
     ORDER BY claimed_at LIMIT 20 FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call that made something answers."""

    document: Mapping[str, Any]
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """As it goes to the caller."""
        return json_response(self.document, self.status, self.headers)


@dataclass(frozen=True, slots=True)
class Claim:
    """One key held by one call."""

    scope: str
    key_sha256: bytes
    call_sha256: bytes
    secret: bytes
    claimed_at: Any = None

    async def keep(self, connection: asyncpg.Connection, answer: Answer) -> None:
        """Keep the answer, in the transaction that makes what it speaks of."""
        plain = json.dumps({"headers": dict(answer.headers), "document": answer.document}).encode()
        sealed = seal(self.secret, plain)
        kept = await connection.fetchval(_KEEP, self.scope, self.key_sha256, self.claimed_at, answer.status, sealed)
        if not kept:
            raise Problem("same-key-under-way", "Another call took this Idempotency-Key over")


_CLAIM_KEY = web.RequestKey("claim", Claim)


def once(handler: Handler) -> Handler:
    """*handler*, made once per Idempotency-Key; without the header it is called as ever."""

    @functools.wraps(handler)
    async def answer_once(request: web.Request) -> web.StreamResponse:
        if HEADER not in request.headers:
            return await handler(request)
        claim = await _claim_for(request)
        if isinstance(claim, web.Response):
            return claim
        request[_CLAIM_KEY] = claim
        try:
            return await handler(request)
        except BaseException:
            await asyncio.shield(_give_back(request, claim))
            raise

    return answer_once


def has_key(request: web.Request) -> bool:
    """Whether an answer has to be kept beside what the call makes."""
    return _CLAIM_KEY in request


async def keep_answer(request: web.Request, connection: asyncpg.Connection, answer: Answer) -> None:
    """Keep *answer* under the call's key, if it has one; *connection* is in the transaction that makes the thing."""
    claim = request.get(_CLAIM_KEY)
    if claim is not None:
        await claim.keep(connection, answer)


@asynccontextmanager
async def making(request: web.Request) -> AsyncIterator[asyncpg.Connection]:
    """A connection to make the thing with: in a transaction where an answer has to be kept beside it.

    Without a key one statement makes it, and needs no further round trips.
    """
    async with connection_of(request) as connection:
        if not has_key(request):
            yield connection
            return
        async with connection.transaction():
            yield connection


async def _claim_for(request: web.Request) -> Claim | web.Response:
    """The key for this call, or the answer it already has."""
    wanted = _wanted(request, await read_limited(request, MAX_BYTES))
    deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
    while True:
        async with connection_of(request) as connection:
            claimed_at = await connection.fetchval(_CLAIM, wanted.scope, wanted.key_sha256, wanted.call_sha256)
            if claimed_at is not None:
                await connection.execute(_FORGET)
                return Claim(wanted.scope, wanted.key_sha256, wanted.call_sha256, wanted.secret, claimed_at)
            row = await connection.fetchrow(_READ, wanted.scope, wanted.key_sha256)
        if row is not None:
            if row["call_sha256"] != wanted.call_sha256:
                raise Problem("reused-key", "The key belongs to a call with another address or body")
            if row["status"] is not None:
                return _replay(wanted, row)
        if asyncio.get_running_loop().time() > deadline:
            raise Problem(
                "same-key-under-way", "The first call with this key is not answered yet", headers={"Retry-After": "1"}
            )
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _wanted(request: web.Request, raw: bytes) -> Claim:
    key = request.headers[HEADER]
    if not key or len(key) > _KEY_MAX_CHARACTERS or not key.isprintable() or not key.isascii():
        raise invalid(HEADER, f"must be 1 to {_KEY_MAX_CHARACTERS} printable ASCII characters", key)
    if len(request.headers.getall(HEADER)) > 1:
        raise invalid(HEADER, "must stand there once")
    body = json.dumps(decode_object(raw) if raw.strip() else {}, sort_keys=True).encode()
    call = f"{request.method} {request.path}\n".encode() + body
    scope = request[CALLER].scope
    secret = hashlib.sha256(
        f"{scope}\n{request.headers.get('Authorization', '')}\n{key}".encode("utf-8", "surrogateescape")
    )
    return Claim(scope, hashlib.sha256(key.encode()).digest(), hashlib.sha256(call).digest(), secret.digest())


def _replay(wanted: Claim, row: Mapping[str, Any]) -> web.Response:
    plain = unseal(wanted.secret, row["answer"])
    if plain is None:
        raise Problem("reused-key", "The key was first used with another token")
    kept = json.loads(plain)
    return json_response(kept["document"], row["status"], {**kept["headers"], REPLAYED: "true"})


async def _give_back(request: web.Request, claim: Claim) -> None:
    try:
        async with connection_of(request) as connection:
            await connection.execute(_GIVE_BACK, claim.scope, claim.key_sha256, claim.claimed_at)
    except DATABASE_AWAY:
        return  # it counts as abandoned after a minute
