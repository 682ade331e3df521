"""One row of the route table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from orchestrator.web.access import Guard

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter, and the JSON schema of its value."""

    name: str
    text: str
    schema: dict[str, object]
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One address. *success* is the usual answer's status and shape, *problems* the codes it may refuse with."""

    method: str
    path: str
    handler: Handler
    summary: str
    guard: Guard = Guard.TOKEN
    body: tuple[type[BaseModel], ...] = ()
    body_required: bool = True
    success: tuple[int, type[BaseModel] | None] = (200, None)
    media_type: str = "application/json"
    parameters: tuple[Parameter, ...] = ()
    once: bool = False
    etag: bool = False
    problems: tuple[str, ...] = ()
    # Its body is a file, bounded by its handler and never held whole.
    takes_file: bool = False
    # Pages and files are for browsers; the reference of the API leaves them out.
    is_api: bool = True

    @property
    def template(self) -> str:
        """The path as the reference writes it, without the patterns of the router."""
        return self.path.replace("{id:.*}", "{id}")
