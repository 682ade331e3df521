"""One clip: where it stands, the way it goes, its player, what can be done, and everything that happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg
from aiohttp import web

from orchestrator.explaining import Leadership, read_leadership, retry_moment
from orchestrator.pipelines import pipeline_for
from orchestrator.storage.artifacts import Artifact, read_artifacts
from orchestrator.storage.clips import Clip, Event, read_newest_events, read_newest_moves
from orchestrator.storage.deliveries import Delivery, Refusal, read_deliveries, read_refusals
from orchestrator.storage.heavy_steps import StepOnHand, read_step_of
from orchestrator.storage.provider_calls import MadeCall, read_calls
from orchestrator.storage.pruning import read_pruned_before
from orchestrator.web.assets import ASSETS
from orchestrator.web.connections import connection_of
from orchestrator.web.edge import CALLER
from orchestrator.web.expecting import EXPECTATIONS, Expectations
from orchestrator.web.pages import parts
from orchestrator.web.pages.calls import calls
from orchestrator.web.pages.history import history
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.links import links
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.pages.notifications import notifications
from orchestrator.web.pages.outputs import outputs
from orchestrator.web.pages.player import player
from orchestrator.web.pages.status_card import StatusView, banner, status_card
from orchestrator.web.pages.waterfall import STAYS_MAX, waterfall
from orchestrator.web.problems import Problem, shorten
from orchestrator.web.reading import known_clip
from orchestrator.web.services import services_of
from orchestrator.web.views import CLIP_ID, is_terminal, timestamp, why_unknown
from signals import PendingSignal, UnknownClip, read_pending
from statusutils import ERROR, TABLES

# The newest lines a page shows; the API has the rest.
_HISTORY_MAX = 200

_HEAD = '<link rel="stylesheet" href="$style">$refresh'
_REFRESH = markup('<noscript><meta http-equiv="refresh" content="5"></noscript>')
_MAIN = """<article data-clip="$id" data-terminal="$terminal" data-version="$version" data-now="$now">
<div class="title-row"><h1><bdi>$name</bdi></h1></div>
<section class="card" data-region="status" aria-label="Status">$status</section>
<section data-region="player" aria-label="Video">$player</section>
<section data-region="outputs" aria-label="Clips made">$outputs</section>
<section class="card" data-region="links" aria-label="Links">$links</section>
<section data-region="actions" class="actions" aria-label="Actions">$actions</section>
<section class="card" data-region="facts"><h2>Facts</h2>$facts</section>
<section class="card" data-region="waterfall"><h2>Time at each status</h2>$waterfall</section>
<section class="card" data-region="history"><h2>History</h2>$history</section>
$traffic
</article>
<aside class="banner" data-region="banner" aria-label="Progress">$banner</aside>
<div class="toasts" data-toasts></div>"""
_TRAFFIC = """<section class="card" data-region="deliveries"><h2>Notifications of the provider</h2>$deliveries</section>
<section class="card" data-region="calls"><h2>Calls to the provider</h2>$calls</section>"""
_DELETE = """<details class="confirm"><summary class="button danger">Delete…</summary>
<form method="post" action="/clips/$id/delete" class="card" data-asks>
<p>$what, and the clip ends. This cannot be undone.</p>
<button class="danger">Delete this clip</button></form></details>"""
_FACT = "<div><dt>$name</dt><dd>$value</dd></div>"
_UNKNOWN = """<section class="card notice" data-unknown>
<h1>No such clip</h1>
<p>$message.</p>
<p><code>$id</code></p>
<p><a href="/">All clips</a></p>
</section>"""


@dataclass(frozen=True, slots=True)
class _Seen:
    """All that the page tells of, read one after the other over one connection."""

    clip: Clip
    events: list[Event]
    moves: list[Event]
    pruned_before: datetime | None
    pending: list[PendingSignal]
    leadership: Leadership
    heavy_step: StepOnHand | None
    artifacts: list[Artifact]
    deliveries: list[Delivery]
    refusals: list[Refusal]
    calls: list[MadeCall]


async def show_page(request: web.Request) -> web.Response:
    """The clip's page; for an id nobody knows it says whether to wait."""
    clip_id = request.match_info["id"]
    try:
        if not CLIP_ID.fullmatch(clip_id):
            raise UnknownClip(clip_id)
        async with connection_of(request) as connection:
            seen = await _read(connection, clip_id)
            await request.app[EXPECTATIONS].refresh(connection)
    except UnknownClip:
        return _unknown_page(request, clip_id)
    assets = request.app[ASSETS]
    head = fill(_HEAD, style=assets.address("clip.css"), refresh=EMPTY if _is_at_rest(seen) else _REFRESH)
    return page(request, parts.name_of(seen.clip), _main(request, seen), head=head, scripts=("clip.js",))


async def _read(connection: asyncpg.Connection, clip_id: str) -> _Seen:
    clip = await known_clip(connection, clip_id)
    is_at_provider = clip.cloudflare_uid is not None
    return _Seen(
        clip=clip,
        events=await read_newest_events(connection, clip_id, _HISTORY_MAX),
        moves=await read_newest_moves(connection, clip_id, STAYS_MAX),
        pruned_before=await read_pruned_before(connection, clip_id),
        pending=await read_pending(connection, clip_id),
        leadership=await read_leadership(connection),
        heavy_step=await read_step_of(connection, clip_id),
        artifacts=await read_artifacts(connection, clip_id),
        deliveries=await read_deliveries(connection, clip_id) if is_at_provider else [],
        refusals=await read_refusals(connection) if is_at_provider else [],
        calls=await read_calls(connection, clip.cloudflare_uid) if clip.cloudflare_uid is not None else [],
    )


def _is_at_rest(seen: _Seen) -> bool:
    """Whether nothing more comes by itself: a failed clip that will be tried again has not come to its end."""
    return is_terminal(seen.clip.status) and not seen.pending and retry_moment(seen.clip) is None


def _unknown_page(request: web.Request, clip_id: str) -> web.Response:
    said, may_appear = why_unknown(clip_id, services_of(request).now())
    main = fill(_UNKNOWN, message=said, id=shorten(clip_id))
    refresh = markup('<meta http-equiv="refresh" content="5">') if may_appear else EMPTY
    return page(request, "No such clip", main, head=refresh, status=404)


def _main(request: web.Request, seen: _Seen) -> Markup:
    clip, now = seen.clip, seen.leadership.now
    may_act = request[CALLER].may_act
    expectations: Expectations = request.app[EXPECTATIONS]
    view = StatusView(
        clip=clip,
        pending=seen.pending,
        leadership=seen.leadership,
        expected_seconds=expectations.range_seconds(clip, now),
        may_retry=may_act and _may_retry(clip),
        heavy_step=seen.heavy_step,
    )
    return fill(
        _MAIN,
        id=clip.id,
        terminal="yes" if _is_at_rest(seen) else "no",
        version=clip.version,
        now=timestamp(now),
        name=parts.name_of(clip),
        status=status_card(view),
        player=player(clip, request.app[ASSETS].find("hls.js")),
        outputs=outputs(request, clip, seen.artifacts),
        links=links(clip),
        actions=_actions(clip) if may_act else EMPTY,
        facts=_facts(clip),
        waterfall=waterfall(clip, seen.moves, expectations.usual, now),
        history=history(seen.events, clip, is_cut=len(seen.events) == _HISTORY_MAX, pruned_before=seen.pruned_before),
        traffic=_traffic(seen, may_act) if clip.cloudflare_uid else EMPTY,
        banner=EMPTY if _is_at_rest(seen) else banner(view),
    )


def _traffic(seen: _Seen, may_act: bool) -> Markup:
    return fill(
        _TRAFFIC,
        deliveries=notifications(seen.clip, seen.deliveries, seen.refusals, may_act=may_act),
        calls=calls(seen.clip, seen.calls),
    )


def _actions(clip: Clip) -> Markup:
    if clip.processing_details.get("delete_requested"):
        return EMPTY
    what = "The video is removed at the provider" if clip.cloudflare_uid else "What was made of it is removed"
    return fill(_DELETE, id=clip.id, what=what)


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
    ]
    items = join(fill(_FACT, name=name, value=value) for name, value in facts if value not in (None, EMPTY))
    return fill('<dl class="facts">$items</dl>', items=items)


def clip_id_of_page(request: web.Request) -> str:
    """The id in a page's address."""
    clip_id = request.match_info["id"]
    if not CLIP_ID.fullmatch(clip_id):
        raise Problem("unknown-clip", f"No clip has the id {shorten(clip_id)}")
    return clip_id
