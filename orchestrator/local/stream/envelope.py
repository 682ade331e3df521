"""The API's envelope: `{"result", "success", "errors", "messages"}`, and problems that become one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

BAD_REQUEST = 10005
NOT_FOUND = 10003
INVALID_URL = 10010
NOT_A_VIDEO = 10059
STILL_LIVE = 10046
NO_ROUTE = 7003
UNAUTHORIZED = 10000
THROTTLED = 971
# Where Cloudflare documents no number, the smallest its schema allows stands in: nothing may depend on it.
UNDOCUMENTED = 1000


class ApiProblem(Exception):
    """An answer that is not a success; the middleware writes it as an envelope."""

    def __init__(self, status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        errors = [{"code": self.code, "message": self.message}]
        body = {"result": None, "success": False, "errors": errors, "messages": []}
        return web.json_response(body, status=self.status, headers=self.headers)


def success(result: Any, **beside: Any) -> web.Response:
    """200 with *result*; *beside* stands next to it (`total`, `range`)."""
    return web.json_response({"result": result, "success": True, "errors": [], "messages": [], **beside})


def bad_request(message: str) -> ApiProblem:
    return ApiProblem(400, BAD_REQUEST, message)


def not_found(message: str = "Not Found") -> ApiProblem:
    return ApiProblem(404, NOT_FOUND, message)


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object whatever its Content-Type says; an empty body is `{}`. Raises ApiProblem."""
    try:
        raw = await request.read()
        body = json.loads(raw) if raw.strip() else {}
    except ValueError as exc:
        raise bad_request("The body is not JSON.") from exc
    if not isinstance(body, dict):
        raise bad_request("The body is not a JSON object.")
    return body
