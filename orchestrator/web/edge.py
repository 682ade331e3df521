"""The outermost edge of every call: request id, guard, security headers, and whatever goes wrong told as a problem."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from time import perf_counter

import asyncpg
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from orchestrator.drivers.errors import DatabaseAwayError, PermanentError, TransientError
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.web.access import Caller, Guard, authenticate
from orchestrator.web.bodies import MAX_BYTES
from orchestrator.web.metrics import METRICS
from orchestrator.web.pages.problem_page import problem_page, wants_page
from orchestrator.web.problems import Fault, Problem, problem_response, shorten
from orchestrator.web.security import api_headers, page_headers
from orchestrator.web.services import services_of
from orchestrator.web.sharing import TooManyWaiting
from signals import ClipHeld, DetailsNotAccepted, TooManySignals, UnknownClip

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
# By method and template; whatever is not in it is guarded by a token.
GUARDS: web.AppKey[dict[str, Guard]] = web.AppKey("guards", dict)

# Also the database's doing: it is read-only after a failover, full, or gave up on a tangle. Later may help.
_AWAY = (
    *DATABASE_AWAY,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.OperatorInterventionError,
)
_NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
# Long enough for a restart of the database to end, short enough for a person to wait.
_RETRY_AFTER_SECONDS = "5"
_LATER = {"Retry-After": _RETRY_AFTER_SECONDS}


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every call, with a problem document if with nothing better."""
    started = perf_counter()
    request_id = secrets.token_hex(8)
    request[REQUEST_ID] = request_id
    route = route_template(request)
    # Not undone at the end: the connection's next call binds its own.
    structlog.contextvars.bind_contextvars(request_id=request_id)
    try:
        response = await _answer(request, handler)
    except Problem as problem:
        response = _told(request, problem)
    if not response.prepared:
        _add_headers(request, response)
    request.app[METRICS].observe_request(route, request.method, response.status, perf_counter() - started)
    return response


async def expect_file(request: web.Request) -> web.Response | None:
    """The same where a file is to come: how large it may be, its handler knows."""
    return await expect(request, most_bytes=None)


async def expect(request: web.Request, most_bytes: int | None = MAX_BYTES) -> web.Response | None:
    """Answer an ``Expect`` header before the body is sent; None when it may come."""
    expected = request.headers.get("Expect", "")
    if expected.lower() != "100-continue":
        fault = Fault("Expect", "must be 100-continue", shorten(expected))
        return _at_the_door(request, Problem("expectation-failed", "Only 100-continue is known here", [fault]))
    if most_bytes is not None and (request.content_length or 0) > most_bytes:
        return _at_the_door(request, Problem("too-large", f"The body has more than {most_bytes} bytes"))
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # What was written is not part of the answer that follows.
    request.writer.output_size = 0
    return None


def _at_the_door(request: web.Request, problem: Problem) -> web.Response:
    response = problem_response(problem, request.path, secrets.token_hex(8))
    response.headers.update(api_headers())
    response.force_close()
    return response


def route_template(request: web.Request) -> str:
    """The route's own spelling, ids left open; one word for all that have no route."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, every failure of it turned into a problem."""
    try:
        _let_in(request)
        _refuse_coded_bodies(request)
        return await handler(request)
    except Problem:
        raise
    except web.HTTPException as answer:
        if answer.status < 400:
            return answer
        raise _from_http(request, answer) from answer
    except UnknownClip as problem:
        raise Problem("unknown-clip", f"No clip has the id {shorten(problem.clip_id)}") from problem
    except DetailsNotAccepted as problem:
        raise Problem("invalid", str(problem), [Fault("details", str(problem))]) from problem
    except TooManySignals as problem:
        raise Problem("too-many-signals", str(problem), headers=_LATER) from problem
    except TooManyWaiting as problem:
        raise Problem("too-busy", "Too many calls wait for the database; nothing was done", headers=_LATER) from problem
    except ClipHeld as problem:
        raise Problem("too-busy", "The signal was not recorded", headers=_LATER) from problem
    except DatabaseAwayError as problem:
        raise Problem("database-away", problem.text, headers=_LATER) from problem
    except TransientError as problem:
        seconds = str(max(1, round(problem.retry_after or 5)))
        raise Problem("provider-away", f"{problem.code}: {problem.text}", headers={"Retry-After": seconds}) from problem
    except PermanentError as problem:
        raise Problem("provider-refused", f"{problem.code}: {problem.text}") from problem
    except _NOT_MIGRATED as problem:
        log.error("the database lacks what this program needs", reason=type(problem).__name__)
        raise Problem("not-ready-yet", "The database is not migrated; run `orchestrator migrate`") from problem
    except _AWAY as problem:
        log.warning("the database is out of reach", reason=type(problem).__name__)
        raise Problem("database-away", "The database did not answer", headers=_LATER) from problem
    except HttpProcessingError as problem:
        raise Problem("bad-request", "The request broke off or is malformed") from problem
    except Exception as problem:
        log.exception("a call failed", method=request.method, route=route_template(request))
        raise Problem("internal", "The call failed; the log has the reason under the request id") from problem


def _let_in(request: web.Request) -> None:
    if isinstance(request.match_info.http_exception, web.HTTPMethodNotAllowed):
        return  # nothing will be done, and which methods there are is in the public reference
    method = "GET" if request.method == "HEAD" else request.method
    if request.app[GUARDS].get(f"{method} {route_template(request)}", Guard.TOKEN) is Guard.OPEN:
        return
    services = services_of(request)
    request[CALLER] = authenticate(request, services.settings, services.now())


def may_act(request: web.Request) -> bool:
    """Whether the caller may ask for anything: pages show no buttons to those who may only look."""
    caller = request.get(CALLER)
    return caller is not None and caller.may_act


def _refuse_coded_bodies(request: web.Request) -> None:
    # Sixteen kilobytes on the wire can become half a gigabyte; nobody has a reason to compress a call.
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(
            "unsupported-media",
            "Compressed bodies are not taken",
            [Fault("Content-Encoding", "must be identity", shorten(coding))],
            headers={"Connection": "close"},
        )


def _from_http(request: web.Request, answer: web.HTTPException) -> Problem:
    if isinstance(answer, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(answer.allowed_methods))
        return Problem(
            "method-not-allowed", f"{answer.method} is not taken; allowed are {allow}", headers={"Allow": allow}
        )
    if isinstance(answer, web.HTTPNotFound):
        return Problem("not-found", f"There is nothing at {shorten(request.path)}")
    if isinstance(answer, web.HTTPRequestEntityTooLarge):
        return Problem("too-large", "The body is too large", headers={"Connection": "close"})
    return Problem("bad-request", answer.reason)


def _told(request: web.Request, problem: Problem) -> web.Response:
    if wants_page(request):
        return problem_page(request, problem, request[REQUEST_ID])
    return problem_response(problem, request.path, request[REQUEST_ID])


def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    settings = services_of(request).settings
    headers = response.headers
    is_page = headers.get("Content-Type", "").startswith("text/html")
    for name, value in (page_headers(settings) if is_page else api_headers()).items():
        headers.setdefault(name, value)
    headers["X-Request-Id"] = request[REQUEST_ID]
