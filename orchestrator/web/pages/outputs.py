"""What a job makes: each clip as it is cut, to watch and to fetch once it is served."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from orchestrator.storage.artifacts import Artifact
from orchestrator.storage.clips import Clip
from orchestrator.web.jobs.place import output_url
from orchestrator.web.pages import parts
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join
from statusutils import COMPLETE

_OUTPUTS = '<h2>Clips</h2><ol class="outputs">$items</ol>'
_READY = """<li><video controls playsinline preload="metadata" src="$src" aria-label="Clip $number"></video>
<p><strong>Clip $number</strong> <span class="dim">$range · $length · $size</span></p>
<p><a class="button" href="$src" download="$name">Download</a>$published</p></li>"""
_CUT = """<li><p><strong>Clip $number</strong> <span class="dim">$range · $length · cut, and served when all are
whole</span></p></li>"""
_PUBLISHED = ' <a class="button" href="/clips/$id">Its own page</a>'


def outputs(request: web.Request, clip: Clip, artifacts: Sequence[Artifact]) -> Markup:
    """The clips so far; nothing for a clip of a pipeline that makes none."""
    if not artifacts:
        return EMPTY
    return fill(_OUTPUTS, items=join(_item(request, clip, each) for each in artifacts))


def _item(request: web.Request, clip: Clip, artifact: Artifact) -> Markup:
    is_ready = clip.status == COMPLETE
    published = fill(_PUBLISHED, id=artifact.published_as) if artifact.published_as else EMPTY
    return fill(
        _READY if is_ready else _CUT,
        src=output_url(request, clip.id, artifact.name),
        number=artifact.number,
        name=artifact.name,
        range=f"{artifact.start_seconds:g}-{artifact.end_seconds:g} s",
        length=parts.length(artifact.duration_seconds),
        size=parts.size(artifact.size_bytes),
        published=published,
    )
