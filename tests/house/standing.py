"""A whole clip, seen as its judge sees it."""

from __future__ import annotations

from orchestrator.monitor.judging import Standing
from orchestrator.storage.clips import Clip


def standing_of(clip: Clip) -> Standing:
    """Where *clip* stands; the database hands on what the document says as a text, whatever it is."""
    said = clip.processing_details.get("last_checked")
    checked = said if said is None or isinstance(said, str) else str(said)
    return Standing(clip.id, clip.pipeline, clip.status, clip.progress, clip.attempt, clip.look_at, clip.tries, checked)
