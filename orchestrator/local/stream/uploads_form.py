"""Uploads by form: POST /stream with the API token, and the one-time address of a direct creator upload."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from orchestrator.local.stream.envelope import (
    NOT_A_VIDEO,
    UNDOCUMENTED,
    ApiProblem,
    bad_request,
    json_object,
    not_found,
    success,
)
from orchestrator.local.stream.fields import DirectUpload, expiry_at, parsed
from orchestrator.local.stream.media import ProcessingFailed
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.receiving import FormFile, UploaderGone, save_form
from orchestrator.local.stream.videos import Video, rfc3339


class FormUploads:
    """Both ways a form can arrive."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._receiving: set[str] = set()

    async def upload(self, request: web.Request) -> web.Response:
        """POST /stream: the video object, `queued`; 400 / 10059 for what is no video."""
        self._parts.admission.check("POST /stream")
        video = self._parts.store.create("form", "pendingupload", percent=0.0)
        try:
            file = await self._receive(request, video)
            await self._refuse_non_video(video)
        except (ApiProblem, UploaderGone):
            self._parts.store.delete(video.uid)
            raise
        self._parts.store.change(
            video.uid, state="queued", meta=_meta_of(file), size_bytes=file.size_bytes, uploaded_at=datetime.now(UTC)
        )
        self._parts.processing.begin(video.uid)
        return success(self._parts.show(self._parts.store.get(video.uid)))

    async def direct(self, request: web.Request) -> web.Response:
        """POST /stream/direct_upload: a uid and the address for exactly one form."""
        body = await json_object(request)
        creator = request.headers.get("Upload-Creator")
        wanted = parsed(DirectUpload, {"creator": creator, **body} if creator else body)
        self._parts.admission.check("POST /stream/direct_upload", wanted.max_duration_seconds)
        expires_at = expiry_at(wanted.expiry)
        fields = wanted.record_fields()
        video = self._parts.store.create(
            "direct_form", "pendingupload", percent=0.0, upload_expires_at=expires_at, **fields
        )
        result = {
            "uid": video.uid,
            "uploadURL": f"{self._parts.base_url}/upload/{video.uid}",
            "watermark": None,
            "scheduledDeletion": rfc3339(video.scheduled_deletion_at),
            "creator": video.creator,
        }
        return success(result)

    async def receive_direct(self, request: web.Request) -> web.Response:
        """POST to the one-time address; no token."""
        video = self._parts.store.get(request.match_info["uid"])
        if video.arrival != "direct_form":
            raise not_found()
        if video.state != "pendingupload" or video.uid in self._receiving or self._has_arrived(video):
            raise ApiProblem(409, UNDOCUMENTED, "This address has been used; it takes one upload.")
        if video.upload_expires_at is not None and video.upload_expires_at < datetime.now(UTC):
            raise ApiProblem(410, UNDOCUMENTED, "This address has expired.")
        self._receiving.add(video.uid)
        try:
            file = await self._receive(request, video)
        finally:
            self._receiving.discard(video.uid)
        self._parts.store.change(
            video.uid, meta={**_meta_of(file), **video.meta}, size_bytes=file.size_bytes, uploaded_at=datetime.now(UTC)
        )
        self._parts.processing.begin(video.uid)
        return web.Response(status=200)

    async def _receive(self, request: web.Request, video: Video) -> FormFile:
        options = self._parts.options
        draft = self._parts.store.folder(video.uid) / "source.part"
        try:
            file = await save_form(request, draft, options.form_limit_bytes, options.stall_timeout_seconds)
        except (ApiProblem, UploaderGone):
            draft.unlink(missing_ok=True)
            raise
        if file.size_bytes == 0:
            raise bad_request("The file is empty.")
        draft.replace(self._parts.store.source(video.uid))
        return file

    async def _refuse_non_video(self, video: Video) -> None:
        """Only this way of uploading looks at once; a broken video still fails later, in processing."""
        try:
            await self._parts.encoder.probe(video)
        except ProcessingFailed as exc:
            if exc.code == "ERR_NON_VIDEO":
                raise ApiProblem(400, NOT_A_VIDEO, "The file is not a video.") from exc

    def _has_arrived(self, video: Video) -> bool:
        return self._parts.store.source(video.uid).exists()


def _meta_of(file: FormFile) -> dict[str, str]:
    meta = {"filename": file.filename, "name": file.filename, "type": file.content_type}
    return {key: value for key, value in meta.items() if value}
