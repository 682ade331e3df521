"""One clip: where it stands, the way it goes, its player, what can be done, and everything that happened."""

from __future__ import annotations

from aiohttp import web

from orchestrator.explaining import Leadership, explain, read_leadership
from orchestrator.pipelines import pipeline_for
from orchestrator.storage.artifacts import read_artifacts
from orchestrator.storage.clips import Clip, Event, read_events
from orchestrator.web.connections import connection_of
from orchestrator.web.pages import parts
from orchestrator.web.pages.history import history
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, link, markup
from orchestrator.web.pages.outputs import outputs
from orchestrator.web.pages.player import player
from orchestrator.web.problems import Problem, shorten
from orchestrator.web.reading import known_clip
from orchestrator.web.services import services_of
from orchestrator.web.views import CLIP_ID, is_terminal, message_of, why_unknown
from signals import PendingSignal, UnknownClip, read_pending
from statusutils import COMPLETE, ERROR, TABLES, StatusTable

# The newest lines a page shows; the API has the rest.
_HISTORY_MAX = 200

_MAIN = """<article data-clip="$id" data-terminal="$terminal" data-version="$version">
<div class="title-row"><h1>$name</h1></div>
<section class="card" data-region="status" aria-label="Status">$status</section>
<section data-region="player" aria-label="Video">$player</section>
<section data-region="outputs" aria-label="Clips made">$outputs</section>
<section data-region="actions" class="actions" aria-label="Actions">$actions</section>
<section class="card" data-region="facts"><h2>Facts</h2>$facts</section>
<section class="card" data-region="history"><h2>History</h2>$history</section>
</article>"""
_STATUS = """<div class="status-row">$badge<p class="message" data-message>$message</p>
<span class="percent" data-percent>$percent %</span></div>
$bar
$why
$note
<ol class="path" aria-label="All statuses">$path</ol>
<p class="dim">Last change $updated<span data-connection></span></p>"""
_WHY = '<p class="why dim">$why</p>'
_STEP = (
    '<li class="$how"$current><span class="dot">$icon</span><span class="step">$word <code>$status</code></span></li>'
)
_ASKED = (
    '<p class="note">Requested: <strong>$message</strong>'
    ' <span class="dim">by <bdi>$source</bdi>; not judged yet</span></p>'
)
_REFUSED = '<p class="note">The last request was refused: $reason</p>'
_RETRY = """<form method="post" action="/clips/$id/retry"><button class="primary">Try again</button></form>"""
_DELETE = """<details class="confirm"><summary class="button danger">Delete…</summary>
<form method="post" action="/clips/$id/delete" class="card">
<p>$what, and the clip ends. This cannot be undone.</p>
<button class="danger">Delete this clip</button></form></details>"""
_DOWNLOAD = '<a class="button primary" href="$href" download>Download the MP4</a>'
_FACT = "<div><dt>$name</dt><dd>$value</dd></div>"
_UNKNOWN = """<section class="card notice" data-unknown>
<h1>No such clip</h1>
<p>$message.</p>
<p><code>$id</code></p>
<p><a href="/">All clips</a></p>
</section>"""


async def show_page(request: web.Request) -> web.Response:
    """The clip's page; for an id nobody knows it says whether to wait."""
    clip_id = request.match_info["id"]
    try:
        if not CLIP_ID.fullmatch(clip_id):
            raise UnknownClip(clip_id)
        async with connection_of(request) as connection:
            clip = await known_clip(connection, clip_id)
            events = await read_events(connection, clip_id, limit=_HISTORY_MAX)
            pending = await read_pending(connection, clip_id)
            leadership = await read_leadership(connection)
            artifacts = await read_artifacts(connection, clip_id)
    except UnknownClip:
        return _unknown_page(request, clip_id)
    refresh = EMPTY
    if not is_terminal(clip.status) or pending:
        refresh = markup('<noscript><meta http-equiv="refresh" content="5"></noscript>')
    return page(
        request,
        parts.name_of(clip),
        _main(clip, events, pending, leadership, outputs(request, clip, artifacts)),
        head=refresh,
        scripts=("clip.js",),
    )


def _unknown_page(request: web.Request, clip_id: str) -> web.Response:
    said, may_appear = why_unknown(clip_id, services_of(request).now())
    main = fill(_UNKNOWN, message=said, id=shorten(clip_id))
    refresh = markup('<meta http-equiv="refresh" content="5">') if may_appear else EMPTY
    return page(request, "No such clip", main, head=refresh, status=404)


def _main(
    clip: Clip, events: list[Event], pending: list[PendingSignal], leadership: Leadership, made: Markup
) -> Markup:
    return fill(
        _MAIN,
        id=clip.id,
        terminal="yes" if is_terminal(clip.status) and not pending else "no",
        version=clip.version,
        name=parts.name_of(clip),
        status=_status(clip, pending, leadership),
        player=player(clip),
        outputs=made,
        actions=_actions(clip),
        facts=_facts(clip),
        history=history(events, clip),
    )


def _status(clip: Clip, pending: list[PendingSignal], leadership: Leadership) -> Markup:
    return fill(
        _STATUS,
        # By the database's clock, which wrote the times it speaks of. Of a complete clip there is nothing to explain.
        why=EMPTY if clip.status == COMPLETE else fill(_WHY, why=explain(clip, leadership.now, leadership)),
        badge=parts.badge(clip),
        message=parts.message(clip),
        # Down to the whole number, here as in the script: a rounded one would be taken back.
        percent=int(clip.progress),
        bar=parts.bar(clip, "Progress"),
        note=_note(clip, pending),
        path=_path(clip),
        updated=parts.moment(clip.updated_at),
    )


def _note(clip: Clip, pending: list[PendingSignal]) -> Markup:
    """What was asked and has no answer yet, or was refused."""
    if pending:
        asked = pending[-1]
        return fill(_ASKED, message=message_of(clip.pipeline, asked.requested_status), source=asked.source)
    refused = clip.processing_details.get("requested_status_error")
    return fill(_REFUSED, reason=refused) if isinstance(refused, str) and refused else EMPTY


def _path(clip: Clip) -> Markup:
    table = TABLES.get(clip.pipeline)
    if table is None:
        return EMPTY
    return join(_step(clip, table, name) for name in table.by_name)


def _step(clip: Clip, table: StatusTable, name: str) -> Markup:
    is_here = clip.status == name
    if name == ERROR:
        how = "failed" if is_here else "unreached"
    elif clip.status == ERROR:
        # Progress stands where it stood: it tells how far the clip had come.
        how = "done" if table[name].min_progress <= clip.progress else "unreached"
    elif table[name].order < table[clip.status].order or clip.status == COMPLETE:
        how = "done"
    else:
        how = "running" if is_here else "unreached"
    shape = parts.icon({"done": "done", "failed": "failed", "running": "running"}.get(how, "pending"))  # type: ignore[arg-type]
    return fill(
        _STEP,
        how=how,
        current=markup(' aria-current="step"') if is_here else EMPTY,
        icon=shape if how != "unreached" else EMPTY,
        word=table[name].message,
        status=name,
    )


def _actions(clip: Clip) -> Markup:
    found = []
    if clip.status == COMPLETE and link(clip.r2_url):
        found.append(fill(_DOWNLOAD, href=clip.r2_url))
    if _may_retry(clip):
        found.append(fill(_RETRY, id=clip.id))
    if not clip.processing_details.get("delete_requested"):
        what = "The video is removed at the provider" if clip.cloudflare_uid else "What was made of it is removed"
        found.append(fill(_DELETE, id=clip.id, what=what))
    return join(found)


def _may_retry(clip: Clip) -> bool:
    return (
        clip.status == ERROR and clip.pipeline in TABLES and pipeline_for(clip.pipeline).resume_status(clip) is not None
    )


def _facts(clip: Clip) -> Markup:
    facts: list[tuple[str, object]] = [
        ("Id", fill("<code>$id</code>", id=clip.id)),
        ("Video at the provider", fill("<code>$uid</code>", uid=clip.cloudflare_uid) if clip.cloudflare_uid else None),
        ("Length", parts.length(clip.duration)),
        ("Size", parts.size(clip.file_size)),
        ("Attempt", clip.attempt),
        ("Created", parts.moment(clip.created_at)),
        ("Upload until", parts.moment(clip.upload_expires_at) if clip.uploaded_at is None else None),
        ("Complete", parts.moment(clip.completed_at)),
        ("Next look", parts.moment(clip.look_at) if not is_terminal(clip.status) else None),
    ]
    items = join(fill(_FACT, name=name, value=value) for name, value in facts if value not in (None, EMPTY))
    return fill('<dl class="facts">$items</dl>', items=items)


def clip_id_of_page(request: web.Request) -> str:
    """The id in a page's address."""
    clip_id = request.match_info["id"]
    if not CLIP_ID.fullmatch(clip_id):
        raise Problem("unknown-clip", f"No clip has the id {shorten(clip_id)}")
    return clip_id
