"""The API's other calls: downloads, tokens, the webhook, storage, and whether the token is right."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from aiohttp import web

from orchestrator.local.stream import faults
from orchestrator.local.stream.envelope import INVALID_URL, ApiProblem, bad_request, json_object, not_found, success
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.tokens import TokenSigner, grant_from
from orchestrator.local.stream.videos import DOWNLOAD_TYPES, downloads_object


class DownloadCalls:
    """Routes under /stream/{uid}/downloads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def enable(self, request: web.Request) -> web.Response:
        """POST: begins once the video plays; repeating it changes nothing."""
        video = self._parts.store.get(request.match_info["uid"])
        kind = _kind(request)
        if not video.is_playable:
            raise bad_request("The video is not ready to stream.")
        result = downloads_object(self._parts.downloads.enable(video.uid, kind), self._parts.base_url)
        if self._parts.switches.bite(faults.DownloadsFlat, "POST /stream/{uid}/downloads"):
            return success(result[kind])
        return success(result)

    async def get(self, request: web.Request) -> web.Response:
        """GET: by type, `{}` when none was asked for."""
        video = self._parts.store.get(request.match_info["uid"])
        if not video.downloads and (fault := self._parts.switches.bite(faults.DownloadsNone, _GET_DOWNLOADS)):
            if fault.shape == "404":
                raise not_found("No downloads")
            return success(None)
        return success(downloads_object(video, self._parts.base_url))

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE: stops offering the file; 404 when it was never asked for."""
        try:
            await self._parts.downloads.remove(request.match_info["uid"], _kind(request))
        except KeyError as exc:
            raise not_found("No such download") from exc
        return success("")


class TokenCalls:
    """POST /stream/{uid}/token"""

    def __init__(self, parts: Parts, signer: TokenSigner) -> None:
        self._parts = parts
        self._signer = signer

    async def issue(self, request: web.Request) -> web.Response:
        video = self._parts.store.get(request.match_info["uid"])
        grant = grant_from(video.uid, await json_object(request), time.time())
        return success({"token": self._signer.issue(grant)})


class WebhookCalls:
    """Routes under /stream/webhook."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.webhooks.settings

    async def get(self, _request: web.Request) -> web.Response:
        if self._settings.current is None:
            raise not_found("No webhook is set")
        return success(self._settings.current.as_json())

    async def put(self, request: web.Request) -> web.Response:
        """Another address brings another secret. Local addresses are welcome here, unlike at Cloudflare."""
        body = await json_object(request)
        url = body.get("notificationUrl", body.get("notification_url"))
        if not isinstance(url, str):
            raise bad_request("notificationUrl: Field required")
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ApiProblem(400, INVALID_URL, "The URL is not valid: it must begin with http:// or https://")
        return success(self._settings.register(url).as_json())

    async def delete(self, _request: web.Request) -> web.Response:
        if self._settings.current is None:
            raise not_found("No webhook is set")
        self._settings.delete()
        return success("")


class AccountCalls:
    """What concerns the account as a whole."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def storage_usage(self, request: web.Request) -> web.Response:
        """GET /stream/storage-usage"""
        return success(self._parts.admission.usage(request.query.get("creator")))

    async def verify_token(self, _request: web.Request) -> web.Response:
        """GET …/tokens/verify: a wrong token does not come this far."""
        return success({"id": self._parts.options.account_id, "status": "active"})


_GET_DOWNLOADS = "GET /stream/{uid}/downloads"


def _kind(request: web.Request) -> str:
    kind = request.match_info.get("kind", "default")
    if kind not in DOWNLOAD_TYPES:
        raise bad_request(f"The download type must be one of: {', '.join(DOWNLOAD_TYPES)}.")
    return kind
