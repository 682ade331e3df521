"""Who may call: bearer tokens, the signed cookie of the sign-in page, or this machine alone when there are no tokens.

Browsers send cookies, and reach loopback, on behalf of any site. So a call that changes something and is
let in by either must come from a page of ours: ``Sec-Fetch-Site`` or ``Origin`` has to say so. In loopback
mode the ``Host`` header must name loopback, too: a foreign name that resolves to 127.0.0.1 is an attack.

There are two roles. Who comes with one of ``API_READ_TOKENS`` may look at everything and ask for nothing; the pages
show no buttons then, and any call that could change something is refused, whatever it is.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from orchestrator.settings import LOOPBACK_HOSTS, Settings
from orchestrator.web.problems import Problem

SESSION_COOKIE = "orchestrator_session"
# A working day; then the token is asked for again.
SESSION_LIFETIME = timedelta(hours=12)
_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Added by proxies: whoever comes through one does not come from this machine.
_PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class Guard(Enum):
    """How a route is guarded."""

    OPEN = "open"
    TOKEN = "token"  # noqa: S105  (the name of a rule, no secret)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was let in; *scope* tells callers apart without telling their token."""

    scope: str
    by_cookie: bool = False
    may_act: bool = True


def authenticate(request: web.Request, settings: Settings, now: datetime) -> Caller:
    """The caller, or the problem that keeps them out."""
    tokens = known_tokens(settings)
    if not tokens:
        _require_loopback(request)
        require_own_page(request, lenient=True)
        return Caller("loopback")
    caller = _by_token(request, settings, tokens, now)
    if request.method in _UNSAFE and not caller.may_act:
        raise Problem("read-only", "The call asks for something, and the token is one of API_READ_TOKENS")
    return caller


def known_tokens(settings: Settings) -> list[str]:
    """The tokens that let somebody in, in whichever role."""
    return [token.get_secret_value() for token in (*settings.api_tokens, *settings.api_read_tokens)]


@lru_cache(maxsize=8)
def _holders(api_tokens: tuple[SecretStr, ...], read_tokens: tuple[SecretStr, ...]) -> tuple[tuple[bytes, Caller], ...]:
    """Who comes with which token; a token in both lists may act."""
    texts = [(token.get_secret_value(), True) for token in api_tokens]
    texts += [(token.get_secret_value(), False) for token in read_tokens]
    return tuple((_raw(text), Caller(scope_of(text), may_act=may_act)) for text, may_act in texts)


def _by_token(request: web.Request, settings: Settings, tokens: list[str], now: datetime) -> Caller:
    header = request.headers.get("Authorization")
    if header is not None:
        return _by_bearer(header, _holders(settings.api_tokens, settings.api_read_tokens))
    cookie = request.cookies.get(SESSION_COOKIE, "")
    token = read_session(cookie, tokens, now) if cookie else None
    if token is None:
        raise Problem("unauthorized", "No token was sent", headers={"WWW-Authenticate": "Bearer"})
    require_own_page(request, lenient=False)
    may_act = find_token(token, [each.get_secret_value() for each in settings.api_tokens]) is not None
    return Caller(scope_of(token), by_cookie=True, may_act=may_act)


def scope_of(token: str) -> str:
    """A name for whoever holds *token*, from which the token cannot be told."""
    return hashlib.sha256(b"scope:" + token.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def find_token(offered: str, tokens: list[str]) -> str | None:
    """The token that equals *offered*; how long this takes tells nothing about any of them."""
    raw = _raw(offered)
    matches = [hmac.compare_digest(raw, _raw(token)) for token in tokens]
    return next((token for token, equal in zip(tokens, matches, strict=True) if equal), None)


def issue_session(token: str, now: datetime) -> str:
    """A cookie that stands for *token* until it expires; withdrawing the token withdraws it, too."""
    expires = int((now + SESSION_LIFETIME).timestamp())
    claim = f"{expires}.{secrets.token_urlsafe(12)}"
    return f"{claim}.{_seal(token, claim)}"


def read_session(cookie: str, tokens: list[str], now: datetime) -> str | None:
    """The token *cookie* stands for; None when it is forged or has expired."""
    claim, _, seal = cookie.rpartition(".")
    expires, _, _ = claim.partition(".")
    if len(cookie) > 200 or not cookie.isascii() or not expires.isdigit() or len(expires) > 12:
        return None
    matches = [hmac.compare_digest(_seal(token, claim), seal) for token in tokens]
    if int(expires) <= now.timestamp():
        return None
    return next((token for token, equal in zip(tokens, matches, strict=True) if equal), None)


def _seal(token: str, claim: str) -> str:
    key = hashlib.sha256(b"session:" + token.encode("utf-8", "surrogateescape")).digest()
    return hmac.new(key, claim.encode("utf-8"), hashlib.sha256).hexdigest()


def _raw(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")


def _by_bearer(header: str, holders: tuple[tuple[bytes, Caller], ...]) -> Caller:
    scheme, _, offered = header.partition(" ")
    if scheme.lower() == "bearer":
        raw = _raw(offered.strip())
        # Every one is compared: how long this takes tells nothing about any of them.
        found = [caller for token, caller in holders if hmac.compare_digest(raw, token)]
        if found:
            return found[0]
    raise Problem(
        "unauthorized", "The token is not one of ours", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
    )


def is_loopback_host(name: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if name.lower() in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _require_loopback(request: web.Request) -> None:
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback_host(request.remote or "") or not is_loopback_host(host):
        raise Problem("not-from-here", "No API_TOKENS are set, so only 127.0.0.1 and localhost are served")
    if any(name in request.headers for name in _PROXY_HEADERS):
        raise Problem("not-from-here", "No API_TOKENS are set, so calls through a proxy are not served")


def require_own_page(request: web.Request, *, lenient: bool) -> None:
    """Refuse an unsafe call that a browser makes for another site; *lenient* lets programs in, which say nothing."""
    if request.method not in _UNSAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # "none" is a person's own doing: an address typed, a bookmark.
        allowed = site == "same-origin" or (site == "none" and lenient)
    else:
        origin = request.headers.get("Origin")
        allowed = lenient if origin is None else _is_own(origin, request.headers.get("Host", ""))
    if not allowed:
        raise Problem("cross-site", "The call did not come from a page of this service")


def _is_own(origin: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
