"""The API's calls on videos: make, list, show, edit, delete."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from aiohttp import web

from orchestrator.local.stream import faults
from orchestrator.local.stream.envelope import (
    INVALID_URL,
    STILL_LIVE,
    ApiProblem,
    bad_request,
    json_object,
    success,
)
from orchestrator.local.stream.fields import ClipRequest, CopyRequest, EditRequest, parsed
from orchestrator.local.stream.listing import parse_query, select
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.uploads_form import FormUploads
from orchestrator.local.stream.uploads_tus import TusUploads
from orchestrator.local.stream.videos import Cut, Video


class VideoCalls:
    """Routes under /stream that concern videos."""

    def __init__(self, parts: Parts, forms: FormUploads, tus: TusUploads) -> None:
        self._parts = parts
        self._forms = forms
        self._tus = tus

    async def upload(self, request: web.Request) -> web.Response:
        """POST /stream: a form, or a tus creation when its headers say so."""
        if "Tus-Resumable" in request.headers or "Upload-Length" in request.headers:
            return await self._tus.create(request)
        return await self._forms.upload(request)

    async def copy(self, request: web.Request) -> web.Response:
        """POST /stream/copy: the video object, `downloading`. Twice makes two videos."""
        wanted = parsed(CopyRequest, await json_object(request))
        url = wanted.input or wanted.url
        if url is None:
            raise bad_request("input: Field required")
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ApiProblem(400, INVALID_URL, "The URL is not valid.")
        self._parts.admission.check("POST /stream/copy")
        fields = wanted.record_fields()
        name = wanted.name or unquote(address.path.rsplit("/", 1)[-1]) or address.hostname
        meta = {"name": name, **fields.pop("meta", {}), "downloaded-from": url}
        video = self._parts.store.create("copy", "downloading", source_url=url, meta=meta, **fields)
        self._parts.processing.begin(video.uid)
        return success(self._parts.show(video))

    async def clip(self, request: web.Request) -> web.Response:
        """POST /stream/clip: the new video's object, `queued`."""
        wanted = parsed(ClipRequest, await json_object(request))
        source = self._parts.store.get(wanted.clipped_from)
        if not source.is_playable:
            raise bad_request("clippedFromVideoUID: the video is not ready to stream")
        if not wanted.start_seconds < wanted.end_seconds <= source.duration_seconds + 1:
            raise bad_request("endTimeSeconds: must be after startTimeSeconds and within the video")
        self._parts.admission.check("POST /stream/clip", wanted.end_seconds - wanted.start_seconds)
        fields = wanted.record_fields()
        meta = {**({"name": wanted.name} if wanted.name else {}), **fields.pop("meta", {})}
        cut = Cut(source.uid, wanted.start_seconds, wanted.end_seconds)
        video = self._parts.store.create("clip", "queued", percent=0.0, cut=cut, meta=meta, **fields)
        self._parts.processing.begin(video.uid)
        return success(self._parts.show(video))

    async def list_videos(self, request: web.Request) -> web.Response:
        """GET /stream, with `total` and `range` on request."""
        query = parse_query(request.query)
        page = select(self._parts.store, query)
        rows = self._without_omitted(page.rows)
        self._parts.calls.record_list(len(query.uids or ()), len(rows))
        beside: dict[str, object] = {}
        if query.with_counts:
            beside = {"total": page.total, "range": page.within}
            if self._parts.switches.bite(faults.TotalAsString, "GET /stream"):
                beside = {name: str(number) for name, number in beside.items()}
        return success([self._parts.show(video) for video in rows], **beside)

    def _without_omitted(self, rows: list[Video]) -> list[Video]:
        """The rows that a fault leaves; an answer without the video it means is no occasion for it."""
        fault = self._parts.switches.current.list_omits
        kept = rows if fault is None else [video for video in rows if not fault.concerns(video.names)]
        if fault is None or len(kept) == len(rows):
            return rows
        return kept if self._parts.switches.bite(faults.ListOmits, fault.video or "") else rows

    async def get(self, request: web.Request) -> web.Response:
        """GET /stream/{uid}"""
        return success(self._parts.show(self._parts.store.get(request.match_info["uid"])))

    async def edit(self, request: web.Request) -> web.Response:
        """POST /stream/{uid}: what is given is replaced (meta as a whole), what is null is emptied."""
        uid = request.match_info["uid"]
        self._parts.store.get(uid)
        wanted = parsed(EditRequest, await json_object(request))
        if wanted.uid not in (None, uid):
            raise bad_request("uid: is not the one in the address")
        return success(self._parts.show(self._parts.store.change(uid, **wanted.record_fields())))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /stream/{uid}: 200 without a body."""
        video = self._parts.store.get(request.match_info["uid"])
        if self._parts.switches.bite(faults.DeleteConflict, *video.names):
            raise ApiProblem(409, STILL_LIVE, "The recording is still in progress.")
        await self._parts.delete(video.uid)
        return web.Response(status=200)

    async def embed(self, request: web.Request) -> web.Response:
        """GET /stream/{uid}/embed: a snippet of HTML."""
        video = self._parts.store.get(request.match_info["uid"])
        allow = "accelerometer; gyroscope; autoplay; encrypted-media; picture-in-picture;"
        address = f"{self._parts.base_url}/{video.uid}/iframe"
        snippet = f'<iframe src="{address}" style="border: none" allow="{allow}" allowfullscreen="true"></iframe>'
        return web.Response(text=snippet, content_type="text/html")
