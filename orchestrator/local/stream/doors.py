"""What every request passes before its route: token, rate limit, faults and CORS, and the log behind it."""

from __future__ import annotations

import asyncio
import hmac

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from orchestrator.local.stream import faults
from orchestrator.local.stream.envelope import (
    NO_ROUTE,
    THROTTLED,
    UNAUTHORIZED,
    UNDOCUMENTED,
    ApiProblem,
    not_found,
)
from orchestrator.local.stream.limiter import Allowance
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.receiving import UploaderGone
from orchestrator.local.stream.store import VideoGone

log = structlog.get_logger(__name__)

API = "/client/v4"
ACCOUNT = f"{API}/accounts/{{account}}"

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": (
        "Location, Upload-Offset, Upload-Length, Upload-Metadata, stream-media-id, Tus-Resumable, Tus-Version, "
        "Tus-Max-Size, Tus-Extension, Content-Length, Content-Range, Accept-Ranges, ETag"
    ),
}
# A day: what browsers cap it at anyway is less.
_PREFLIGHT_SECONDS = "86400"


class Doors:
    """The one middleware: it sends a request through the door of the host it is meant for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def choose(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(f"{API}/"):
                return await self._api(request, handler)
            if request.path.startswith("/stand-in/"):
                return await self._control(request, handler)
            return await self._open(request, handler)

        return choose

    async def _api(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The API host: bearer token, limit, envelope."""
        route = route_of(request)
        allowance: Allowance | None = None
        try:
            self._check_token(request)
            allowance = self._parts.limiter.take()
            if allowance.retry_after_seconds is not None:
                raise ApiProblem(429, THROTTLED, "Please wait and consider throttling your request speed.")
            answer = await self._faulty(route) or await self._answered(request, handler)
        except ApiProblem as problem:
            answer = problem.answer()
        except Exception:
            # The outermost edge: a client gets an envelope whatever broke in here.
            log.exception("A call failed unexpectedly", route=route)
            answer = ApiProblem(500, UNDOCUMENTED, "The stand-in had a problem of its own; see its log.").answer()
        if allowance is not None:
            # A fault may have set its own Retry-After.
            for name, value in self._parts.limiter.headers(allowance).items():
                answer.headers.setdefault(name, value)
        was_limited = allowance is not None and allowance.retry_after_seconds is not None
        self._parts.calls.record(route, answer.status, is_api=True, was_limited=was_limited)
        if self._parts.switches.bite(faults.ApiAnswerLost, route) and request.transport is not None:
            request.transport.abort()
        return answer

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The route's answer, with everything it can foresee as an ApiProblem."""
        try:
            return await handler(request)
        except VideoGone as exc:
            raise not_found() from exc
        except FileNotFoundError as exc:
            # The video was deleted while this request was at work on its bytes.
            if request.match_info.get("uid", "") in self._parts.store:
                raise
            raise not_found() from exc
        except UploaderGone as exc:
            # Nobody is there to read it; the number is for the log.
            raise ApiProblem(400, UNDOCUMENTED, "The upload broke off.") from exc
        except web.HTTPException as exc:
            if not request.path.startswith(f"{API}/"):
                raise
            code = NO_ROUTE if exc.status in (404, 405) else UNDOCUMENTED
            raise ApiProblem(404 if code == NO_ROUTE else exc.status, code, exc.reason) from exc

    def _check_token(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        expected = self._parts.options.api_token
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected.encode()):
            raise ApiProblem(401, UNAUTHORIZED, "Authentication error")
        account = request.match_info.get("account")
        if account not in (None, self._parts.options.account_id):
            raise ApiProblem(404, NO_ROUTE, "Could not route to this address; perhaps the account id is wrong.")

    async def _faulty(self, route: str) -> web.Response | None:
        """The answer a fault gives in the route's place, if one bites."""
        switches = self._parts.switches
        if slow := switches.bite(faults.ApiSlow, route):
            await asyncio.sleep(slow.seconds)
        if refused := switches.bite(faults.ApiRefused, route):
            raise ApiProblem(refused.status, UNAUTHORIZED, "Authentication error")
        if limited := switches.bite(faults.Api429, route):
            headers = {} if limited.retry_after is None else {"Retry-After": str(limited.retry_after)}
            raise ApiProblem(429, THROTTLED, "Please wait and consider throttling your request speed.", headers)
        broken = switches.bite(faults.Api5xx, route)
        if broken is None:
            return None
        if broken.html:
            return web.Response(status=broken.status, text="<html>Bad gateway</html>", content_type="text/html")
        raise ApiProblem(broken.status, UNDOCUMENTED, "The service had a problem; try again.")

    async def _open(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The upload and delivery hosts: no token, any page may ask."""
        if request.method == "OPTIONS":
            answer: web.StreamResponse = web.Response(status=204, headers=_preflight(request, self._parts))
        else:
            try:
                answer = await self._answered(request, handler)
            except ApiProblem as problem:
                answer = problem.answer()
            except web.HTTPException as refusal:
                answer = web.Response(status=refusal.status, text=refusal.text)
        if request.path.startswith(("/upload/", "/tus/")):
            self._parts.calls.record(route_of(request), answer.status, is_api=False)
        return answer

    async def add_cors(self, request: web.Request, answer: web.StreamResponse) -> None:
        """Open hosts let any page read their answers; called when an answer's headers are about to leave."""
        if not request.path.startswith((f"{API}/", "/stand-in/")):
            answer.headers.update(_CORS)

    async def _control(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The controls are for programs and for a person's terminal; no web page may turn them."""
        origin = request.headers.get("Origin")
        if origin not in (None, self._parts.base_url):
            raise web.HTTPForbidden(text="The controls are closed to other pages.")
        return await handler(request)


def route_of(request: web.Request) -> str:
    """The route as the calls log and the faults name it: `GET /stream/{uid}`, `PATCH /tus/{uid}`."""
    resource = request.match_info.route.resource
    path = "(no route)" if resource is None else resource.canonical.removeprefix(ACCOUNT).removeprefix(API)
    return f"{request.method} {path}"


def _preflight(request: web.Request, parts: Parts) -> dict[str, str]:
    asked = request.headers.get("Access-Control-Request-Headers", "*")
    return {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, OPTIONS",
        "Access-Control-Allow-Headers": asked,
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        "Tus-Resumable": "1.0.0",
        "Tus-Version": "1.0.0",
        "Tus-Extension": "creation,expiration",
        "Tus-Max-Size": str(parts.options.file_limit_bytes),
    }
