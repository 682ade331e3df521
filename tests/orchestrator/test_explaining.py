"""The sentence: one named case per row of its tables, and what must never come of strangers' details."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.explaining import Leadership, explain, read_leadership, spell
from orchestrator.pipelines.limits import LONGEST_BLIND
from orchestrator.pipelines.stream.limits import LIMITS
from orchestrator.storage.clips import Clip
from orchestrator.storage.heavy_steps import StepOnHand
from orchestrator.storage.pool import connect
from statusutils import STREAM

NOW = datetime(2026, 11, 21, 14, 12, 0, tzinfo=UTC)
SINCE = NOW - timedelta(minutes=12)
LED = Leadership(NOW, leads=True, since=NOW - timedelta(days=1), round_age_seconds=2.0)
UNLED = Leadership(NOW, leads=False)


def clip(status: str, details: dict[str, Any] | None = None, **columns: Any) -> Clip:
    values: dict[str, Any] = dict.fromkeys(Clip.__slots__)
    values |= {
        "id": "c1",
        "pipeline": "stream",
        "cloudflare_uid": "uid1",
        "status": status,
        "progress": 50.0,
        "processing_details": details or {},
        "attempt": 1,
        "created_at": SINCE,
        "updated_at": SINCE,
        "status_since": SINCE,
        "look_at": NOW + timedelta(seconds=12),
        "tries": 0,
        "pending": 0,
        "epoch": 1,
        "version": 1,
    }
    return Clip(**values | columns)


def problem(ago_seconds: float, **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(seconds=ago_seconds)).isoformat()
    return {"last_problem": {"code": "store_failing", "text": "The object store answered 503.", "at": at}, **more}


STANDING = [
    ("bytes-awaited", clip("uploading"), "Cloudflare waits for its bytes (at uploading since 14:00:00 UTC, 12 min);"),
    (
        "bytes-coming",
        clip("uploading", {"cloudflare_status": "pendingupload"}),
        "Cloudflare waits for the rest of its bytes (at uploading since 14:00:00 UTC",
    ),
    ("fetching", clip("uploading", {"cloudflare_status": "downloading"}), "Cloudflare is fetching it from its address"),
    (
        "copy-not-asked-for",
        clip("uploading", {"has_source_url": True}, cloudflare_uid=None),
        "Cloudflare is being asked to fetch it from its address",
    ),
    (
        "copy-asked-for",
        clip("uploading", {"has_source_url": True, "copied_in_attempt": 1}),
        "Cloudflare was asked to fetch it from its address",
    ),
    (
        "copy-asked-for-in-an-attempt-before",
        clip("uploading", {"has_source_url": True, "copied_in_attempt": 1}, attempt=2),
        "Cloudflare is being asked to fetch it",
    ),
    ("no-video", clip("uploading", cloudflare_uid=None), "Nobody has named its video at Cloudflare"),
    ("queued", clip("queued"), "Cloudflare has its bytes and has not begun to encode it"),
    ("processing", clip("processing"), "Cloudflare is encoding it (at processing since 14:00:00 UTC, 12 min)"),
    ("stream-ready", clip("stream_ready"), "It can be streamed, and its MP4 is asked for when all renditions are made"),
    ("waitformp4", clip("waitformp4"), "Cloudflare was asked for the MP4 and has not begun to make it"),
    (
        "mp4-failed",
        clip("waitformp4", {"mp4_status": "error"}),
        "Cloudflare failed to make the MP4 and is asked afresh, 3 times at most (at waitformp4 since",
    ),
    (
        "mp4-percent",
        clip("mp4_processing", {"mp4_percent_complete": 42.3}),
        "Cloudflare is making the MP4, 42 % so far (at",
    ),
    ("mp4-no-percent", clip("mp4_processing", {"mp4_percent_complete": True}), "Cloudflare is making the MP4 (at mp4_"),
    ("downloading", clip("mp4downloading"), "The MP4 is being fetched, and nothing of it is in the bucket yet"),
    ("writing", clip("r2_uploading"), "The MP4 is being written to the bucket part by part"),
    (
        "problem",
        clip("r2_uploading", problem(20), tries=3),
        "20 s ago it met a problem, the last of 3 failed tries (15 at most):"
        " The object store answered 503 (store_failing)"
        " (at r2_uploading since 14:00:00 UTC, 12 min); the monitor looks again in 12 s",
    ),
    (
        "problem-that-was-seen-through",
        clip("processing", problem(20, last_checked=NOW.isoformat())),
        "Cloudflare is encoding it",
    ),
    ("problem-of-the-status-before", clip("processing", problem(1000)), "Cloudflare is encoding it"),
    (
        "complete",
        clip("complete", look_at=None, completed_at=SINCE),
        "Complete since 14:00:00 UTC: the file is in the bucket; nothing more happens.",
    ),
    (
        "complete-and-being-removed",
        clip("complete", {"delete_requested": True}),
        "Complete since 14:00:00 UTC: the file is in the bucket; its video is being removed at Cloudflare.",
    ),
    (
        "complete-and-removed",
        clip("complete", {"delete_requested": True, "deleted_at": NOW.isoformat()}, look_at=None),
        "Complete since 14:00:00 UTC: the file is in the bucket, and its video was removed at Cloudflare;"
        " nothing more happens.",
    ),
    (
        "error-that-can-be-retried",
        clip("error", error_message="The object store refused.", mp4_url="https://d/x.mp4", look_at=None, attempt=2),
        "Failed at 14:00:00 UTC in attempt 2: The object store refused; it stays so until somebody retries it,"
        " which starts attempt 3 at mp4downloading.",
    ),
    (
        "error-with-nothing-left",
        clip("error", {"error_code": "upload_expired"}, error_message="No bytes arrived", look_at=None),
        "Failed at 14:00:00 UTC in attempt 1: No bytes arrived; it stays so, for nothing is left that a new attempt"
        " could start from.",
    ),
    (
        "error-without-a-reason",
        clip("error", look_at=None),
        "Failed at 14:00:00 UTC in attempt 1: no reason was given; it stays so until somebody retries it",
    ),
    (
        "deleted-by-somebody",
        clip("error", {"delete_requested": True}, error_message="Deleted on request"),
        "Failed at 14:00:00 UTC in attempt 1: Deleted on request; its video is being removed at Cloudflare.",
    ),
    (
        "status-of-a-newer-version",
        clip("polishing"),
        "This program does not know this status of the pipeline stream (at polishing since 14:00:00 UTC, 12 min);"
        " only a newer version moves it.",
    ),
    (
        "pipeline-of-a-newer-version",
        clip("uploading", pipeline="dream"),
        "This program does not know this status of the pipeline dream (at uploading",
    ),
]


@pytest.mark.parametrize(("standing", "begins"), [case[1:] for case in STANDING], ids=[case[0] for case in STANDING])
def test_it_says_why_the_clip_stands_there(standing: Clip, begins: str) -> None:
    assert explain(standing, NOW, LED).startswith(begins)


@pytest.mark.parametrize(
    ("heavy_step", "begins"),
    [
        (StepOnHand("transfer-to-bucket", False, None, True), "Its transfer waits for a free place on a worker (at"),
        (
            StepOnHand("transfer-to-bucket", True, "h:7\n", True),
            "The worker h:7 is transferring its MP4 into the bucket",
        ),
        (
            StepOnHand("transfer-to-bucket", True, None, False),
            "A worker that was not heard of for seconds is transferring",
        ),
        # Nobody lives who would take it: the next look has the monitor do it itself.
        (StepOnHand("transfer-to-bucket", False, None, False), "The MP4 is being fetched"),
        (None, "The MP4 is being fetched"),
    ],
    ids=["waits", "runs", "not heard of", "taken back", "here"],
)
def test_it_says_where_the_transfer_is(heavy_step: StepOnHand | None, begins: str) -> None:
    assert explain(clip("mp4downloading"), NOW, LED, heavy_step).startswith(begins)


FOLLOWING = [
    (
        "next-look-and-deadline",
        clip("processing"),
        LED,
        "; the monitor looks again in 12 s, and fails it at 2026-11-22 02:00:00 UTC if it is still here.",
    ),
    (
        "due-now",
        clip("processing", look_at=NOW - timedelta(seconds=1)),
        LED,
        "; the monitor looks now, and fails it at 2026-11-22 02:00:00 UTC if it is still here.",
    ),
    (
        "late",
        clip("processing", look_at=NOW - timedelta(seconds=40)),
        LED,
        "; the monitor is 40 s late with its next look, and fails it at 2026-11-22 02:00:00 UTC if it is still here.",
    ),
    (
        "deadline-passed",
        clip("processing", status_since=NOW - timedelta(hours=13)),
        LED,
        "; the monitor looks again in 12 s and fails it if that does not move it,"
        " for its time here ended at 13:12:00 UTC.",
    ),
    (
        "upload-expires-before-the-deadline",
        clip("uploading", {"cloudflare_status": "pendingupload"}, upload_expires_at=NOW + timedelta(hours=1)),
        LED,
        "and fails it at 15:17:00 UTC if it is still here.",
    ),
    (
        "upload-expiry-does-not-matter-once-bytes-came",
        clip("uploading", {"cloudflare_status": "downloading"}, upload_expires_at=NOW + timedelta(hours=1)),
        LED,
        "and fails it at 2026-11-23 14:00:00 UTC if it is still here.",
    ),
    (
        "one-signal",
        clip("processing", {"requested_status": "stream_ready"}, pending=1),
        LED,
        "; a signal waits to be judged, for stream_ready: the monitor does that next.",
    ),
    (
        "two-signals",
        clip("error", {"requested_status": "waitformp4"}, pending=2, look_at=None),
        LED,
        "; 2 signals wait to be judged, the furthest for waitformp4: the monitor does that next.",
    ),
    (
        "nobody-leads",
        clip("processing"),
        UNLED,
        "; no monitor leads, so nothing happens until one runs (`orchestrator monitor`).",
    ),
    (
        "nobody-leads-since",
        clip("processing"),
        replace(UNLED, since=NOW - timedelta(minutes=2)),
        "; no monitor leads since 14:10:00 UTC, so nothing happens until one runs (`orchestrator monitor`).",
    ),
    (
        "nobody-leads-and-a-signal-waits",
        clip("error", pending=1, look_at=None),
        UNLED,
        "; no monitor leads, so nothing happens until one runs (`orchestrator monitor`).",
    ),
    ("nobody-leads-and-nobody-is-needed", clip("complete", look_at=None), UNLED, "; nothing more happens."),
    (
        "the-leader-hangs",
        clip("processing"),
        replace(LED, round_age_seconds=22.0),
        "; the monitor that leads has not come round for 22 s, and everything waits for it.",
    ),
    ("nothing-known-of-the-monitor", clip("complete", look_at=None), None, "; nothing more happens."),
]


@pytest.mark.parametrize(
    ("standing", "leadership", "ends"), [case[1:] for case in FOLLOWING], ids=[case[0] for case in FOLLOWING]
)
def test_it_says_what_happens_next(standing: Clip, leadership: Leadership | None, ends: str) -> None:
    assert explain(standing, NOW, leadership).endswith(ends)


def test_every_status_has_words_of_its_own() -> None:
    sentences = {explain(clip(status.name), NOW, LED).partition(" (at")[0] for status in STREAM.statuses}
    assert len(sentences) == len(STREAM.statuses)
    assert not any(sentence.startswith("It is under way") for sentence in sentences)


def test_every_status_that_has_a_deadline_names_it() -> None:
    for status, limit in LIMITS.items():
        at = SINCE + limit.stay
        day = "" if at.date() == NOW.date() else f"{at:%Y-%m-%d} "
        assert f"fails it at {day}{at:%H:%M:%S} UTC if it is still here." in explain(clip(status), NOW, LED)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = (
    "last_problem",
    "last_checked",
    "cloudflare_status",
    "mp4_status",
    "mp4_percent_complete",
    "has_source_url",
    "copied_in_attempt",
    "requested_status",
    "error_message",
    "error_code",
    "delete_requested",
    "deleted_at",
)
_PROBLEM = st.fixed_dictionaries({}, optional={"at": st.just(NOW.isoformat()) | _ANY, "text": _ANY, "code": _ANY})


@given(
    status=st.sampled_from([*STREAM.by_name, "unheard-of"]),
    details=st.dictionaries(st.sampled_from(_NAMES), _ANY | _PROBLEM),
    pending=st.integers(0, 1000),
    leadership=st.sampled_from([LED, UNLED, None]),
)
def test_strangers_details_break_nothing_and_steer_nothing(
    status: str, details: dict[str, Any], pending: int, leadership: Leadership | None
) -> None:
    look_at = None if status in ("complete", "error") else NOW
    sentence = explain(clip(status, details, pending=pending, look_at=look_at), NOW, leadership)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert len(sentence) < 900


def test_a_reason_is_one_short_line() -> None:
    said = explain(clip("error", error_message="a\n\x1b[2J\u202eb" + "x" * 5000, look_at=None), NOW, LED)
    assert "attempt 1: a [2J bxxx" in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (172_799, "47 h 59 min"),
        (172_800, "2 d"),
        (180_000, "2 d 2 h"),
    ],
)
def test_spans_have_two_units_at_most(seconds: float, words: str) -> None:
    assert spell(timedelta(seconds=seconds)) == words


async def lead(database: str, expires_at: str, round_at: str = "NULL") -> Leadership:
    owner = await asyncpg.connect(database)
    await owner.execute(
        f"UPDATE monitor_lease SET holder = 'h', epoch = 1, taken_at = '2026-01-01Z',"
        f" expires_at = {expires_at}, round_at = {round_at}"
    )
    await owner.close()
    asking = await connect(database, "orchestrator_api", "test")
    try:
        return await read_leadership(asking)
    finally:
        await asking.close()


async def test_the_lease_tells_who_leads(database: str) -> None:
    found = await lead(database, "clock_timestamp() + interval '9 s'", "clock_timestamp() - interval '30 s'")
    assert (found.leads, found.since, found.hangs) == (True, datetime(2026, 1, 1, tzinfo=UTC), True)
    assert found.now.tzinfo is not None


async def test_a_lease_that_ran_out_tells_since_when(database: str) -> None:
    found = await lead(database, "'2026-02-02Z'", "clock_timestamp() - interval '30 s'")
    assert (found.leads, found.since, found.hangs) == (False, datetime(2026, 2, 2, tzinfo=UTC), False)


async def test_a_lease_that_was_given_back_tells_nothing_more(database: str) -> None:
    found = await lead(database, "'-infinity'")
    assert (found.leads, found.since) == (False, None)


# ---- limits --------------------------------------------------------------------------------------------------------


def test_a_clock_that_stands_still_is_told_with_its_last_moment() -> None:
    unseen = {"status": "queued", "attempt": 1, "since": SINCE.isoformat(), "at": SINCE.isoformat(), "seconds": 0}
    sentence = explain(clip("queued", problem(20, unseen=unseen)), NOW, LED)
    latest = SINCE + LIMITS["queued"].stay + LONGEST_BLIND
    assert "its time here stands still until something can be seen of it or done for it" in sentence
    assert sentence.endswith(f"and ends at {latest:%Y-%m-%d %H:%M:%S} UTC at the latest.")


def test_time_without_sight_is_added_to_the_end() -> None:
    unseen = {"status": "queued", "attempt": 1, "since": None, "at": None, "seconds": 1800}
    end = SINCE + LIMITS["queued"].stay + timedelta(minutes=30)
    assert f"fails it at {end:%H:%M:%S} UTC" in explain(clip("queued", {"unseen": unseen}), NOW, LED)


@pytest.mark.parametrize(
    ("details", "attempt", "ends"),
    [
        (
            {"retry_at": (NOW + timedelta(minutes=5)).isoformat()},
            1,
            "it is tried again by itself at 14:17:00 UTC, in attempt 2 of 3 at most, at mp4downloading.",
        ),
        (
            {"retry_at": SINCE.isoformat()},
            2,
            "it is tried again by itself now, in attempt 3 of 3 at most, at mp4downloading.",
        ),
        (
            {"retry_at": SINCE.isoformat()},
            3,
            "it stays so until somebody retries it, which starts attempt 4 at mp4downloading.",
        ),
        ({"retry_at": "soon"}, 1, "it stays so until somebody retries it, which starts attempt 2 at mp4downloading."),
    ],
)
def test_a_failed_clip_says_whether_it_is_tried_again_by_itself(details: Any, attempt: int, ends: str) -> None:
    failed = clip("error", details, attempt=attempt, mp4_url="https://m/", look_at=None)
    assert explain(failed, NOW, LED).endswith(ends)
