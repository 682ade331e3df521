"""What polling is compared with: looks at fixed intervals, each MP4 by a call, and a look before each request.

Every look comes after an eighth of the time a clip has stood at its status, five seconds at least and a minute at most,
and once more at once after each move.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.pipelines.stream.effects import EnableMp4
from orchestrator.pipelines.stream.hands import StreamHands
from orchestrator.pipelines.stream.plan import DELIVERY, DOWNLOAD, NOTHING, VIDEO
from orchestrator.pipelines.terms import LookKind, Pipeline, Plan
from orchestrator.storage.clips import Clip

SHORTEST, LONGEST = timedelta(seconds=5), timedelta(seconds=60)


class FixedHands(StreamHands):
    """Whatever is asked for might have been asked for before."""

    async def _asks_first(self, clip_id: str, what: str) -> bool:
        return False


def at_fixed_intervals(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, looked at by the clock alone."""

    def look_kind(clip: Clip) -> LookKind:
        kind = pipeline.look_kind(clip)
        if clip.cloudflare_uid is not None and clip.status in ("uploading", "queued", "processing"):
            return VIDEO
        is_of_mp4 = kind == DELIVERY or (kind == NOTHING and clip.status in ("waitformp4", "mp4_processing"))
        return DOWNLOAD if is_of_mp4 else kind

    def plan(clip: Clip, seen: Any, now: datetime) -> Plan:
        got = pipeline.plan(clip, seen, now)
        if got.step is not None:
            # The next look has what follows done.
            return replace(got, look_at=now, effects=())
        if any(isinstance(effect, EnableMp4) for effect in got.effects) or got.look_at is None or got.effects:
            return got
        return replace(got, look_at=now + max(SHORTEST, min((now - clip.status_since) / 8, LONGEST)))

    return replace(pipeline, look_kind=look_kind, plan=plan)
