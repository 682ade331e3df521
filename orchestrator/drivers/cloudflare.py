"""Cloudflare Stream: the calls this house makes, each with the one way in which it may be repeated.

There is no idempotency key. What makes a video (`create_…`, `copy_from_url`) is sent exactly once; when its
outcome is unknown, look for the video with `find_by_creator` before asking again. What makes an MP4
(`enable_download`) is sent once, too: look with `get_downloads` before asking again. Everything else may be
repeated and is, a few times. Failures are `TransientError` and `PermanentError`; their codes stand in
`cloudflare_answers`.

Source: https://developers.cloudflare.com/api/resources/stream/ and https://developers.cloudflare.com/stream/
"""

from __future__ import annotations

import random
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urljoin

from orchestrator.drivers import lenient
from orchestrator.drivers.budget import CallBudget, CallClass
from orchestrator.drivers.call_log import CallNote
from orchestrator.drivers.cloudflare_answers import Answer, Operation
from orchestrator.drivers.cloudflare_calls import CloudflareCalls, CloudflareSettings
from orchestrator.drivers.cloudflare_models import (
    DirectUpload,
    Download,
    DownloadState,
    StorageUsage,
    Video,
    VideoPage,
    VideoState,
    WebhookRegistration,
    is_uid,
    parse_direct_upload,
    parse_download,
    parse_page,
    parse_usage,
    parse_video,
    parse_webhook,
)
from orchestrator.drivers.errors import PermanentError, TransientError

__all__ = ["LIST_IDS_MAX", "CloudflareSettings", "CloudflareStream"]

# The provider names no maximum. Fifty uids make an address of 2 KB, which everything on the way carries.
LIST_IDS_MAX = 50
LIST_MAX = 1000
FILE_MAX_BYTES = 30_000_000_000
DURATION_MAX_SECONDS = 36_000
TOKEN_MAX = timedelta(hours=24)
TUS_VERSION = "1.0.0"
# It also travels as a header.
_CREATOR = re.compile(r"[\x21-\x7e]{1,64}")

_DIRECT_UPLOAD = Operation("create_direct_upload", "POST", creates=True)
_TUS_UPLOAD = Operation("create_tus_upload", "POST", creates=True, bare=True)
_COPY = Operation("copy_from_url", "POST", creates=True)
_LIST = Operation("list", "GET", repeatable=True)
_GET = Operation("get", "GET", repeatable=True, missing_is_answer=True)
_DELETE = Operation("delete", "DELETE", repeatable=True, missing_is_answer=True, bare=True)
_GET_DOWNLOADS = Operation("get_downloads", "GET", repeatable=True, missing_is_answer=True)
# Whether asking twice makes one MP4 is documented nowhere, so it is sent once, like what makes a video.
_ENABLE_DOWNLOAD = Operation("enable_download", "POST", refused_for_now="not_ready")
_RESET_DOWNLOAD = Operation("reset_download", "DELETE", repeatable=True, missing_is_answer=True, bare=True)
_CREATE_TOKEN = Operation("create_token", "POST")
_GET_WEBHOOK = Operation("get_webhook", "GET", repeatable=True, missing_is_answer=True)
_PUT_WEBHOOK = Operation("put_webhook", "PUT", repeatable=True)
_STORAGE_USAGE = Operation("storage_usage", "GET", repeatable=True)


class CloudflareStream:
    """The videos of one account. Make it inside a running loop, and close it."""

    def __init__(
        self,
        settings: CloudflareSettings,
        budget: CallBudget,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
        on_call: Callable[[CallNote], None] = lambda call: None,
    ) -> None:
        self._calls = CloudflareCalls(settings, budget, jitter, on_call)
        self._api_url = settings.api_url
        self._clock = clock

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    def headroom(self) -> float:
        """The share of the call budget that is left, 0 to 1."""
        return self._calls.headroom()

    # --- Making videos: sent exactly once ------------------------------------------------------------

    async def create_direct_upload(
        self, max_duration_seconds: int, creator: str, meta: Mapping[str, str], expiry: datetime | None = None
    ) -> DirectUpload:
        """A one-time address for one form upload of up to 200 MB; without *expiry* it lasts 30 minutes.

        Not safe to repeat: each call reserves an address, and *max_duration_seconds* of the account's minutes.

        Source: https://developers.cloudflare.com/stream/uploading-videos/direct-creator-uploads/
        """
        payload = {"maxDurationSeconds": _duration(max_duration_seconds), "creator": _creator(creator), "meta": meta}
        if expiry is not None:
            payload["expiry"] = _rfc3339(expiry)
        answer = await self._calls.call(_DIRECT_UPLOAD, "/stream/direct_upload", CallClass.PERSON, payload=payload)
        upload = parse_direct_upload(answer.result, expiry)
        if upload is None:
            raise _unusable(_DIRECT_UPLOAD)
        return upload

    async def create_tus_upload(
        self,
        size_bytes: int,
        max_duration_seconds: int,
        creator: str,
        name: str,
        expiry: datetime | None = None,
    ) -> DirectUpload:
        """A one-time address for one resumable upload of *size_bytes*: where to send it, not where to create it.

        Not safe to repeat: each call reserves an address, and *max_duration_seconds* of the account's minutes.

        Source: https://developers.cloudflare.com/stream/uploading-videos/resumable-uploads/
        """
        if not 1 <= size_bytes <= FILE_MAX_BYTES:
            raise PermanentError("too_large", f"The file must have 1 to {FILE_MAX_BYTES} bytes.")
        # Without a longest duration four hours are reserved.
        metadata = {"name": name, "maxDurationSeconds": str(_duration(max_duration_seconds))}
        if expiry is not None:
            metadata["expiry"] = _rfc3339(expiry)
        headers = {
            "Tus-Resumable": TUS_VERSION,
            "Upload-Length": str(size_bytes),
            "Upload-Metadata": _tus_metadata(metadata),
            "Upload-Creator": _creator(creator),
        }
        answer = await self._calls.call(
            _TUS_UPLOAD, "/stream", CallClass.PERSON, query={"direct_user": "true"}, headers=headers
        )
        found = answer.headers or {}
        # The uid has a header of its own: the address is not to be taken apart.
        uid = found.get("stream-media-id")
        upload_url = lenient.web_address(urljoin(self._api_url, found.get("Location", "")))
        if uid is None or not is_uid(uid) or upload_url is None or not found.get("Location"):
            raise _unusable(_TUS_UPLOAD)
        return DirectUpload(uid, upload_url, expiry)

    async def copy_from_url(self, url: str, creator: str, meta: Mapping[str, str]) -> Video:
        """Have Stream fetch *url* itself; the answer means accepted, not fetched.

        Not safe to repeat: two calls make two videos. First `find_by_creator(creator)`.

        Source: https://developers.cloudflare.com/stream/uploading-videos/upload-via-link/
        """
        payload = {"input": url, "creator": _creator(creator), "meta": meta}
        answer = await self._calls.call(_COPY, "/stream/copy", CallClass.PERSON, payload=payload)
        return _video(_COPY, answer)

    # --- Looking -------------------------------------------------------------------------------------

    async def list_by_ids(self, uids: Iterable[str], call_class: CallClass = CallClass.PROGRESS) -> dict[str, Video]:
        """The videos of *uids*, with one call for every fifty; safe to repeat.

        A uid that is missing proves nothing: rows get left out, and an API that does not know the filter sends
        its newest thousand. Ask `get` before a video is called gone. When one of several calls fails, all do.
        """
        wanted = [uid for uid in dict.fromkeys(uids) if is_uid(uid)]
        found: dict[str, Video] = {}
        for start in range(0, len(wanted), LIST_IDS_MAX):
            some = wanted[start : start + LIST_IDS_MAX]
            page = await self._list({"id": ",".join(some)}, call_class)
            found |= {video.uid: video for video in page.videos if video.uid in some}
        return found

    async def list_in_states(
        self,
        states: Iterable[VideoState],
        before: datetime | None = None,
        limit: int = LIST_MAX,
        call_class: CallClass = CallClass.RECONCILE,
    ) -> VideoPage:
        """Videos in *states*, newest first, and their number; safe to repeat.

        One page: for the next ask again *before* the `created_at` of the last, and drop what came twice.
        """
        wanted = frozenset(states)
        words = [state.value for state in VideoState if state in wanted and state is not VideoState.UNKNOWN]
        query = {"status": ",".join(words), "limit": str(min(LIST_MAX, max(1, limit))), "include_counts": "true"}
        if before is not None:
            query["before"] = _rfc3339(before, "microseconds")
        page = await self._list(query, call_class)
        return VideoPage(tuple(video for video in page.videos if video.state in wanted), page.total)

    async def find_by_creator(self, creator: str, call_class: CallClass = CallClass.PROGRESS) -> Video | None:
        """The video made first under this mark; None if there is none. Safe to repeat."""
        page = await self._list({"creator": _creator(creator)}, call_class)
        marked = [video for video in page.videos if video.creator == creator]
        return min(marked, key=lambda video: video.created_at or _NEVER, default=None)

    async def get(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> Video | None:
        """The video; None when the API itself says that it knows none. Safe to repeat."""
        answer = await self._calls.call(_GET, _path(uid), call_class)
        return None if answer.is_missing else _video(_GET, answer, uid)

    # --- MP4 and deletion ----------------------------------------------------------------------------

    async def get_downloads(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> Download:
        """Where the MP4 is; absent when nobody asked for it, or the video is gone. Safe to repeat.

        Source: https://developers.cloudflare.com/stream/viewing-videos/download-videos/
        """
        answer = await self._calls.call(_GET_DOWNLOADS, f"{_path(uid)}/downloads", call_class)
        return parse_download(answer.result)

    async def enable_download(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> Download:
        """Have the MP4 made; sent once. Before it is asked for again, `get_downloads` has to show none.

        Raises:
            TransientError: `not_ready`, the video cannot be viewed yet; look at it again.
        """
        path = f"{_path(uid)}/downloads"
        answer = await self._calls.call(_ENABLE_DOWNLOAD, path, call_class, payload={})
        download = parse_download(answer.result)
        # Accepted is accepted, whatever the answer looks like; the next look says more.
        return Download(DownloadState.IN_PROGRESS) if download.state is DownloadState.ABSENT else download

    async def reset_download(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> None:
        """Take the MP4 away, so that a failed one can be asked for again; safe to repeat."""
        await self._calls.call(_RESET_DOWNLOAD, f"{_path(uid)}/downloads", call_class)

    async def delete(self, uid: str, call_class: CallClass = CallClass.PROGRESS) -> None:
        """Remove the video and its MP4; safe to repeat, for one that is not there counts as removed.

        Raises:
            TransientError: `provider_conflict`, it is still being broadcast.
        """
        await self._calls.call(_DELETE, _path(uid), call_class)

    async def create_token(
        self,
        uid: str,
        downloadable: bool = True,
        expires_in: timedelta = timedelta(hours=1),
        call_class: CallClass = CallClass.PROGRESS,
    ) -> str:
        """A token that stands in for the uid in the addresses of a private video. A secret; sent once.

        Repeating it makes one more token and changes nothing. *expires_in* is cut to the 24 hours there are.

        Source: https://developers.cloudflare.com/stream/viewing-videos/securing-your-stream/
        """
        expires_at = int(self._clock() + min(expires_in, TOKEN_MAX).total_seconds())
        payload = {"downloadable": downloadable, "exp": expires_at}
        answer = await self._calls.call(_CREATE_TOKEN, f"{_path(uid)}/token", call_class, payload=payload)
        token = answer.result.get("token") if isinstance(answer.result, dict) else None
        # It goes into a path as it stands.
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,8192}", token):
            raise _unusable(_CREATE_TOKEN)
        return token

    # --- The account ---------------------------------------------------------------------------------

    async def get_webhook(self) -> WebhookRegistration | None:
        """Where the account's notifications go; None when nowhere. Safe to repeat."""
        answer = await self._calls.call(_GET_WEBHOOK, "/stream/webhook", CallClass.PERSON)
        return parse_webhook(answer.result)

    async def put_webhook(self, url: str) -> WebhookRegistration:
        """Have notifications sent to *url*; safe to repeat: one that is set already is left as it is.

        There is one per account, and a change makes a new secret: the old one ends for everybody.

        Source: https://developers.cloudflare.com/stream/manage-video-library/using-webhooks/
        """
        current = await self.get_webhook()
        if current is not None and current.url == url:
            return current
        payload = {"notificationUrl": url}
        answer = await self._calls.call(_PUT_WEBHOOK, "/stream/webhook", CallClass.PERSON, payload=payload)
        changed = parse_webhook(answer.result) or await self.get_webhook()
        if changed is None:
            raise _unusable(_PUT_WEBHOOK)
        return changed

    async def storage_usage(self, call_class: CallClass = CallClass.RECONCILE) -> StorageUsage:
        """How much of the account's storage is used; safe to repeat."""
        usage = parse_usage((await self._calls.call(_STORAGE_USAGE, "/stream/storage-usage", call_class)).result)
        if usage is None:
            raise _unusable(_STORAGE_USAGE)
        return usage

    async def _list(self, query: Mapping[str, str], call_class: CallClass) -> VideoPage:
        answer = await self._calls.call(_LIST, "/stream", call_class, query=query)
        page = parse_page(answer.result, answer.total)
        if page is None:
            raise _unusable(_LIST)
        return page


_NEVER = datetime.max.replace(tzinfo=UTC)


def _video(operation: Operation, answer: Answer, uid: str | None = None) -> Video:
    """The video in the answer, the one that was asked for."""
    video = parse_video(answer.result)
    if video is None or (uid is not None and video.uid != uid):
        raise _unusable(operation)
    return video


def _unusable(operation: Operation) -> TransientError:
    """The answer says success and lacks what was asked for."""
    if operation.creates:
        text = f"{operation.name}: the answer lacks the video. It may exist all the same: look for it by its creator."
        return TransientError("outcome_unknown", text)
    return TransientError("provider_unavailable", f"{operation.name}: the answer lacks what was asked for")


def _path(uid: str) -> str:
    if not is_uid(uid):
        raise PermanentError("invalid_argument", "This cannot be the uid of a video.")
    return f"/stream/{uid}"


def _duration(max_duration_seconds: int) -> int:
    if not 1 <= max_duration_seconds <= DURATION_MAX_SECONDS:
        raise PermanentError("invalid_argument", f"The longest duration must be 1 to {DURATION_MAX_SECONDS} seconds.")
    return max_duration_seconds


def _creator(creator: str) -> str:
    if not _CREATOR.fullmatch(creator):
        raise PermanentError("invalid_argument", "The creator must have 1 to 64 printable characters without blanks.")
    return creator


def _rfc3339(at: datetime, timespec: str = "seconds") -> str:
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def _tus_metadata(values: Mapping[str, str]) -> str:
    """`key base64value` joined by commas; an empty value would read as a flag and is left out."""
    encoded = ((key, b64encode(value.encode("utf-8", "replace")).decode()) for key, value in values.items() if value)
    return ",".join(f"{key} {value}" for key, value in encoded)
