"""The clip to watch: the finished file once there is one, before that what the provider plays."""

from __future__ import annotations

from orchestrator.storage.clips import Clip
from orchestrator.web.pages.markup import EMPTY, Markup, fill, link
from statusutils import COMPLETE, ERROR

_FILE = '<video class="player" controls playsinline preload="metadata" src="$src"$poster></video>'
# Where the browser plays HLS itself it does; elsewhere the script puts the provider's own player in its place.
_STREAM = """<video class="player" controls playsinline preload="metadata" data-iframe="$iframe"
src="$src"$poster></video>
<noscript><p class="dim">If nothing plays: <a href="$iframe">watch at the provider</a></p></noscript>"""
_MANIFEST = "/manifest/video.m3u8"


def player(clip: Clip) -> Markup:
    """The player, or nothing as long as nothing plays."""
    poster = fill(' poster="$src"', src=clip.thumbnail_url) if link(clip.thumbnail_url) and clip.hls_url else EMPTY
    if clip.status == COMPLETE and link(clip.r2_url):
        return fill(_FILE, src=clip.r2_url, poster=poster)
    hls = link(clip.hls_url)
    if hls is None or clip.status in ("uploading", "queued", "processing", ERROR):
        return EMPTY
    iframe = hls.removesuffix(_MANIFEST) + "/iframe" if hls.endswith(_MANIFEST) else ""
    return fill(_STREAM, src=hls, iframe=iframe, poster=poster)
