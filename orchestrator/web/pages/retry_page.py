"""Trying all failed clips of a filter again: what it would do, a confirmation with the number, and what came of it.

Large numbers go in batches, each a form of its own that says how many are left: with scripts the page sends them one
after the other and shows how far it is, without them a person does.
"""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from orchestrator.web.assets import ASSETS
from orchestrator.web.connections import connection_of
from orchestrator.web.edge import may_act
from orchestrator.web.pages.forms import read_form
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.problems import invalid
from orchestrator.web.reading import ListQuery, checked, query_from
from orchestrator.web.retrying import (
    BATCH,
    CONSIDERED_MAX,
    WHY_NOT,
    Count,
    ask_for,
    count_retries,
    failed_before_of,
    refuse_another_count,
    remaining_of,
    tell,
)
from orchestrator.web.views import timestamp

_MAIN = """<h1>Try failed clips again</h1>
<section class="card" data-retry data-asked="$asked" data-remaining="$remaining">
<p>$filter</p>
$result
$count
$form
<p><a href="$back">Back to these clips</a></p>
</section>"""
_COUNT = "<p><strong>$number can be tried again</strong>$automatic.</p>$whole$others"
_OTHERS = "<p>Others cannot, or need not:</p><ul>$items</ul>"
_OTHER = "<li>$number: $why</li>"
_FORM = """<form method="post" action="/retry">$fields
<p class="dim">Each starts again from its last safe place. This only asks; the monitor decides on each.</p>
<p class="buttons"><button class="primary">$verb</button></p></form>"""
_PROGRESS = """<p class="note" role="status">Asked for $asked of $all.</p>
<progress max="$all" value="$asked" aria-label="Clips asked for">$asked of $all</progress>"""
_REFUSED = '<p class="note failed" role="alert">For $number the database refused it: their documents are full.</p>'
_DONE = '<p class="note" role="status">Done: a new attempt was asked for $number.</p>'
_MORE = """<p>More fit than are counted at once. <a class="button" href="$href">Count again</a> when the monitor has
judged these.</p>"""
_FIELD = '<input type="hidden" name="$name" value="$value">'
_FILTERS = ("pipeline", "search", "error_code", "view")


async def show_retry(request: web.Request) -> web.Response:
    """What it would do: nothing is asked yet."""
    query = query_from(request)
    async with connection_of(request) as connection:
        count = await count_retries(connection, query, None)
    return _page(request, query, count, asked=0, done=EMPTY)


async def take_retry(request: web.Request) -> web.Response:
    """Ask for one batch, if the number is still about the one that was confirmed."""
    form = await read_form(request)
    query = checked(ListQuery(**{name: form.get(name) for name in _FILTERS}))  # type: ignore[arg-type]
    expected, before = _number(form, "expected"), _number(form, "asked")
    async with connection_of(request) as connection:
        count = await count_retries(connection, query, failed_before_of(form.get("failed_before", "")))
        refuse_another_count(count, expected)
        recorded, refused = await ask_for(connection, count.retries, min(BATCH, expected))
    tell(request, len(recorded))
    asked = before + len(recorded)
    untried = [each for each in count.retries if each.clip_id not in recorded]
    left = tuple(untried[: remaining_of(count, expected, recorded, refused)])
    done = fill(_REFUSED, number=_clips(len(refused))) if refused else EMPTY
    if not left:
        more = EMPTY if count.is_whole else fill(_MORE, href="/retry?" + urlencode(_filters(query)))
        done = join([done, fill(_DONE, number=_clips(asked)), more])
    still = Count(left, {}, 0, count.is_whole, count.failed_before)
    return _page(request, query, still, asked=asked, done=done)


def _number(form: dict[str, str], name: str) -> int:
    text = form.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise invalid(name, "must be a whole number", text)
    return int(text)


def _page(request: web.Request, query: ListQuery, count: Count, *, asked: int, done: Markup) -> web.Response:
    remaining = len(count.retries)
    result = done
    if asked and remaining:
        result = join([done, fill(_PROGRESS, asked=asked, all=asked + remaining)])
    filters = _filters(query)
    main = fill(
        _MAIN,
        asked=asked,
        remaining=remaining,
        filter=_in_words(query),
        result=result,
        count=_counted(count) if not asked and not done else EMPTY,
        form=_form(request, filters, count, asked),
        back="/?" + urlencode({"status": "error", **filters} if query.view is None else filters),
    )
    style = fill('<link rel="stylesheet" href="$href">', href=request.app[ASSETS].address("board.css"))
    return page(request, "Try failed clips again", main, head=style, scripts=("retry.js",))


def _counted(count: Count) -> Markup:
    automatic = f"; {count.automatic:,} of them would be, by themselves, later" if count.automatic else ""
    whole = EMPTY
    if not count.is_whole:
        whole = fill(
            "<p>$said</p>", said=f"More fit than are counted at once: these are of the newest {CONSIDERED_MAX:,}."
        )
    items = [
        fill(_OTHER, number=_clips(count.not_retried[name]), why=why)
        for name, why in WHY_NOT.items()
        if name in count.not_retried
    ]
    others = fill(_OTHERS, items=join(items)) if items else EMPTY
    return fill(_COUNT, number=_clips(len(count.retries)), automatic=automatic, whole=whole, others=others)


def _form(request: web.Request, filters: dict[str, str], count: Count, asked: int) -> Markup:
    number = len(count.retries)
    if not number:
        return EMPTY
    if not may_act(request):
        return markup('<p class="note">You may look only: ask somebody with a token that may act.</p>')
    fields = filters | {"expected": str(number), "asked": str(asked), "failed_before": timestamp(count.failed_before)}
    verb = f"Go on with the next {min(number, BATCH)}" if asked else f"Try {_clips(number)} again"
    return fill(_FORM, fields=join(fill(_FIELD, name=name, value=value) for name, value in fields.items()), verb=verb)


def _filters(query: ListQuery) -> dict[str, str]:
    values = {name: getattr(query, name) for name in _FILTERS}
    return {name: str(value) for name, value in values.items() if value}


def _in_words(query: ListQuery) -> Markup:
    said = [fill("<bdi><code>$value</code></bdi> as $name", value=value, name=name.replace("_", " "))
            for name, value in _filters(query).items()]  # fmt: skip
    return fill("Failed clips with $said.", said=join(said, ", ")) if said else markup("All failed clips.")


def _clips(number: int) -> str:
    return f"{number:,} clip{'' if number == 1 else 's'}"
