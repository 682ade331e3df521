"""What a page shows of a video: manifests with segments, pictures, and a small player.

All of it is made from the rendition when it is first asked for, kept beside it, and never made twice at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from orchestrator.local.stream.files import is_there
from orchestrator.local.stream.media import ProcessingFailed, manifest_arguments, picture_arguments
from orchestrator.local.stream.parts import Parts
from orchestrator.local.stream.videos import Video
from orchestrator.local.stream.viewing import Viewing

# Two people opening pages at once; more would slow the encoder down.
_AT_ONCE = 2
# Pictures of one video that are kept; a page asks for a handful of sizes.
_KEPT_PICTURES = 50
_LONGEST_EDGE = 2000
_DEFAULT_WIDTH = 640
_SECONDS = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_SEGMENT = re.compile(r"video\.(?:m3u8|mpd)|media_\d+\.m3u8|(?:init|chunk)-stream\d+(?:-\d+)?\.m4s")
_TYPES = {".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml", ".m4s": "video/iso.segment"}


def seconds_of(text: str) -> float | None:
    """`90`, `1.5s` or `1h12m27s` in seconds; None for anything else."""
    match = _SECONDS.fullmatch(text)
    if match is None or not text:
        return None
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def picture_filter(width: int | None, height: int | None, fit: str) -> str:
    """The ffmpeg filter for a thumbnail of this size; without one, 640 wide."""
    if width is None or height is None:
        return f"scale={width or (-2 if height else _DEFAULT_WIDTH)}:{height or -2}"
    scale = f"scale={width}:{height}"
    if fit == "scale":
        return scale
    if fit == "clip":
        return f"{scale}:force_original_aspect_ratio=decrease"
    if fit == "fill":
        return f"{scale}:force_original_aspect_ratio=decrease,pad={width}:{height}:-1:-1"
    return f"{scale}:force_original_aspect_ratio=increase,crop={width}:{height}"


class Showing:
    """/{uid or token}/manifest, /thumbnails, /iframe and /watch"""

    def __init__(self, parts: Parts, viewing: Viewing) -> None:
        self._parts = parts
        self._viewing = viewing
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._making: dict[Path, asyncio.Lock] = {}

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """HLS and DASH with their segments; addresses inside are relative, so a token stays in the path."""
        video = self._playable(request)
        name = request.match_info["file"]
        if not _SEGMENT.fullmatch(name):
            raise web.HTTPNotFound(text="Not Found")
        folder = self._parts.store.folder(video.uid) / "manifest"
        await self._made(folder, lambda: self._make_manifest(video, folder))
        return _file(folder / name, _TYPES[Path(name).suffix])

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """A JPEG; time, width, height and fit as Stream takes them."""
        video = self._playable(request)
        query = request.query
        at = seconds_of(query.get("time", f"{video.thumbnail_share * max(0.0, video.duration_seconds):.3f}"))
        fit = query.get("fit", "crop")
        if at is None or fit not in ("crop", "clip", "scale", "fill"):
            raise web.HTTPBadRequest(text="time is like 1s or 1m30s; fit is crop, clip, scale or fill")
        wanted = picture_filter(_edge(query.get("width")), _edge(query.get("height")), fit)
        # The very end has no frame any more.
        at = min(at, max(0.0, video.duration_seconds - 0.1))
        folder = self._parts.store.folder(video.uid) / "thumbnails"
        key = hashlib.sha256(f"{at:.3f} {wanted}".encode()).hexdigest()[:16]
        path = folder / f"{key}.jpg"
        await self._made(path, lambda: self._make_picture(video, path, at, wanted))
        return _file(path, "image/jpeg")

    async def rendition(self, request: web.Request) -> web.StreamResponse:
        """The MP4 the player shows; apart from downloads, which have to be enabled."""
        return _file(self._parts.store.rendition(self._playable(request).uid), "video/mp4")

    async def player(self, request: web.Request) -> web.StreamResponse:
        """A page with the video, or with its state while it does not play yet."""
        video = self._viewing.video(request)
        return web.Response(text=_page(video, request), content_type="text/html")

    def _playable(self, request: web.Request) -> Video:
        video = self._viewing.video(request)
        if not video.is_playable or not self._parts.store.rendition(video.uid).exists():
            raise web.HTTPNotFound(text="Not Found")
        return video

    async def _made(self, path: Path, make: Callable[[], Awaitable[None]]) -> None:
        """*path* is there when this returns. Raises HTTPNotFound when it cannot be made."""
        lock = self._making.setdefault(path, asyncio.Lock())
        try:
            async with lock:
                if not is_there(path):
                    async with self._at_once:
                        await make()
        except ProcessingFailed as exc:
            raise web.HTTPNotFound(text="Not Found") from exc
        finally:
            if not lock.locked():
                self._making.pop(path, None)

    async def _make_manifest(self, video: Video, folder: Path) -> None:
        draft = folder.with_name("manifest.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        arguments = manifest_arguments(self._parts.store.rendition(video.uid), draft)
        await self._parts.media.make(draft / "video.m3u8", arguments)
        draft.rename(folder)

    async def _make_picture(self, video: Video, path: Path, at: float, wanted: str) -> None:
        path.parent.mkdir(exist_ok=True)
        kept = sorted(path.parent.glob("*.jpg"), key=lambda old: old.stat().st_mtime)
        for old in kept[: max(0, len(kept) - _KEPT_PICTURES + 1)]:
            old.unlink(missing_ok=True)
        draft = path.with_suffix(".part")
        await self._parts.media.make(
            draft, picture_arguments(self._parts.store.rendition(video.uid), draft, at, wanted)
        )
        draft.replace(path)


def _edge(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 10 <= int(text) <= _LONGEST_EDGE:
        raise web.HTTPBadRequest(text=f"width and height are 10 to {_LONGEST_EDGE}")
    return int(text)


def _file(path: Path, content_type: str) -> web.StreamResponse:
    if not path.exists():
        raise web.HTTPNotFound(text="Not Found")
    return web.FileResponse(path, headers={"Content-Type": content_type})


def _page(video: Video, request: web.Request) -> str:
    """The smallest page that plays; flags as Stream's player takes them in its address."""
    query = request.query
    title = html.escape(str(video.meta.get("name", video.uid)))
    if not video.is_playable:
        body = f"<p>{title} is not ready to play: {html.escape(video.state)}.</p>"
        return _HTML.format(title=title, body=body)
    flags = [
        name for name in ("autoplay", "muted", "loop") if query.get(name, "false") != "false" or query.get(name) == ""
    ]
    if query.get("controls", "true") != "false":
        flags.append("controls")
    start = seconds_of(query.get("startTime", ""))
    poster = html.escape(query.get("poster", "thumbnails/thumbnail.jpg"), quote=True)
    preload = html.escape(query.get("preload", "metadata"), quote=True)
    source = "rendition.mp4" + (f"#t={start:g}" if start else "")
    body = f'<video src="{source}" poster="{poster}" preload="{preload}" playsinline {" ".join(flags)}></video>'
    return _HTML.format(title=title, body=body)


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
html, body {{ margin: 0; height: 100%; background: #000; color: #ccc; font: 16px system-ui, sans-serif; }}
body {{ display: grid; place-items: center; }}
video {{ width: 100%; height: 100%; }}
</style>
</head>
<body>{body}</body>
</html>
"""
