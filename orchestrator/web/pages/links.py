"""What there is to take away: the finished file, the addresses it can be played from, and this page's own."""

from __future__ import annotations

from orchestrator.storage.clips import Clip
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, link
from statusutils import COMPLETE

_LINKS = '<h2>Links</h2><ul class="links">$items</ul>'
_ITEM = """<li><span>$word</span> <a href="$href"$extra><bdi>$shown</bdi></a>
<button type="button" data-copy="$href" aria-label="Copy the address: $word">Copy</button></li>"""
# Enough to tell addresses apart; the whole one is behind the link.
_SHOWN_CHARACTERS = 60


def links(clip: Clip) -> Markup:
    """The list; nothing as long as there is nothing to take."""
    found = [
        ("MP4 in your bucket", clip.r2_url if clip.status == COMPLETE else None),
        ("HLS manifest", clip.hls_url if clip.uploaded_at or clip.status == COMPLETE else None),
        ("DASH manifest", clip.dash_url if clip.uploaded_at or clip.status == COMPLETE else None),
    ]
    items = [_item(word, address) for word, address in found if address and link(address)]
    return fill(_LINKS, items=join(items)) if items else EMPTY


def _item(word: str, address: str) -> Markup:
    shown = address.split("://", 1)[-1]
    short = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 1]}…"
    return fill(_ITEM, word=word, href=address, shown=short, extra=EMPTY)
