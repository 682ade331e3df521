"""What follows for a clip: one named case for each branch, and what holds for every clip whatever was seen."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers.cloudflare_models import Download, DownloadState, Video, VideoState
from orchestrator.pipelines import PIPELINES, pipeline_for
from orchestrator.pipelines.stream.effects import AbandonTransfer, CopyFromUrl, DeleteVideo, EnableMp4, TransferToBucket
from orchestrator.pipelines.stream.looks import LONGEST_INTERVAL, LONGEST_STRETCH, LONGEST_TICK, STAGES, Outlook
from orchestrator.pipelines.stream.plan import (
    CROWD,
    DELIVERY,
    DOWNLOAD,
    EXPIRY_GRACE,
    MISSING_GRACE,
    MP4_ASKS,
    NOTHING,
    VIDEO,
    WHILE_WORKING,
    NothingThere,
    StreamPolicy,
    VideoMissing,
    implied_status,
    look_kind,
    plan,
    resume_status,
)
from orchestrator.pipelines.terms import Effect, LookKind, Plan
from orchestrator.storage.clips import Clip
from orchestrator.storage.timing import NOT_BEFORE
from statusutils import STREAM, Position, Request, UnknownPipeline, refusal

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
POLICY = StreamPolicy(shortest_interval=timedelta(seconds=5), full_quality_wait=timedelta(seconds=600))
AGO = timedelta(minutes=2)
# Every stage of the clips before lasted two and a half minutes: those of these cases have half a minute before them.
KNOWN = Outlook({(stage, None): (150.0,) * 20 for stage in set(STAGES.values())})
# Then those of a list have waited for a second, and wait for the next tick; an MP4 has waited for two.
SOON, MP4_SOON = timedelta(seconds=35), timedelta(seconds=32)
# Whatever is expected, a clip that has just come to a status is not left alone for longer.
LATEST = timedelta(seconds=60)
# The next moment for lists.
TICK = timedelta(seconds=5)


def clip(status: str = "uploading", since: timedelta = AGO, **changes: Any) -> Clip:
    values: dict[str, Any] = {one.name: None for one in fields(Clip)} | {
        "id": "c", "pipeline": "stream", "cloudflare_uid": "u", "status": status, "attempt": 1, "version": 1,
        "progress": STREAM[status].min_progress, "processing_details": {}, "tries": 0, "pending": 0, "epoch": 1,
        "created_at": NOW - timedelta(hours=1), "updated_at": NOW, "status_since": NOW - since, "look_at": NOW,
    }  # fmt: skip
    return Clip(**(values | changes))


def video(state: str, percent: float | None = None, **changes: Any) -> Video:
    known = VideoState(state) if state in set(VideoState) else VideoState.UNKNOWN
    return Video("u", known, state, percent, **changes)


def download(state: str, percent: float | None = None, url: str | None = None) -> Download:
    return Download(DownloadState(state), percent, url)


@dataclass(frozen=True)
class Case:
    """One branch: what is given, and what must follow. *look* counts from now; None is never."""

    name: str
    clip: Clip
    seen: object
    step: str | None = None
    look: timedelta | None = SOON
    effects: tuple[Effect, ...] = ()
    percent: float | None = None
    code: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


NONE, ZERO = None, timedelta(0)
URL_CLIP = {"has_source_url": True}
HLS = {"hls_url": "https://h/", "dash_url": "https://d/"}
LONG_AGO = NOW - timedelta(days=1)

CASES = [
    # Encoding, by the provider's state.
    Case("waiting-for-bytes", clip(), video("pendingupload"), details={"cloudflare_status": "pendingupload"}),
    Case("bytes-arrive", clip(), video("downloading", 40.0), percent=40.0),
    Case("queued", clip(), video("queued"), step="queued", look=LATEST),
    Case("still-queued", clip("queued"), video("queued", 7.0), percent=7.0),
    Case("encoding", clip("queued"), video("inprogress", 12.0), step="processing", look=LATEST),
    Case("still-encoding", clip("processing"), video("inprogress", 39.0), percent=39.0),
    Case(
        "skips-forward-and-has-the-mp4-made",
        clip(),
        video("ready", 100.0, **HLS),
        step="stream_ready",
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u"),),
        facts=HLS,
    ),
    Case("ready", clip("processing"), video("ready", 39.0, **HLS), step="stream_ready", look=LATEST, facts=HLS),
    Case("provider-goes-back", clip("processing"), video("queued", 80.0)),
    Case("unknown-state-keeps-waiting", clip("processing"), video("defragmenting", 80.0)),
    Case("live-state-keeps-waiting", clip("processing"), video("live-inprogress", 80.0)),
    Case("nothing-seen-waits-for-the-next-list", clip("processing"), None, look=TICK),
    Case("just-come-is-left-alone", clip("processing", since=timedelta(0)), None, look=LATEST),
    Case("wrong-kind-of-look", clip("processing"), download("ready", 100.0, "https://m/"), look=TICK),
    Case(
        "not-encodable",
        clip("processing"),
        video("error", error_code="ERR_NON_VIDEO", error_text="The file is no video"),
        step="error",
        look=ZERO,
        code="provider_error",
        details={"provider_error_code": "ERR_NON_VIDEO"},
    ),
    Case("not-encodable-without-a-reason", clip(), video("error"), step="error", look=ZERO, code="provider_error"),
    Case(
        "facts-become-known-on-the-way",
        clip("processing"),
        video("inprogress", duration_seconds=5.5, thumbnail_url="https://t/", uploaded_at=LONG_AGO, **HLS),
        facts={"duration": 5.5, "thumbnail_url": "https://t/", "uploaded_at": LONG_AGO.isoformat()},
    ),
    Case("no-upload-time-before-the-upload", clip(), video("pendingupload", uploaded_at=LONG_AGO)),
    # The upload address runs out.
    Case("address-good", clip(upload_expires_at=NOW + AGO), video("pendingupload")),
    Case("address-out-within-grace", clip(upload_expires_at=NOW - EXPIRY_GRACE), video("pendingupload")),
    Case(
        "address-out",
        clip(upload_expires_at=NOW - EXPIRY_GRACE - timedelta(seconds=1)),
        video("pendingupload"),
        step="error",
        look=ZERO,
        code="upload_expired",
        details={"delete_requested": True},
    ),
    Case(
        "the-providers-own-expiry-counts-first",
        clip(upload_expires_at=NOW - timedelta(hours=1)),
        video("pendingupload", upload_expires_at=NOW + AGO),
    ),
    Case("address-out-while-bytes-arrive", clip(upload_expires_at=LONG_AGO), video("downloading", 90.0), percent=90.0),
    Case("address-good-for-ever", clip(upload_expires_at=datetime.max.replace(tzinfo=UTC)), video("pendingupload")),
    Case("address-without-expiry", clip(since=timedelta(hours=20)), video("pendingupload"), look=LATEST),
    # The provider does not know the video.
    Case(
        "missing", clip("processing"), VideoMissing(), step="error", look=ZERO, code="not_found_in_cloudflare"
    ),
    Case(
        "missing-when-ready",
        clip("stream_ready"),
        VideoMissing(),
        step="error",
        look=ZERO,
        code="not_found_in_cloudflare",
    ),
    Case("missing-just-after-it-was-made", clip(since=MISSING_GRACE / 2), VideoMissing(), look=LATEST),
    Case(
        "missing-just-after-a-copy-was-asked-for",
        clip("queued", since=MISSING_GRACE / 2, created_at=LONG_AGO),
        VideoMissing(),
        look=LATEST,
    ),
    # Copying from an address.
    Case(
        "copy",
        clip(processing_details=URL_CLIP, cloudflare_uid=None, title="A title"),
        None,
        look=WHILE_WORKING,
        effects=(CopyFromUrl("c", 1, "A title"),),
    ),
    Case("copied", clip(processing_details={**URL_CLIP, "copied_in_attempt": 1}), video("downloading", 3.0), percent=3),
    Case(
        "copy-again-in-a-new-attempt",
        clip(processing_details={**URL_CLIP, "copied_in_attempt": 1}, attempt=2),
        None,
        look=WHILE_WORKING,
        effects=(CopyFromUrl("c", 2, None),),
    ),
    Case("no-address-and-no-video", clip(cloudflare_uid=None), None),
    # Having the MP4 made.
    Case("better-renditions-follow", clip("stream_ready"), video("ready", 39.0, **HLS), percent=39.0, facts=HLS),
    Case(
        "full-quality",
        clip("stream_ready"),
        video("ready", 100.0, **HLS),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u"),),
        facts=HLS,
    ),
    Case(
        "quality-unknown", clip("stream_ready"), video("ready"), look=WHILE_WORKING, effects=(EnableMp4("c", 1, "u"),)
    ),
    Case(
        "waited-long-enough-for-full-quality",
        clip("stream_ready", since=timedelta(seconds=600)),
        video("ready", 39.0),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u"),),
    ),
    Case("ready-turned-error", clip("stream_ready"), video("error"), step="error", look=ZERO, code="provider_error"),
    Case("ready-unseen", clip("stream_ready"), None, look=TICK),
    Case(
        "made-for-this-clip",
        clip("stream_ready", upload_expires_at=NOW),
        video("ready"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", is_fresh=True),),
    ),
    Case(
        "copied-for-this-clip",
        clip("stream_ready", processing_details={"copied_from_url": True}),
        video("ready"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", is_fresh=True),),
    ),
    Case(
        "made-for-this-clip-and-tried-before",
        clip("stream_ready", upload_expires_at=NOW, attempt=2),
        video("ready"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 2, "u"),),
    ),
    Case(
        "requested",
        clip("waitformp4"),
        download("inprogress", 0.0),
        look=MP4_SOON,
        percent=0,
        details={"mp4_percent_complete": 0},
    ),
    Case("requested-percent-unknown", clip("waitformp4"), download("inprogress"), look=MP4_SOON),
    Case(
        "being-made",
        clip("waitformp4"),
        download("inprogress", 20.0),
        step="mp4_processing",
        look=MP4_SOON,
        percent=20.0,
    ),
    Case("still-being-made", clip("mp4_processing"), download("inprogress", 60.0), look=MP4_SOON, percent=60.0),
    Case("nothing-at-the-address", clip("waitformp4"), NothingThere(), look=MP4_SOON),
    Case(
        "private-ones-cost-a-call-each",
        clip("waitformp4", processing_details={"require_signed_urls": True}),
        download("inprogress"),
        look=timedelta(seconds=40),
    ),
    Case(
        "the-stage-began-when-the-mp4-was-asked-for",
        clip("mp4_processing", processing_details={"mp4_asked_at": (NOW - timedelta(seconds=140)).isoformat()}),
        download("inprogress", 60.0),
        look=timedelta(seconds=12),
        percent=60.0,
    ),
    Case("mp4-unseen", clip("mp4_processing"), None, look=MP4_SOON),
    Case(
        "made",
        clip("mp4_processing"),
        download("ready", 100.0, "https://m/"),
        step="mp4downloading",
        look=ZERO,
        facts={"mp4_url": "https://m/"},
    ),
    Case("made-at-once", clip("waitformp4"), download("ready", 100.0, "https://m/"), step="mp4downloading", look=ZERO),
    Case("made-but-without-an-address", clip("mp4_processing"), download("ready", 100.0), look=MP4_SOON, percent=100.0),
    Case(
        "address-before-it-works",
        clip("mp4_processing"),
        download("inprogress", 9.0, "https://m/"),
        look=MP4_SOON,
        percent=9.0,
    ),
    Case(
        "vanished", clip("mp4_processing"), download("absent"), look=WHILE_WORKING, effects=(EnableMp4("c", 1, "u", 2),)
    ),
    Case(
        "not-shown-yet",
        clip("waitformp4", since=timedelta(seconds=48)),
        download("absent"),
        look=LATEST,
    ),
    Case(
        "asked-for-again-a-moment-ago",
        clip("waitformp4", processing_details={"mp4_asked_at": (NOW - timedelta(seconds=50)).isoformat()}),
        download("absent"),
        look=LATEST,
    ),
    Case(
        "asked-for-at-no-time",
        clip("waitformp4", processing_details={"mp4_asked_at": ["soon"]}),
        download("absent"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", 2),),
    ),
    Case(
        "asked-for-by-a-clock-ahead",
        clip("waitformp4", processing_details={"mp4_asked_at": (NOW + timedelta(days=1)).isoformat()}),
        download("absent"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", 2),),
    ),
    Case(
        # Two that failed, and a third that a late reset of ours took away: no reason to fail the clip.
        "lost-after-two-that-failed",
        clip("waitformp4", processing_details={"mp4_makes": 3, "mp4_makes_in_attempt": 1}),
        download("absent"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", 4),),
    ),
    Case(
        "lost-four-times",
        clip("waitformp4", processing_details={"mp4_makes": 4, "mp4_makes_in_attempt": 1}),
        download("absent"),
        step="error",
        look=timedelta(),
        code="mp4_lost",
    ),
    Case(
        "failed-once",
        clip("mp4_processing"),
        download("error"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", make=2),),
        details={"mp4_status": "error"},
    ),
    Case(
        "failed-twice",
        clip("waitformp4", processing_details={"mp4_makes": 2, "mp4_makes_in_attempt": 1}),
        download("error"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 1, "u", make=3),),
    ),
    Case(
        "failed-three-times",
        clip("waitformp4", processing_details={"mp4_makes": 3, "mp4_makes_in_attempt": 1}),
        download("error"),
        step="error",
        look=ZERO,
        code="mp4_failed",
    ),
    Case(
        "failures-of-a-former-attempt-do-not-count",
        clip("waitformp4", attempt=2, processing_details={"mp4_makes": 3, "mp4_makes_in_attempt": 1}),
        download("error"),
        look=WHILE_WORKING,
        effects=(EnableMp4("c", 2, "u", make=2),),
    ),
    # The transfer.
    Case(
        "fetching",
        clip("mp4downloading", mp4_url="https://m/", duration=5.5),
        None,
        look=WHILE_WORKING,
        effects=(TransferToBucket("c", 1, "u", "https://m/", 5.5, False),),
    ),
    Case(
        "writing",
        clip("r2_uploading", mp4_url="https://m/", attempt=3, processing_details={"require_signed_urls": True}),
        None,
        look=WHILE_WORKING,
        effects=(TransferToBucket("c", 3, "u", "https://m/", None, True),),
    ),
    Case("address-unknown", clip("mp4downloading"), None, step="error", look=ZERO, code="mp4_unknown"),
    Case("uid-unknown", clip("r2_uploading", mp4_url="https://m/", cloudflare_uid=None), None, step="error", look=ZERO,
         code="mp4_unknown"),
    # The ends.
    Case("complete", clip("complete"), None, look=None),
    Case("failed", clip("error"), None, look=None),
    Case("failed-with-a-file-begun", clip("error", mp4_url="https://m/", attempt=2), None, look=WHILE_WORKING,
         effects=(AbandonTransfer("c", 2),)),
    Case("failed-and-cleared", clip("error", mp4_url="https://m/", processing_details={"abandoned_in_attempt": 1}),
         None, look=None),
    *(
        Case(
            f"delete-at-{status}",
            clip(status, processing_details={"delete_requested": True}),
            None,
            look=WHILE_WORKING,
            effects=(DeleteVideo("c", 1, "u"),),
        )
        for status in ("complete", "error")
    ),
    Case("deleted", clip("error", processing_details={"delete_requested": True, "deleted_at": "x"}), None, look=None),
    Case("nothing-to-delete", clip("error", cloudflare_uid=None, processing_details={"delete_requested": True}), None,
         look=None),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_follows(case: Case) -> None:
    got = plan(case.clip, case.seen, NOW, POLICY, KNOWN)  # type: ignore[arg-type]
    assert (got.step.status if got.step else None) == case.step
    assert got.look_at == (None if case.look is None else NOW + case.look)
    assert got.effects == case.effects
    assert got.step_percent == case.percent
    details = {**got.details, **(got.step.details if got.step else {})}
    facts = {**got.facts, **(got.step.facts if got.step else {})}
    assert details.items() >= case.details.items()
    assert facts.items() >= case.facts.items()
    assert details.get("error_code") == case.code
    if got.step is not None:
        assert got.step.reason
    if case.code is not None:
        assert details["error_message"]


def test_facts_that_would_be_wrong_are_not_stated() -> None:
    waiting = plan(clip(), video("pendingupload", uploaded_at=LONG_AGO, **HLS), NOW, POLICY, KNOWN)
    assert waiting.facts == {}, "neither an upload time nor addresses where nothing plays yet"


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param(timedelta(seconds=-30), LATEST, id="a-clock-behind"),
        pytest.param(timedelta(seconds=100), timedelta(seconds=55), id="nearly-there"),
        pytest.param(timedelta(seconds=149), TICK, id="now"),
        pytest.param(timedelta(seconds=200), timedelta(seconds=25), id="slower-than-all"),
        pytest.param(timedelta(hours=3), LATEST, id="much-slower-than-all"),
    ],
)
def test_a_clip_is_looked_at_when_it_is_probably_done(since: timedelta, expected: timedelta) -> None:
    assert plan(clip("processing", since=since), video("inprogress"), NOW, POLICY, KNOWN).look_at == NOW + expected


def test_where_calls_run_short_looks_are_put_off_and_still_come() -> None:
    clips = [clip("processing", since=timedelta(seconds=seconds)) for seconds in (140, 20)]
    waits = {}
    for headroom in (1.0, 0.2, 0.0):
        short = replace(KNOWN, headroom=headroom)
        plans = [plan(one, video("inprogress"), NOW, POLICY, short) for one in clips]
        waits[headroom] = [got.look_at - NOW for got in plans if got.look_at]
    near, far = zip(*waits.values(), strict=True)
    assert sorted(set(near)) == list(near)
    assert sorted(set(far)) == list(far)
    assert far[-1] - far[0] > near[1] - near[0], "what is expected late is put off furthest"
    assert max(far) <= LONGEST_STRETCH * LONGEST_INTERVAL + LONGEST_TICK


def test_clips_of_a_list_are_looked_at_together() -> None:
    at = NOW + timedelta(seconds=1.3)
    looks = {
        plan(clip("processing", since=timedelta(seconds=since)), video("inprogress"), at, POLICY, KNOWN).look_at
        for since in (117.2, 118.9, 119.5, 120.5)
    }
    assert looks == {NOW + SOON}


def test_longer_clips_are_expected_later() -> None:
    known = Outlook({("processing", None): (60.0,) * 20, ("processing", 3): (100.0,) * 20})
    standing = {d: clip("processing", since=timedelta(seconds=55), duration=d) for d in (5.0, 2000.0)}
    waits = {d: plan(one, video("inprogress"), NOW, POLICY, known).look_at for d, one in standing.items()}
    assert waits == {5.0: NOW + timedelta(seconds=10), 2000.0: NOW + timedelta(seconds=50)}


def test_the_history_is_told_since_when_a_move_may_have_been_due() -> None:
    seen_at = NOW - timedelta(seconds=20)
    checked = clip("processing", processing_details={"last_checked": seen_at.isoformat()})
    for standing, expected in (
        (checked, seen_at),
        (clip("processing"), NOW - AGO),
        (replace(checked, status_since=NOW - timedelta(seconds=5)), NOW - timedelta(seconds=5)),
    ):
        got = plan(standing, video("ready", 39.0), NOW, POLICY, KNOWN)
        assert got.step is not None
        assert got.step.details[NOT_BEFORE] == expected.isoformat()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        *(({"status": status}, VIDEO) for status in ("uploading", "queued", "processing", "stream_ready")),
        *(({"status": status}, DELIVERY) for status in ("waitformp4", "mp4_processing")),
        ({"status": "waitformp4", "processing_details": {"require_signed_urls": True}}, DOWNLOAD),
        *(({"status": status}, NOTHING) for status in ("mp4downloading", "r2_uploading", "complete", "error")),
        ({"cloudflare_uid": None}, NOTHING),
        ({"processing_details": URL_CLIP}, NOTHING),
        ({"processing_details": {**URL_CLIP, "copied_in_attempt": 1}}, VIDEO),
        ({"processing_details": {**URL_CLIP, "copied_in_attempt": 1}, "attempt": 2}, NOTHING),
        ({"status": "processing", "processing_details": URL_CLIP}, VIDEO),
    ],
    ids=str,
)
def test_what_has_to_be_seen_first(changes: dict[str, Any], kind: LookKind) -> None:
    assert look_kind(clip(**changes), POLICY, KNOWN) == kind


def test_a_clip_that_has_just_come_was_seen_by_whoever_moved_it() -> None:
    for status in ("uploading", "queued", "processing", "waitformp4"):
        come = clip(status, since=timedelta(seconds=1))
        assert look_kind(come, POLICY, KNOWN) == NOTHING
        told = (NOW - timedelta(seconds=0.5)).isoformat()
        asked = replace(come, processing_details={"requested_status_handled": told})
        assert look_kind(asked, POLICY, KNOWN) != NOTHING, "somebody has asked for a look since"
    assert look_kind(clip("stream_ready", since=timedelta(0)), POLICY, KNOWN) == VIDEO, "its MP4 waits for that"


def test_whoever_wants_a_look_waits_for_the_list_that_comes_anyway() -> None:
    hastened = clip("processing", look_at=NOW + timedelta(milliseconds=1))
    for crowd, kind in ((0, VIDEO), (CROWD - 1, VIDEO), (CROWD, NOTHING)):
        assert look_kind(hastened, POLICY, replace(KNOWN, crowd=crowd)) == kind
    then = plan(hastened, None, NOW + timedelta(seconds=0.1), POLICY, replace(KNOWN, crowd=CROWD)).look_at
    assert then == NOW + TICK
    assert look_kind(replace(hastened, look_at=then), POLICY, replace(KNOWN, crowd=CROWD)) == VIDEO


@pytest.mark.parametrize(
    ("asked", "seen", "kind"),
    [
        pytest.param(149, None, DELIVERY, id="others-took-as-long"),
        pytest.param(150, None, DOWNLOAD, id="all-others-were-made"),
        pytest.param(290, 140, DELIVERY, id="it-said-so-not-long-ago"),
        pytest.param(340, 180, DOWNLOAD, id="twice-the-time-has-passed"),
        pytest.param(4000, 599, DELIVERY, id="within-ten-minutes"),
        pytest.param(4000, 601, DOWNLOAD, id="after-ten-minutes"),
        pytest.param(20, -60, DOWNLOAD, id="seen-by-a-clock-ahead"),
    ],
)
def test_the_provider_is_asked_about_an_mp4_that_others_would_have_by_now(
    asked: int, seen: int | None, kind: LookKind
) -> None:
    details = {"mp4_asked_at": (NOW - timedelta(seconds=asked)).isoformat()}
    if seen is not None:
        details["mp4_seen_at"] = (NOW - timedelta(seconds=seen)).isoformat()
    standing = clip("waitformp4", since=timedelta(seconds=asked), processing_details=details)
    assert look_kind(standing, POLICY, KNOWN) == kind


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pendingupload", "uploading"),
        ("downloading", "uploading"),
        ("queued", "queued"),
        ("inprogress", "processing"),
        ("ready", "stream_ready"),
        ("error", "error"),
        ("live-inprogress", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_providers_states_map_as_in_the_former_system(state: str, status: str | None) -> None:
    assert implied_status(state) == status


RESUMES: list[tuple[str, dict[str, Any], str | None]] = [
    ("mp4-is-there", {"mp4_url": "https://m/", "hls_url": "https://h/"}, "mp4downloading"),
    ("playable", {"hls_url": "https://h/"}, "stream_ready"),
    ("bytes-are-there", {}, "uploading"),
    ("nothing-is-there", {"cloudflare_uid": None}, None),
    ("from-an-address", {"processing_details": URL_CLIP, "cloudflare_uid": None}, "uploading"),
    ("from-an-address-and-playable", {"processing_details": URL_CLIP, "hls_url": "https://h/"}, "stream_ready"),
    ("deleted", {"processing_details": {"delete_requested": True}, "mp4_url": "https://m/"}, None),
    ("not-found", {"processing_details": {"error_code": "not_found_in_cloudflare"}, "hls_url": "https://h/"}, None),
    ("expired", {"processing_details": {"error_code": "upload_expired"}}, None),
    ("not-encodable", {"processing_details": {"error_code": "provider_error"}}, None),
    (
        "not-found-but-copied",
        {"processing_details": {**URL_CLIP, "error_code": "not_found_in_cloudflare", "copied_from_url": True}},
        "uploading",
    ),
    *(
        (
            f"mp4-address-dead-{code}",
            {"mp4_url": "https://m/", "hls_url": "https://h/", "processing_details": {"error_code": code}},
            "stream_ready",
        )
        for code in ("mp4_not_yet_there", "source_refused", "source_forbidden")
    ),
    (
        "mp4-address-refused-until-its-time-was-over",
        {
            "mp4_url": "https://m/",
            "hls_url": "https://h/",
            "processing_details": {"error_code": "deadline_passed", "last_problem": {"code": "source_forbidden"}},
        },
        "stream_ready",
    ),
    (
        "a-broken-line-is-no-dead-address",
        {"mp4_url": "https://m/", "hls_url": "https://h/", "processing_details": {"error_code": "source_cut"}},
        "mp4downloading",
    ),
]


@pytest.mark.parametrize(
    ("code", "heals"),
    [
        ("ERR_FETCH_ORIGIN_ERROR", True),
        ("ERR_UNKNOWN", True),
        ("ERR_NON_VIDEO", False),
        ("ERR_MALFORMED_VIDEO", False),
        ("ERR_DURATION_EXCEED_CONSTRAINT", False),
        ("ERR_DURATION_TOO_SHORT", False),
        (None, False),
    ],
)
def test_of_the_providers_errors_those_about_the_file_do_not_heal(code: str | None, heals: bool) -> None:
    got = plan(clip("processing"), video("error", error_code=code), NOW, POLICY, KNOWN)
    assert got.step is not None
    assert got.step.heals is heals


def test_nothing_that_ends_for_good_is_tried_again() -> None:
    missing = plan(clip("processing"), VideoMissing(), NOW, POLICY, KNOWN)
    expired = plan(clip(upload_expires_at=LONG_AGO), video("pendingupload"), NOW, POLICY, KNOWN)
    made = {"mp4_makes": 3, "mp4_makes_in_attempt": 1}
    failed = plan(clip("waitformp4", processing_details=made), download("error"), NOW, POLICY, KNOWN)
    assert [got.step.heals for got in (missing, expired, failed) if got.step] == [False, False, False]


def test_an_mp4_that_is_taken_and_never_made_is_not_asked_for_for_ever() -> None:
    """Whatever the provider answers in between, and though the pair of statuses may alternate without end."""
    details: dict[str, Any] = {}
    asked, at = 0, NOW
    for status in ("waitformp4", "mp4_processing") * 10:
        got = plan(clip(status, processing_details=dict(details)), download("absent"), at, POLICY, KNOWN)
        if got.step is not None:
            assert got.step.details["error_code"] == "mp4_lost"
            break
        for effect in got.effects:
            asked += 1
            details |= {"mp4_makes": effect.make, "mp4_makes_in_attempt": 1}  # type: ignore[attr-defined]
    assert asked == MP4_ASKS - 1


@pytest.mark.parametrize(("changes", "expected"), [pytest.param(*case[1:], id=case[0]) for case in RESUMES])
def test_where_a_new_attempt_starts(changes: dict[str, Any], expected: str | None) -> None:
    failed = clip("error", **changes)
    assert resume_status(failed) == expected
    if expected is not None:
        standing = Position(failed.attempt, "error", 50.0)
        assert refusal(STREAM, standing, Request(failed.attempt + 1, expected)) is None


def test_the_address_of_the_mp4_does_not_print() -> None:
    effect = TransferToBucket("c", 1, "u", "https://m/?token=sesame", None, True)
    assert "sesame" not in repr(effect)


def test_pipelines_are_found_by_name() -> None:
    assert pipeline_for("stream").table is STREAM
    assert all(pipeline.table.pipeline == name for name, pipeline in PIPELINES.items())
    with pytest.raises(UnknownPipeline):
        pipeline_for("cinema")


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)
moments = st.datetimes(timezones=st.just(UTC)) | st.sampled_from([datetime.min, datetime.max]).map(
    lambda moment: moment.replace(tzinfo=UTC)
)
around_now = st.datetimes(datetime(2026, 5, 25), datetime(2026, 6, 2), timezones=st.just(UTC))
addresses = st.none() | st.just("https://x/")
KNOWN_KEYS = (
    "has_source_url", "copied_in_attempt", "copied_from_url", "delete_requested", "deleted_at", "mp4_makes",
    "mp4_makes_in_attempt", "mp4_asked_at", "error_code", "last_problem", "require_signed_urls",
    "last_checked", "requested_status", "requested_status_handled", "mp4_seen_at", "upload_size_bytes",
)  # fmt: skip
videos = st.builds(
    Video,
    uid=st.just("u"),
    state=st.sampled_from(VideoState),
    state_raw=st.text(max_size=10),
    percent=st.none() | st.floats(0, 100),
    duration_seconds=st.none() | st.floats(0.1, 1e6),
    error_code=st.none() | st.text(max_size=10),
    error_text=st.none() | st.text(max_size=10),
    thumbnail_url=addresses,
    hls_url=addresses,
    dash_url=addresses,
    uploaded_at=st.none() | moments,
    upload_expires_at=st.none() | moments,
)
downloads = st.builds(Download, st.sampled_from(DownloadState), st.none() | st.floats(0, 100), addresses)
observations = st.none() | videos | downloads | st.sampled_from([VideoMissing(), NothingThere()])
outlooks = st.builds(
    Outlook,
    stays=st.dictionaries(
        st.tuples(st.sampled_from(sorted(set(STAGES.values()))), st.none() | st.integers(0, 4)),
        st.lists(st.floats(0, 1e5), min_size=1, max_size=30).map(sorted),
        max_size=4,
    ),
    headroom=st.floats(0, 1),
    crowd=st.integers(0, 50),
)
clips = st.builds(
    clip,
    status=st.sampled_from([row.name for row in STREAM.statuses]),
    cloudflare_uid=st.none() | st.just("u"),
    attempt=st.integers(1, 3),
    processing_details=st.dictionaries(st.sampled_from(KNOWN_KEYS), anything, max_size=6),
    created_at=around_now,
    status_since=around_now,
    upload_expires_at=st.none() | moments,
    mp4_url=addresses,
    hls_url=addresses,
    duration=st.none() | st.floats(0.1, 1e6),
)


@settings(max_examples=1500, deadline=None)
@given(clips, observations, outlooks)
def test_whatever_is_seen_of_a_clip_something_lawful_follows(standing: Clip, seen: Any, outlook: Outlook) -> None:
    got: Plan = plan(standing, seen, NOW, POLICY, outlook)
    if STREAM[standing.status].is_terminal:
        assert got.step is None
        assert (got.look_at is None) == (got.effects == ())
    else:
        assert got.look_at is not None, "a clip at a status that is no end is always looked at again"
    assert got.look_at is None or NOW <= got.look_at <= NOW + LONGEST_STRETCH * LONGEST_INTERVAL + LONGEST_TICK
    if got.look_at == NOW:
        assert got.step is not None, "looking again at once without having moved would never end"
    if got.step is not None:
        at = Position(standing.attempt, standing.status, standing.progress)
        assert refusal(STREAM, at, Request(standing.attempt, got.step.status, observed=True)) is None
        assert got.step.reason
    assert len(got.effects) <= 1
    assert all((effect.clip_id, effect.attempt) == (standing.id, standing.attempt) for effect in got.effects)
    look_kind(standing, POLICY, outlook)
    resumes_at = resume_status(standing)
    assert resumes_at is None or not STREAM[resumes_at].is_terminal


@pytest.mark.parametrize(("status", "state"), [("processing", "inprogress"), ("stream_ready", "ready")])
def test_a_private_video_is_remembered_as_one(status: str, state: str) -> None:
    seen = video(state, 50.0, require_signed_urls=True)
    made = plan(clip(status), seen, NOW, POLICY, KNOWN)
    assert made.details["require_signed_urls"] is True
    assert "require_signed_urls" not in plan(clip(status), video(state, 50.0), NOW, POLICY, KNOWN).details
