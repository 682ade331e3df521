"""The figures of the board: who leads and what waits, how many clips stand where, what was completed, what fails."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from orchestrator.explaining import ROUND_AGE_MAX_SECONDS, spell_seconds
from orchestrator.noticing import VIEWS
from orchestrator.storage.board import WAITING_MAX, Bar, Count, Engine, Figures
from orchestrator.web.board import Picture, in_order
from orchestrator.web.expecting import Usual
from orchestrator.web.pages import parts, plots
from orchestrator.web.pages.board_rows import WARNING
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join, markup
from orchestrator.web.reading import ListQuery
from orchestrator.web.views import message_of, state_of
from statusutils import ERROR

# Work that waits longer than this is worth a word of warning: a round comes each second.
_LATE_SECONDS = 30.0

_STRIP = '<dl class="strip">$items</dl>$age'
_ITEM = '<div class="$how"><dt>$name</dt><dd>$icon<span>$value</span></dd></div>'
_LEADER = "<bdi><code>$leader</code></bdi> leads in epoch $epoch, taken over $since"
_AGE = '<p class="dim">Figures of $at</p>'
_STALE = """<p class="note failed" role="alert">$problem. These figures are $age old.
<a href="">Try again</a></p>"""
_NONE = '<p class="note failed" role="alert">$problem; there are no figures to show. <a href="">Try again</a></p>'
_VIEWS = '<ul class="views">$items</ul>'
_VIEW = '<li><a href="$href"$current>$title$number</a></li>'
_NUMBER = ' <b class="number">$number</b>'
_PLACES = (
    '<section class="places" aria-label="Clips of the pipeline $pipeline"><h2>$pipeline</h2><ul>$items</ul></section>'
)
_PLACE = """<li><a class="place $state$empty" href="$href"$current>$icon<span>$word</span>
<b class="number">$number</b></a></li>"""
_PLOTS = """<div class="plots">
<section class="card"><h2>Completed in the last hour: $of_hour</h2>$minutes$minutes_table</section>
<section class="card"><h2>Completed in the last day: $of_day</h2>$hours$hours_table</section>
$stages$reasons</div>"""
_STAGES = '<section class="card wide"><h2>Usual time at each status</h2>$table</section>'
_REASONS = """<section class="card"><h2>Why clips failed lately</h2><ul class="reasons">$items</ul>
<p class="dim">Of the thousand failed clips that were made last.</p></section>"""
_REASON = '<li><a href="$href"><code><bdi>$code</bdi></code></a> <b class="number">$number</b></li>'


def number(clips: int, at_least: bool = False) -> str:
    """A count for people; ``10,000+`` where counting was ended."""
    return f"{clips:,}{'+' if at_least else ''}"


def strip(picture: Picture) -> Markup:
    """Who leads, what waits, what is left of the call budget, and how old all this is."""
    figures = picture.figures
    if figures is None:
        return fill(_NONE, problem=picture.problem or "The figures could not be read")
    age = fill(_AGE, at=parts.moment(figures.at))
    if picture.problem is not None:
        age = fill(_STALE, problem=picture.problem, age=spell_seconds(picture.age_seconds))
    engine = figures.engine
    items = [
        _leader(engine),
        _round(engine),
        _waiting("Signals that wait", engine.signals_waiting, engine.oldest_signal_seconds),
        _waiting("Looks that are due", engine.looks_due, engine.latest_look_seconds),
        *_workers(engine),
        _budget(engine),
        _completed(figures),
    ]
    return fill(_STRIP, items=join(items), age=age)


def _item(name: str, value: object, *, bad: bool = False) -> Markup:
    icon = WARNING if bad else EMPTY
    return fill(_ITEM, how="bad" if bad else "good", name=name, icon=icon, value=value)


def _leader(engine: Engine) -> Markup:
    if engine.leader is None:
        return _item("Monitor", "none leads: nothing moves", bad=True)
    leader = fill(_LEADER, leader=engine.leader, epoch=engine.epoch, since=parts.moment(engine.leads_since))
    return _item("Monitor", leader)


def _round(engine: Engine) -> Markup:
    age = engine.round_age_seconds
    if age is None:
        return _item("Last round", "none yet", bad=engine.leader is None)
    return _item("Last round", f"{spell_seconds(age)} ago", bad=age > ROUND_AGE_MAX_SECONDS)


def _waiting(name: str, count: int, seconds: float) -> Markup:
    shown = number(count, count >= WAITING_MAX)
    if not count:
        return _item(name, shown)
    return _item(name, f"{shown}, the first for {spell_seconds(seconds)}", bad=seconds > _LATE_SECONDS)


def _workers(engine: Engine) -> list[Markup]:
    """Nothing where there are none and nothing waits for one: the monitor does everything itself."""
    if not engine.workers and not engine.steps_queued and not engine.steps_running:
        return []
    waiting = number(engine.steps_queued, engine.steps_queued >= WAITING_MAX)
    shown = f"{engine.workers}, at {number(engine.steps_running)} transfers; {waiting} wait for a place"
    return [_item("Workers", shown, bad=not engine.workers)]


def _budget(engine: Engine) -> Markup:
    budget = engine.budget
    if budget is None:
        return _item("Calls to the provider", "none made yet")
    if budget.blocked_seconds > 0:
        return _item("Calls to the provider", f"refused for {spell_seconds(budget.blocked_seconds)} more", bad=True)
    left = f"{budget.calls_left:.0f} of {budget.calls_at_once:.0f} left, {budget.calls_per_second:.1f} more a second"
    if budget.provider_left is not None:
        left += f"; the provider says {number(budget.provider_left)}"
    return _item("Calls to the provider", left, bad=budget.calls_left < 1)


def _completed(figures: Figures) -> Markup:
    of_hour, of_day = (sum(bar.clips for bar in bars) for bars in (figures.minutes, figures.hours))
    return _item("Completed", f"{number(of_hour)} in the last hour, {number(of_day)} in a day")


def views(figures: Figures | None, query: ListQuery) -> Markup:
    """The ways of looking at the board, with their counts."""
    items = [_view("All clips", {}, None, current=not query.is_filtered)]
    for name, view in VIEWS.items():
        found = [each for each in figures.views if each.status == name] if figures is not None else None
        items.append(_view(view.title, {"view": name}, found, current=query.view == name))
    failed = [each for each in figures.counts if each.status == ERROR] if figures is not None else None
    is_failed = query.view is None and query.statuses == (ERROR,)
    items.append(_view("Failed", {"status": ERROR}, failed, current=is_failed))
    return fill(_VIEWS, items=join(items))


def _view(title: str, filters: dict[str, str], counts: list[Count] | None, *, current: bool) -> Markup:
    shown = EMPTY
    if counts is not None:
        at_least = any(each.at_least for each in counts)
        shown = fill(_NUMBER, number=number(sum(each.clips for each in counts), at_least))
    return fill(
        _VIEW, href=f"/?{urlencode(filters)}" if filters else "/", title=title, number=shown, current=_here(current)
    )


def _here(current: bool) -> Markup:
    return markup(' aria-current="true"') if current else EMPTY


def places(figures: Figures | None, query: ListQuery) -> Markup:
    """How many clips stand at each status of each pipeline that has any."""
    if figures is None:
        return EMPTY
    pipelines = dict.fromkeys(each.pipeline for each in figures.counts)
    found = []
    for pipeline in pipelines:
        counts = [each for each in figures.counts if each.pipeline == pipeline]
        if any(each.clips for each in counts) or query.pipeline == pipeline:
            items = join(_place_item(each, query) for each in counts)
            found.append(fill(_PLACES, pipeline=pipeline, items=items))
    return join(found)


def _place_item(count: Count, query: ListQuery) -> Markup:
    state = state_of(count.pipeline, count.status)
    is_here = query.statuses == (count.status,) and query.pipeline == count.pipeline
    return fill(
        _PLACE,
        state=state,
        empty="" if count.clips else " empty",
        href="/?" + urlencode({"status": count.status, "pipeline": count.pipeline}),
        current=_here(is_here),
        icon=parts.icon(state),
        word=message_of(count.pipeline, count.status),
        number=number(count.clips, count.at_least),
    )


def plot_cards(picture: Picture) -> Markup:
    """Throughput, the usual time at each status, and the reasons of failures."""
    figures = picture.figures
    if figures is None:
        return EMPTY
    minutes, hours = _bars(figures.minutes), _bars(figures.hours)
    return fill(
        _PLOTS,
        of_hour=number(sum(bar.clips for bar in figures.minutes)),
        of_day=number(sum(bar.clips for bar in figures.hours)),
        minutes=plots.columns(minutes),
        hours=plots.columns(hours),
        minutes_table=plots.table(minutes[::-1], "By the minute", "Minute from", "Clips"),
        hours_table=plots.table(hours[::-1], "By the hour", "Hour from", "Clips"),
        stages=_stages(picture.usual),
        reasons=_reasons(figures),
    )


def _bars(bars: tuple[Bar, ...]) -> list[plots.Value]:
    return [plots.Value(f"{bar.at:%Y-%m-%d %H:%M} UTC", number(bar.clips), bar.clips) for bar in bars]


def _stages(usual: Mapping[tuple[str, str], Usual]) -> Markup:
    rows = [
        plots.Measured(
            message_of(*place),
            (_seconds(each.median_seconds), _seconds(each.p90_seconds)),
            each.median_seconds,
            each.p90_seconds,
        )
        for place, each in in_order(usual)
    ]
    if not rows:
        return EMPTY
    heads = ("Status", "Half of the clips", "Nine of ten")
    return fill(_STAGES, table=plots.measured(rows, "Usual time at each status", heads))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else spell_seconds(seconds)


def _reasons(figures: Figures) -> Markup:
    if not figures.reasons:
        return EMPTY
    items = [
        fill(
            _REASON,
            href="/?" + urlencode({"status": ERROR, "error_code": each.code} if each.code else {"status": ERROR}),
            code=each.code or "no code",
            number=number(each.clips),
        )
        for each in figures.reasons
    ]
    return fill(_REASONS, items=join(items))
