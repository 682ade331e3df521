"""What is decided without a database or a provider: the law, the merge of signals, and what one look comes to.

For whatever row and whatever is seen the decision is lawful and leads somewhere; signals in any order end in the same
place; a clip ends within its limits whatever happens to it; and the journals of clips that were kept are decided today
as they were then.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from house.standing import standing_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lanes.journals import JOURNALS, STORIES, journal_of
from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import NEEDS_A_PERSON, DriverError, PermanentError, TransientError
from orchestrator.monitor.deadlines import Sight
from orchestrator.monitor.failures import BLAMELESS, Failure, after_failure
from orchestrator.monitor.judging import Signal, settle
from orchestrator.monitor.looking import _Broke, _outcome
from orchestrator.monitor.moves import Move
from orchestrator.pipelines.limits import RETRY_WAITS, ends_at_the_latest
from orchestrator.pipelines.stream.plan import NOTHING, StreamPolicy, VideoMissing, stream_pipeline
from orchestrator.storage.clips import Clip
from statusutils import COMPLETE, ERROR, STREAM, is_valid_status_transition, span

PIPELINE = stream_pipeline(StreamPolicy())
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAMES = [row.name for row in STREAM.statuses]
CODES = sorted(BLAMELESS | NEEDS_A_PERSON | {"source_cut", "store_failing", "outcome_unknown", "internal", "too_long"})

anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=2)
)
around_now = st.datetimes(datetime(2026, 5, 20), datetime(2026, 6, 2), timezones=st.just(UTC))
written_times = around_now.map(lambda at: at.isoformat())
problems = st.builds(TransientError, st.sampled_from(CODES), st.just("said")) | st.builds(
    PermanentError, st.sampled_from(CODES), st.just("said")
)
KEYS = (
    "has_source_url", "copied_in_attempt", "copied_from_url", "delete_requested", "deleted_at", "mp4_makes",
    "mp4_makes_in_attempt", "mp4_asked_at", "error_code", "last_problem", "require_signed_urls", "last_checked",
    "requested_status", "unseen", "retry_at", "abandoned_in_attempt",
)  # fmt: skip
unseen = st.fixed_dictionaries(
    {"status": st.sampled_from(NAMES), "attempt": st.integers(1, 2)},
    optional={"since": written_times | anything, "at": written_times | anything, "seconds": anything},
)
last_problem = st.fixed_dictionaries(
    {}, optional={"code": st.sampled_from(CODES) | anything, "text": anything, "at": written_times | anything}
)
documents = st.dictionaries(st.sampled_from(KEYS), anything | written_times | unseen | last_problem, max_size=7)
addresses = st.none() | st.just("https://x/")
videos = st.builds(
    Video,
    uid=st.just("u"),
    state=st.sampled_from(VideoState),
    state_raw=st.text(max_size=10),
    percent=st.none() | st.floats(0, 100),
    error_code=st.none() | st.sampled_from(["ERR_UNKNOWN", "ERR_NON_VIDEO", ""]),
    hls_url=addresses,
    upload_expires_at=st.none() | around_now,
)
downloads = st.builds(Download, st.sampled_from(DownloadState), st.none() | st.floats(0, 100), addresses)
sights = st.none() | videos | downloads | st.just(VideoMissing()) | problems | st.just(_Broke())


def clip(status: str, **changes: Any) -> Clip:
    values: dict[str, Any] = {one.name: None for one in fields(Clip)} | {
        "id": "c", "pipeline": "stream", "cloudflare_uid": "u", "status": status, "attempt": 1, "version": 1,
        "progress": STREAM[status].min_progress, "processing_details": {}, "tries": 0, "pending": 0, "epoch": 1,
        "created_at": NOW, "updated_at": NOW, "status_since": NOW, "look_at": NOW,
    }  # fmt: skip
    return Clip(**(values | changes))


clips = st.builds(
    clip,
    status=st.sampled_from(NAMES),
    cloudflare_uid=st.none() | st.just("u"),
    attempt=st.integers(1, 4),
    tries=st.integers(0, 20),
    processing_details=documents,
    status_since=around_now,
    look_at=around_now,
    upload_expires_at=st.none() | around_now,
    mp4_url=addresses,
    hls_url=addresses,
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    """Thousands of looks that break on purpose would fill the log."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def examples(amount: Any, in_ci: int, in_a_release: int) -> Any:
    return settings(
        max_examples=amount(in_ci, in_a_release),
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def is_lawful(move: Move) -> bool:
    """Whether the database would take it: a step of the table or a stay, progress in its span and not falling."""
    before, after = move.before, move.after
    if after.attempt != before.attempt:
        low, high = span(after.status)
        opens = after.attempt == before.attempt + 1 and before.status == ERROR
        return opens and after.status not in (COMPLETE, ERROR) and low <= after.progress <= high
    moved = after.status != before.status
    if moved and not is_valid_status_transition(before.status, after.status):
        return False
    if after.status == ERROR:
        return after.progress == before.progress
    return after.progress >= before.progress


def test_one_look_at_whatever_clip_comes_to_something_lawful(amount: Any, figures: Any) -> None:
    looked = count()

    @examples(amount, 5_000, 200_000)
    @given(clips, sights)
    def holds(standing: Clip, sees: Any) -> None:
        next(looked)
        problem = sees if isinstance(sees, DriverError) else None
        outcome = _outcome(PIPELINE, standing, sees, Sight(PIPELINE.look_kind(standing) != NOTHING, problem), NOW)
        move = outcome.move
        assert is_lawful(move)
        ends = move.after.status in (COMPLETE, ERROR)
        assert ends or move.look_at is not None, "what has not ended is always looked at again"
        assert move.look_at is None or move.look_at >= NOW
        if move.changes_status:
            assert move.entries, "a move stands in the history"
            assert all(entry.details.get("reason") for entry in move.entries)
        limit = PIPELINE.limits.get(standing.status)
        if limit is not None and ends_at_the_latest(limit, standing) < NOW:
            assert move.changes_status or isinstance(sees, _Broke), "past its last moment nothing rests"
        if move.after.attempt > move.before.attempt:
            assert standing.attempt <= len(RETRY_WAITS), "no more automatic attempts than there are"
        json.dumps(dict(move.details), default=None)

    holds()
    figures.add(looks=next(looked))


@st.composite
def inboxes(draw: Any) -> list[Signal]:
    return [
        Signal(
            n,
            draw(st.integers(1, 3)),
            draw(st.sampled_from([*NAMES, "unheard-of"])),
            draw(st.sampled_from(["api", "webhook", "step"])),
            {"n": n},
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for n in range(draw(st.integers(1, 6)))
    ]


def test_signals_in_any_order_and_number_end_in_the_same_place(amount: Any, figures: Any) -> None:
    judged = count()

    @examples(amount, 5_000, 200_000)
    @given(clips, inboxes(), st.randoms(use_true_random=False))
    def holds(clip: Clip, signals: list[Signal], random: Any) -> None:
        next(judged)
        standing = standing_of(clip)
        once = settle(STREAM, standing, signals, NOW)
        shuffled = [*signals, *random.choices(signals, k=random.randint(0, 3))]
        random.shuffle(shuffled)
        again = settle(STREAM, standing, shuffled, NOW)
        assert is_lawful(once)
        assert again.after == once.after
        assert len(once.entries) == len(signals), "each is judged once and stands in the history"
        assert once.look_at is not None or once.after.status in (COMPLETE, ERROR)

    holds()
    figures.add(inboxes=next(judged))


def test_whatever_happens_to_a_clip_it_ends_within_its_limits(amount: Any, figures: Any) -> None:
    lives = count()
    # What a look or an effect meets: nothing new, the provider away, a refusal, a fault of ours, a failed effect.
    happens = st.lists(
        st.none() | problems | st.just(_Broke()) | st.builds(lambda problem: (problem,), problems),
        min_size=1,
        max_size=8,
    )

    @examples(amount, 500, 20_000)
    @given(st.sampled_from(list(PIPELINE.limits)), happens)
    def holds(status: str, script: list[Any]) -> None:
        next(lives)
        resting = replace(PIPELINE, plan=lambda clip, seen, now: replace(_STAY, look_at=now + timedelta(minutes=10)))
        standing, now, limit = clip(status, mp4_url="https://m/"), NOW, PIPELINE.limits[status]
        for step in count():
            met = script[step % len(script)]
            sees = None if isinstance(met, tuple) else met
            move = _outcome(
                resting, standing, sees, Sight(True, sees if isinstance(sees, DriverError) else None), now
            ).move
            standing = applied(standing, move)
            if isinstance(met, tuple) and standing.status != ERROR:  # the look has started an effect, which fails
                move = after_failure(PIPELINE.limits, standing, Failure("effect", met[0], now), now)
                standing = applied(standing, move)
            if standing.status == ERROR:
                break
            assert now <= ends_at_the_latest(limit, standing) + timedelta(hours=2), script
            now = max(now + timedelta(seconds=5), move.look_at or now)
        assert standing.processing_details["error_message"]

    holds()
    figures.add(lives=next(lives))


_STAY = PIPELINE.plan(clip("r2_uploading", mp4_url="https://m/"), None, NOW)


def applied(standing: Clip, move: Move) -> Clip:
    kept = {key: value for key, value in standing.processing_details.items() if key not in move.cleared}
    return replace(
        standing,
        status=move.after.status,
        tries=standing.tries if move.tries is None else move.tries,
        look_at=move.look_at,
        processing_details=kept | dict(move.details),
    )


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_kept_journal_is_decided_as_it_was(story: Any, figures: Any) -> None:
    kept = JOURNALS / f"{story.name}.txt"
    assert journal_of(story) == kept.read_text("utf-8"), "python -m lanes.journals --write, if the change is meant"
    figures.add(journals=1)


def test_every_journal_that_was_kept_has_its_story() -> None:
    assert {path.stem for path in Path(JOURNALS).glob("*.txt")} == {story.name for story in STORIES}
