"""Which videos a list call means: the filters of GET /stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.local.stream.envelope import bad_request
from orchestrator.local.stream.store import VideoStore
from orchestrator.local.stream.videos import Video

PAGE_LIMIT = 1000
_STATES = {"pendingupload", "downloading", "queued", "inprogress", "ready", "error", "live-inprogress"}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """One list call, parsed; None means that the parameter was not given."""

    uids: tuple[str, ...] | None
    states: frozenset[str] | None
    names: tuple[str, ...] | None
    video_name: str | None
    search: str | None
    creator: str | None
    live_only: bool
    since: datetime | None
    before: datetime | None
    ascending: bool
    limit: int
    with_counts: bool


@dataclass(frozen=True, slots=True)
class ListPage:
    """The rows, how many match in all, and how many match within the time bounds."""

    rows: list[Video]
    total: int
    within: int


def parse_query(query: Mapping[str, str]) -> ListQuery:
    """The query as values. Raises ApiProblem (400) that says which parameter is wrong."""
    states = _words(query.get("status"))
    if states is not None and (unknown := set(states) - _STATES):
        raise bad_request(f"status: unknown value {sorted(unknown)[0]}")
    return ListQuery(
        uids=_words(query.get("id")),
        states=None if states is None else frozenset(states),
        names=_words(query.get("name")),
        video_name=query.get("video_name"),
        search=query.get("search"),
        creator=query.get("creator"),
        live_only=query.get("type") == "live" or "live_input_id" in query,
        since=_moment(query, "start", "after"),
        before=_moment(query, "end", "before"),
        ascending=_flag(query, "asc"),
        limit=_limit(query.get("limit")),
        with_counts=_flag(query, "include_counts"),
    )


def select(store: VideoStore, query: ListQuery) -> ListPage:
    """The page that *query* means; newest first unless it says otherwise."""
    matching = sorted(
        (video for video in _candidates(store, query) if _matches(video, query)),
        key=lambda video: video.created_at,
        reverse=not query.ascending,
    )
    within = [video for video in matching if _is_within(video, query)]
    return ListPage(within[: query.limit], len(matching), len(within))


def _candidates(store: VideoStore, query: ListQuery) -> Iterable[Video]:
    """With uids only those are looked at: the cost is that of the answer."""
    if query.uids is None:
        return store.oldest_first()
    return [store.get(uid) for uid in dict.fromkeys(query.uids) if uid in store]


def _matches(video: Video, query: ListQuery) -> bool:
    name = str(video.meta.get("name", ""))
    return (
        not query.live_only
        and (query.states is None or video.state in query.states)
        and (query.names is None or bool({name, video.uid} & set(query.names)))
        and (query.video_name is None or name == query.video_name)
        and (query.search is None or query.search.lower() in name.lower())
        and (query.creator is None or video.creator == query.creator)
    )


def _is_within(video: Video, query: ListQuery) -> bool:
    return (query.since is None or video.created_at >= query.since) and (
        query.before is None or video.created_at < query.before
    )


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def _moment(query: Mapping[str, str], *names: str) -> datetime | None:
    name = next((name for name in names if name in query), None)
    if name is None:
        return None
    try:
        at = datetime.fromisoformat(query[name])
    except ValueError as exc:
        raise bad_request(f"{name}: not an RFC 3339 time") from exc
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_LIMIT
    if not text.isdecimal() or not 1 <= int(text) <= PAGE_LIMIT:
        raise bad_request(f"limit: must be 1 to {PAGE_LIMIT}")
    return int(text)
