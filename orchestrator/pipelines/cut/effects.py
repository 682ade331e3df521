"""What the cut pipeline does outside, as values. Each is safe to repeat: what is finished is found and kept."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.pipelines.cut.ranges import Range
from orchestrator.pipelines.cut.request import CutRequest


@dataclass(frozen=True, slots=True)
class PrepareFile:
    """Make sure of the upload's bytes for as long as the job needs them."""

    clip_id: str
    attempt: int
    upload_id: str


@dataclass(frozen=True, slots=True)
class AnalyzeVideo:
    """Find out what the file is, and settle which pieces are cut."""

    clip_id: str
    attempt: int
    request: CutRequest


@dataclass(frozen=True, slots=True)
class CutClips:
    """Cut every piece."""

    clip_id: str
    attempt: int
    ranges: tuple[Range, ...]
    is_exact: bool


@dataclass(frozen=True, slots=True)
class ExportClips:
    """Put the finished pieces where they are served."""

    clip_id: str
    attempt: int
    count: int


@dataclass(frozen=True, slots=True)
class CheckClips:
    """Probe every piece where it is served, and note what is there."""

    clip_id: str
    attempt: int
    ranges: tuple[Range, ...]
    is_exact: bool


@dataclass(frozen=True, slots=True)
class ClearWork:
    """Remove the job's work directory, and what a failed job has exported."""

    clip_id: str
    attempt: int
    status: str
    keeps_outputs: bool
    count: int


@dataclass(frozen=True, slots=True)
class PublishClips:
    """Carry each finished clip on as a clip of *pipeline*, which fetches it from below *base_url*."""

    clip_id: str
    attempt: int
    pipeline: str
    base_url: str


CutEffect = PrepareFile | AnalyzeVideo | CutClips | ExportClips | CheckClips | ClearWork | PublishClips
