"""What follows for a job at every status; strangers may have written its document."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipelines.cut.effects import (
    AnalyzeVideo,
    CheckClips,
    ClearWork,
    CutClips,
    ExportClips,
    PrepareFile,
    PublishClips,
)
from orchestrator.pipelines.cut.plan import CUT_PIPELINE, cleared_mark, plan, resume_status
from orchestrator.pipelines.cut.ranges import Range
from orchestrator.pipelines.cut.request import CutRequest, request_in
from orchestrator.storage.clips import Clip
from statusutils import CUT

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)
REQUEST = CutRequest("up", (Range(0, 1), Range(2, 3)), base_url="https://cdn.example.org")
SETTLED = REQUEST.as_details() | {"ranges": [[0.0, 1.0], [2.0, 3.0]]}


def job(status: str, details: Any = None, **values: Any) -> Clip:
    all_values: dict[str, Any] = dict.fromkeys(one.name for one in fields(Clip))
    all_values |= {"id": "job", "pipeline": "cut", "status": status, "attempt": 1, "status_since": NOW}
    all_values |= {"processing_details": SETTLED if details is None else details, **values}
    return Clip(**all_values)


@pytest.mark.parametrize(
    ("status", "effect"),
    [
        ("pending", PrepareFile("job", 1, "up")),
        ("analyzing", AnalyzeVideo("job", 1, REQUEST)),
        ("clipping", CutClips("job", 1, REQUEST.ranges, is_exact=True)),
        ("exporting", ExportClips("job", 1, 2)),
        ("finalizing", CheckClips("job", 1, REQUEST.ranges, is_exact=True)),
    ],
)
def test_each_status_has_its_work(status: str, effect: object) -> None:
    made = plan(job(status), None, NOW)
    assert made.effects == (effect,)
    assert made.look_at is not None
    assert made.look_at > NOW


def test_a_prepared_job_is_read_at_once() -> None:
    step = plan(job("prepared"), None, NOW).step
    assert step is not None
    assert step.status == "analyzing"


def test_an_end_is_tidied_up_once_and_again_after_another_end() -> None:
    complete = job("complete", completed_at=NOW)
    assert plan(complete, None, NOW).effects == (ClearWork("job", 1, "complete", keeps_outputs=True, count=2),)
    tidied = SETTLED | {"cleared": cleared_mark(1, "complete")}
    assert plan(job("complete", tidied, completed_at=NOW), None, NOW).look_at is None
    deleted = tidied | {"delete_requested": True}
    (effect,) = plan(job("error", deleted, completed_at=NOW), None, NOW).effects
    assert effect == ClearWork("job", 1, "error", keeps_outputs=False, count=2)


def test_a_job_that_is_tried_again_by_itself_keeps_what_is_finished() -> None:
    waiting = SETTLED | {"retry_at": (NOW + timedelta(minutes=10)).isoformat()}
    assert plan(job("error", waiting), None, NOW).effects == ()


def test_a_complete_job_is_carried_on_once() -> None:
    wanted = SETTLED | {"publish": "stream"}
    assert plan(job("complete", wanted), None, NOW).effects == (
        PublishClips("job", 1, "stream", "https://cdn.example.org"),
    )
    assert isinstance(plan(job("complete", wanted | {"published": 2}), None, NOW).effects[0], ClearWork)


def test_a_deleted_job_has_nothing_to_start_from() -> None:
    assert resume_status(job("error", {"delete_requested": True})) is None
    assert resume_status(job("error")) == "pending"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["start", "end", "x"]), inner),
    max_leaves=6,
)
KEYS = ("upload_id", "clips", "clip_duration", "max_clips", "precision", "publish", "ranges", "cleared", "retry_at")


@given(st.sampled_from(list(CUT.by_name)), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_stands_in_the_document_there_is_a_plan(status: str, details: dict[str, Any]) -> None:
    made = CUT_PIPELINE.plan(job(status, details), None, NOW)
    assert made.look_at is not None or status in ("complete", "error")


def test_a_request_survives_its_document() -> None:
    assert request_in(REQUEST.as_details()) == REQUEST
