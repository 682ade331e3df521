"""What was asked for, as it stands in the job's document.

{"upload_id": "up_0123", "mode": "manual", "clips": [{"start": 1.5, "end": 4}], "clip_duration": 5,
 "max_clips": 50, "precision": "exact", "publish": null}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.pipelines.cut.ranges import MOST_CLIPS, Range

DEFAULT_CLIP_SECONDS = 5.0
DEFAULT_MOST_CLIPS = 50
# No video is as long as a million seconds.
MOST_SECONDS = 1e6


@dataclass(frozen=True, slots=True)
class CutRequest:
    """One job's wishes. *ranges* are empty in automatic mode; *is_exact* means cut at the very frame, by encoding."""

    upload_id: str
    ranges: tuple[Range, ...] = ()
    clip_seconds: float = DEFAULT_CLIP_SECONDS
    most_clips: int = DEFAULT_MOST_CLIPS
    is_exact: bool = True
    publish: Literal["stream"] | None = None
    # Where /outputs is found by those who fetch from it; known to whoever answered the request.
    base_url: str | None = None

    @property
    def mode(self) -> Literal["manual", "automatic"]:
        """Explicit ranges win."""
        return "manual" if self.ranges else "automatic"

    def as_details(self) -> dict[str, Any]:
        """The request as the job's document carries it."""
        return {
            "upload_id": self.upload_id,
            "mode": self.mode,
            "clips": [{"start": each.start_seconds, "end": each.end_seconds} for each in self.ranges],
            "clip_duration": self.clip_seconds,
            "max_clips": self.most_clips,
            "precision": "exact" if self.is_exact else "fast",
            "publish": self.publish,
            "outputs_base": self.base_url,
        }


def request_in(details: Mapping[str, Any]) -> CutRequest | None:
    """The request in a job's document; None when there is none that makes sense. Strangers may have written it."""
    upload_id, clips = details.get("upload_id"), details.get("clips", [])
    seconds, most = details.get("clip_duration", DEFAULT_CLIP_SECONDS), details.get("max_clips", DEFAULT_MOST_CLIPS)
    if not isinstance(upload_id, str) or not isinstance(clips, list) or len(clips) > MOST_CLIPS:
        return None
    if not _is_number(seconds) or not 0 < seconds < MOST_SECONDS or not _is_number(most) or not 1 <= most <= MOST_CLIPS:
        return None
    ranges = tuple(_range(each) for each in clips)
    if None in ranges:
        return None
    return CutRequest(
        upload_id=upload_id,
        ranges=tuple(each for each in ranges if each is not None),
        clip_seconds=float(seconds),
        most_clips=int(most),
        is_exact=details.get("precision") != "fast",
        publish="stream" if details.get("publish") == "stream" else None,
        base_url=base if isinstance(base := details.get("outputs_base"), str) else None,
    )


def _range(value: Any) -> Range | None:
    if not isinstance(value, Mapping) or not _is_number(value.get("start")) or not _is_number(value.get("end")):
        return None
    return Range(float(value["start"]), float(value["end"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST_SECONDS
