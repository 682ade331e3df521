"""The clip to watch: the finished file once there is one, before that what the provider plays.

The order: the file; a browser that plays HLS itself; hls.js, where this installation has it; the provider's own player
in a frame. The script goes down the list, and where its end is reached the page says so.
"""

from __future__ import annotations

from orchestrator.storage.clips import Clip
from orchestrator.web.pages.markup import EMPTY, Markup, fill, link
from statusutils import COMPLETE, ERROR

_FILE = """<video class="player" controls playsinline preload="metadata" src="$src"$poster data-file
aria-label="The finished clip"></video>
<p class="note" data-unplayable hidden>This browser cannot play the file from here; it can be downloaded below.</p>
<p><a class="button primary" href="$src" download>Download the MP4</a></p>"""
_STREAM = """<video class="player" controls playsinline preload="metadata" data-hls="$src" data-module="$module"
data-iframe="$iframe" src="$src"$poster aria-label="The clip as the provider streams it"></video>
<p class="note" data-unplayable hidden>Nothing here can play the stream; the finished file will be playable.</p>
<noscript><p class="dim">If nothing plays: <a href="$href">watch at the provider</a></p></noscript>"""
_NOTHING = '<p class="note">$reason</p>'
_MANIFEST = "/manifest/video.m3u8"


def player(clip: Clip, module: str | None) -> Markup:
    """The player, or why nothing plays, or nothing as long as nothing should; *module* is where hls.js is served."""
    if clip.pipeline != "stream" or clip.status in ("uploading", "queued", "processing", ERROR):
        return EMPTY
    poster = fill(' poster="$src"', src=clip.thumbnail_url) if link(clip.thumbnail_url) and clip.hls_url else EMPTY
    if clip.status == COMPLETE and link(clip.r2_url):
        return fill(_FILE, src=clip.r2_url, poster=poster)
    if clip.processing_details.get("deleted_at"):
        return fill(_NOTHING, reason="The video was removed at the provider.")
    hls = link(clip.hls_url)
    if hls is None:
        return fill(_NOTHING, reason="It cannot be played from here: no address to play it from is known.")
    iframe = hls.removesuffix(_MANIFEST) + "/iframe" if hls.endswith(_MANIFEST) else ""
    return fill(_STREAM, src=hls, module=module or "", iframe=iframe, href=iframe or hls, poster=poster)
