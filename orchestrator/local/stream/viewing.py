"""Who may see what on the delivery host: a uid or a token in the path becomes a video, or a refusal."""

from __future__ import annotations

import time

from aiohttp import web

from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.store import VideoGone
from orchestrator.local.stream.tokens import TokenRefused, TokenSigner
from orchestrator.local.stream.videos import Video


class Viewing:
    """Turns the first part of a delivery path into the video that may be shown."""

    def __init__(self, parts: Parts, signer: TokenSigner) -> None:
        self._parts = parts
        self._signer = signer

    def video(self, request: web.Request, *, for_download: bool = False) -> Video:
        """The video, if this request may have it.

        Raises HTTPNotFound, HTTPUnauthorized (a token is missing or wrong), HTTPForbidden (the page or
        the token may not) and 424 for every asset of a video in `error`.
        """
        asset = request.match_info["asset"]
        video = self._by_token(request, asset, for_download) if "." in asset else self._by_uid(asset)
        _check_origin(video, request)
        if video.state == "error":
            raise FailedDependency(text="The video could not be processed.")
        return video

    def _by_uid(self, uid: str) -> Video:
        try:
            video = self._parts.store.get(uid)
        except VideoGone as exc:
            raise web.HTTPNotFound(text="Not Found") from exc
        if video.require_signed_urls:
            raise web.HTTPUnauthorized(text="This video needs a signed token.")
        return video

    def _by_token(self, request: web.Request, token: str, for_download: bool) -> Video:
        try:
            grant = self._signer.check(token, time.time(), request.remote or "127.0.0.1")
            video = self._parts.store.get(grant.sub)
        except TokenRefused as exc:
            raise web.HTTPUnauthorized(text=str(exc)) from exc
        except VideoGone as exc:
            raise web.HTTPNotFound(text="Not Found") from exc
        if for_download and not grant.downloadable:
            raise web.HTTPForbidden(text="The token does not allow downloads.")
        return video


class FailedDependency(web.HTTPClientError):
    """What the delivery host says for assets of a failed video."""

    status_code = 424


def _check_origin(video: Video, request: web.Request) -> None:
    """allowedOrigins binds browsers: they say where they are, other programs do not."""
    origin = request.headers.get("Origin")
    if origin is None or not video.allowed_origins:
        return
    host = origin.partition("://")[2]
    if not any(_is_allowed(host, allowed) for allowed in video.allowed_origins):
        raise web.HTTPForbidden(text="This origin may not show the video.")


def _is_allowed(host: str, allowed: str) -> bool:
    if allowed.startswith("*"):
        return allowed == "*" or host.endswith(allowed[1:])
    return allowed in (host, host.partition(":")[0])
