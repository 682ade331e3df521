"""The provider's documents become our values, whatever their odd fields look like."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers.cloudflare_models import (
    WEBHOOK_MAX_BYTES,
    DirectUpload,
    Download,
    DownloadState,
    StorageUsage,
    Video,
    VideoPage,
    VideoState,
    WebhookRegistration,
    is_uid,
    parse_direct_upload,
    parse_download,
    parse_page,
    parse_usage,
    parse_video,
    parse_webhook,
    parse_webhook_video,
)
from orchestrator.drivers.strict_json import BadDocument

UID = "6b9e68b07dfee8cc2d116e4c51d6a957"
HOST = f"https://customer-code.cloudflarestream.com/{UID}"
DOCUMENT: dict[str, Any] = {
    "uid": UID,
    "creator": "clip.1",
    "thumbnail": f"{HOST}/thumbnails/thumbnail.jpg",
    "thumbnailTimestampPct": 0,
    "readyToStream": True,
    "status": {"state": "ready", "pctComplete": "100.000000", "errorReasonCode": "", "errorReasonText": ""},
    "meta": {"name": "x.mp4"},
    "created": "2026-01-02T03:04:05.678901Z",
    "modified": "2026-01-02T03:05:00.000001Z",
    "size": 123456,
    "preview": f"{HOST}/watch",
    "allowedOrigins": [],
    "requireSignedURLs": False,
    "uploaded": "2026-01-02T03:04:05.6Z",
    "uploadExpiry": None,
    "maxSizeBytes": None,
    "maxDurationSeconds": None,
    "duration": 5.5,
    "input": {"width": 560, "height": 320},
    "playback": {"hls": f"{HOST}/manifest/video.m3u8", "dash": f"{HOST}/manifest/video.mpd"},
    "watermark": None,
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def video(**changes: Any) -> Video:
    """The document with *changes*, read; ... as a value takes the field away."""
    document = {key: value for key, value in {**DOCUMENT, **changes}.items() if value is not ...}
    found = parse_video(document)
    assert found is not None
    return found


def test_a_whole_document() -> None:
    assert parse_video(DOCUMENT) == Video(
        uid=UID,
        state=VideoState.READY,
        state_raw="ready",
        percent=100.0,
        ready_to_stream=True,
        duration_seconds=5.5,
        size_bytes=123456,
        error_code=None,
        error_text=None,
        thumbnail_url=f"{HOST}/thumbnails/thumbnail.jpg",
        hls_url=f"{HOST}/manifest/video.m3u8",
        dash_url=f"{HOST}/manifest/video.mpd",
        preview_url=f"{HOST}/watch",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        modified_at=datetime(2026, 1, 2, 3, 5, 0, 1, UTC),
        uploaded_at=datetime(2026, 1, 2, 3, 4, 5, 600000, UTC),
        upload_expires_at=None,
        require_signed_urls=False,
        creator="clip.1",
        meta={"name": "x.mp4"},
    )


def test_a_uid_alone_is_a_video() -> None:
    assert parse_video({"uid": UID}) == Video(UID)
    assert parse_video({"id": UID, "uid": None}) == Video(UID)


@pytest.mark.parametrize(
    "value", [None, [], "x", 5, {}, {"uid": None}, {"uid": ""}, {"uid": 5}, {"uid": "a/b"}, {"uid": "x" * 65}], ids=repr
)
def test_without_a_usable_uid_there_is_no_video(value: Any) -> None:
    assert parse_video(value) is None


@pytest.mark.parametrize("value", ["", ".", "..", "a.b", "a/b", "a b", "a\n", "ä", "x" * 65, None, 5, b"a"], ids=repr)
def test_what_is_no_uid(value: Any) -> None:
    assert not is_uid(value)


@pytest.mark.parametrize("state", [state for state in VideoState if state is not VideoState.UNKNOWN])
def test_every_documented_state_is_known(state: VideoState) -> None:
    assert video(status={"state": state.value}).state is state


@pytest.mark.parametrize("word", ["optimizing", "READY", "unknown", "x" * 3000])
def test_a_state_of_tomorrow_is_kept_as_it_is_and_decides_nothing(word: str) -> None:
    found = video(status={"state": word}, readyToStream=...)
    assert found.state is VideoState.UNKNOWN
    assert found.state_raw == word[:1024]
    assert not found.ready_to_stream


@pytest.mark.parametrize(
    ("pct", "expected"),
    [("39.000000", 39.0), ("39", 39.0), (39, 39.0), (39.5, 39.5), ("", None), (None, None), (..., None)],
)
def test_the_percentage_is_text_or_number_or_nothing(pct: Any, expected: float | None) -> None:
    status = {"state": "inprogress"} if pct is ... else {"state": "inprogress", "pctComplete": pct}
    assert video(status=status).percent == expected


def test_ready_is_not_a_hundred_percent() -> None:
    found = video(status={"state": "ready", "pctComplete": "39.000000"})
    assert (found.state, found.percent, found.ready_to_stream) == (VideoState.READY, 39.0, True)


@pytest.mark.parametrize(
    ("flag", "state", "expected"),
    [
        (True, "inprogress", True),
        (False, "ready", False),
        ("true", "inprogress", True),
        (..., "ready", True),
        (None, "ready", True),
        (..., "inprogress", False),
        ({}, "error", False),
    ],
)
def test_playable_is_what_the_flag_says_and_else_the_state(flag: Any, state: str, expected: bool) -> None:
    assert video(readyToStream=flag, status={"state": state}).ready_to_stream is expected


@pytest.mark.parametrize(
    "status",
    [
        {"errorReasonCode": "ERR_X", "errorReasonText": "words"},
        {"errReasonCode": "ERR_X", "errReasonText": "words"},
        {"errorReasonCode": "", "errReasonCode": "ERR_X", "errorReasonText": "", "errReasonText": "words"},
        {"errorReasonCode": None, "errReasonCode": "ERR_X", "errorReasonText": 5, "errReasonText": "words"},
        {"errorReasonCode": "ERR_X", "errReasonCode": "ERR_Y", "errorReasonText": "words", "errReasonText": "other"},
    ],
    ids=repr,
)
def test_the_reason_of_an_error_has_two_spellings(status: dict[str, Any]) -> None:
    found = video(status={"state": "error", **status}, readyToStream=False)
    assert (found.state, found.error_code, found.error_text) == (VideoState.ERROR, "ERR_X", "words")


def test_empty_reasons_are_no_reasons() -> None:
    assert (video().error_code, video().error_text) == (None, None)


@pytest.mark.parametrize("value", [-1, -1.0, 0, "-1", None, ..., "long", {}])
def test_a_duration_or_size_that_is_not_known_yet_is_none(value: Any) -> None:
    found = video(duration=value, size=value)
    assert (found.duration_seconds, found.size_bytes) == (None, None)


def test_figures_may_be_texts() -> None:
    found = video(duration="5.5", size="123")
    assert (found.duration_seconds, found.size_bytes) == (5.5, 123)


def test_the_names_of_bindings_and_queues_are_understood() -> None:
    document = {
        "id": UID,
        "status": {"state": "ready", "pctComplete": "100"},
        "hlsPlaybackUrl": f"{HOST}/manifest/video.m3u8",
        "dashPlaybackUrl": f"{HOST}/manifest/video.mpd",
        "clippedFromId": None,
    }
    found = parse_video(document)
    assert found is not None
    assert (found.uid, found.hls_url, found.dash_url) == (
        UID,
        f"{HOST}/manifest/video.m3u8",
        f"{HOST}/manifest/video.mpd",
    )


@pytest.mark.parametrize("status", [None, [], 5, {}, ..., "", {"state": None}, {"state": {"a": 1}}], ids=repr)
def test_a_status_of_the_wrong_kind_is_unknown(status: Any) -> None:
    found = video(status=status)
    assert (found.state, found.state_raw, found.percent) == (VideoState.UNKNOWN, "", None)


@pytest.mark.parametrize("field", [field for field in DOCUMENT if field != "uid"])
@settings(deadline=None, max_examples=30)
@given(value=anything)
def test_one_field_of_any_kind_costs_that_field_and_nothing_else(field: str, value: Any) -> None:
    found, whole = video(**{field: value}), video()
    belongs_to = {
        "thumbnail": {"thumbnail_url"},
        "preview": {"preview_url"},
        "playback": {"hls_url", "dash_url"},
        "created": {"created_at"},
        "modified": {"modified_at"},
        "uploaded": {"uploaded_at"},
        "uploadExpiry": {"upload_expires_at"},
        "duration": {"duration_seconds"},
        "size": {"size_bytes"},
        "readyToStream": {"ready_to_stream"},
        "requireSignedURLs": {"require_signed_urls"},
        "status": {"state", "state_raw", "percent", "error_code", "error_text"},
        "creator": {"creator"},
        "meta": {"meta"},
    }.get(field, set())
    for name in Video.__slots__:
        if name not in belongs_to:
            assert getattr(found, name) == getattr(whole, name)


def test_unknown_fields_are_passed_over() -> None:
    assert video(somethingNew={"deep": [1, 2, {"deeper": None}]}) == video()


def test_addresses_that_are_none_are_left_out() -> None:
    found = video(thumbnail="javascript:alert(1)", preview="", playback={"hls": "//x", "dash": 5})
    assert (found.thumbnail_url, found.preview_url, found.hls_url, found.dash_url) == (None, None, None, None)


def test_the_meta_of_an_upload_is_text_fit_to_be_stored() -> None:
    meta = {"name": "a\0b", "relativePath": "null", "n": 5, "deep": {"x": 1}, "list": [1], "\ud800": "x"}
    assert video(meta=meta).meta == {"name": "a\ufffdb", "relativePath": "null", "n": "5", "\ufffd": "x"}


def test_values_are_frozen_and_can_stand_in_sets() -> None:
    with pytest.raises(AttributeError):
        video().uid = "other"  # type: ignore[misc]
    assert len({video(), video()}) == 1
    assert copy.deepcopy(video()) == video()


# --- Lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, "1", 1.0])
def test_a_page_counts_in_figures_or_texts(total: Any) -> None:
    assert parse_page([DOCUMENT], total) == VideoPage((video(),), 1)


def test_rows_that_are_no_videos_cost_no_others() -> None:
    assert parse_page([None, 5, {}, [], DOCUMENT, {"uid": ["x"]}]) == VideoPage((video(),))


def test_an_empty_list_may_be_null() -> None:
    assert parse_page(None) == parse_page([]) == VideoPage()


@pytest.mark.parametrize("result", [{}, "x", 5, True])
def test_what_is_no_list_is_no_page(result: Any) -> None:
    assert parse_page(result) is None


# --- Downloads ---------------------------------------------------------------------------------------

URL = f"{HOST}/downloads/default.mp4"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {"default": {"status": "inprogress", "url": URL, "percentComplete": 12.0}},
            Download(DownloadState.IN_PROGRESS, 12.0, URL),
        ),
        ({"status": "inprogress", "url": URL, "percentComplete": 12.0}, Download(DownloadState.IN_PROGRESS, 12.0, URL)),
        (
            {"default": {"status": "ready", "url": URL, "percentComplete": "100"}},
            Download(DownloadState.READY, 100.0, URL),
        ),
        ({"default": {"status": "ready", "url": "x"}}, Download(DownloadState.READY)),
        ({"default": {"status": "error"}}, Download(DownloadState.ERROR)),
        ({"default": {"status": "queued"}}, Download(DownloadState.IN_PROGRESS)),
        ({"default": {"status": "absent"}}, Download(DownloadState.IN_PROGRESS)),
        ({"default": {"status": None, "percentComplete": None}}, Download(DownloadState.IN_PROGRESS)),
        ({"default": {"status": "ready"}, "audio": {"status": "error"}}, Download(DownloadState.READY)),
        ({"audio": {"status": "ready"}}, Download()),
        ({"default": None}, Download()),
        ({"default": {}}, Download()),
        ({"default": []}, Download()),
        ({}, Download()),
        (None, Download()),
        ([], Download()),
        ("deleted", Download()),
    ],
    ids=repr,
)
def test_an_mp4_is_found_nested_or_flat(result: Any, expected: Download) -> None:
    assert parse_download(result) == expected


# --- The other answers -------------------------------------------------------------------------------


def test_an_address_for_an_upload_is_whole_or_none() -> None:
    good = {"uid": UID, "uploadURL": "https://upload.example/x", "watermark": {}}
    assert parse_direct_upload(good, None) == DirectUpload(UID, "https://upload.example/x")
    for bad in (None, [], {}, {**good, "uid": "a/b"}, {**good, "uploadURL": None}, {**good, "uploadURL": "x"}):
        assert parse_direct_upload(bad, None) is None


def test_a_registration_is_whole_or_none() -> None:
    good = {"notificationUrl": "https://x/y", "modified": "2026-01-02T03:04:05Z", "secret": "s"}
    assert parse_webhook(good) == WebhookRegistration("https://x/y", "s", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    for bad in (None, "", [], {}, {**good, "secret": ""}, {**good, "notificationUrl": None}):
        assert parse_webhook(bad) is None


def test_storage_figures_may_be_texts() -> None:
    result = {"creator": None, "totalStorageMinutes": "5", "totalStorageMinutesLimit": 1000.5, "videoCount": "3"}
    assert parse_usage(result) == StorageUsage(5.0, 1000.5, 3)
    assert parse_usage({}) == StorageUsage()
    assert parse_usage([]) is None


# --- Notifications -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["errReason", "errorReason"])
def test_the_notification_of_a_failed_video(spelling: str) -> None:
    status = {"state": "error", "step": "encoding", "pctComplete": "39"}
    status |= {f"{spelling}Code": "ERR_MALFORMED_VIDEO", f"{spelling}Text": "broken"}
    found = parse_webhook_video(json.dumps({**DOCUMENT, "readyToStream": False, "status": status}).encode())
    assert (found.uid, found.state, found.ready_to_stream) == (UID, VideoState.ERROR, False)
    assert (found.error_code, found.error_text, found.percent) == ("ERR_MALFORMED_VIDEO", "broken", 39.0)


def test_the_notification_of_a_playable_video() -> None:
    assert parse_webhook_video(json.dumps(DOCUMENT).encode()) == video()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not_json"),
        (b"[]", "not_an_object"),
        (b"{}", "no_uid"),
        (b'{"uid":5}', "no_uid"),
        (b'{"uid":"../x"}', "no_uid"),
        (b'{"uid":"a","uid":"b"}', "duplicate_key"),
        (b'{"uid":"a","meta":{"name":"x\\u0000"}}', "nul"),
        (b'{"uid":"a","meta":{"name":"\\ud800"}}', "lone_surrogate"),
        (b'{"uid":"a","duration":NaN}', "not_finite"),
        (b'{"uid":"a","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "too_deep"),
        (b'{"uid":"a","x":"' + b"x" * WEBHOOK_MAX_BYTES + b'"}', "too_large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_notification_that_somebody_would_stumble_over_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BadDocument) as refused:
        parse_webhook_video(raw)
    assert refused.value.reason == reason
    assert isinstance(refused.value, ValueError)


@settings(deadline=None)
@given(document=st.dictionaries(st.sampled_from([*DOCUMENT, "id", "x"]), anything, max_size=8))
def test_any_object_is_a_video_or_a_named_refusal(document: dict[str, Any]) -> None:
    try:
        found = parse_webhook_video(json.dumps(document).encode())
    except BadDocument:
        return
    assert is_uid(found.uid)
    assert all(isinstance(value, str) for value in found.meta.values())
