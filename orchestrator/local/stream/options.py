"""What a stand-in can be told when it is made: addresses, pace, limits and first faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.local.stream.faults import Faults

Encode = Literal["h264", "copy"]

# Cloudflare's documented limits; each can be set lower so that a test reaches it with a small file.
FORM_LIMIT_BYTES = 200_000_000
FILE_LIMIT_BYTES = 30_000_000_000
RATE_LIMIT_COUNT = 1200
RATE_LIMIT_WINDOW_SECONDS = 300.0
MAX_IN_FLIGHT = 120


@dataclass(frozen=True, slots=True)
class Dwell:
    """The least time a video spends in each state, in seconds; real work may take longer."""

    downloading_seconds: float
    queued_seconds: float
    inprogress_seconds: float
    # From "at least one quality plays" (readyToStream) to the state `ready`.
    playable_seconds: float
    # From `ready` below 100 % to 100 %; only where ready_at_percent is below 100.
    remaining_seconds: float
    mp4_seconds: float


# Short, and still long enough that a client which polls sees every state.
FAST = Dwell(0.05, 0.05, 0.05, 0.05, 0.05, 0.05)
# For a person at a page: each state stays long enough to be read.
PLEASANT = Dwell(1.5, 1.5, 3.0, 1.0, 3.0, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInOptions:
    """Everything that stays as it is while the stand-in runs.

    Raises ValueError with every problem listed, not only the first.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    # 0: a free port is taken, `StreamStandIn.url` tells which.
    port: int = 0
    # The address written into answers; None: http://host:port.
    public_url: str | None = None
    account_id: str = "57a4d14c57a4d14c57a4d14c57a4d14c"
    # Opens nothing but a stand-in.
    api_token: str = field(default="stand-in-token", repr=False)
    webhook_url: str | None = None
    # None: one is drawn and kept in data_dir.
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_attempts: int = 5
    # Waits between attempts start here and double.
    webhook_backoff_seconds: float = 1.0
    # "copy" encodes nothing: an MP4 is served as it came, anything else is remuxed.
    encode: Encode = "h264"
    # None: `ffmpeg` on the PATH, then the one that imageio-ffmpeg carries.
    ffmpeg: Path | None = None
    encoders: int = 1
    dwell: Dwell = FAST
    # Below 100, `ready` is reported with this pctComplete and 100 follows later.
    ready_at_percent: float = 100.0
    max_in_flight: int = MAX_IN_FLIGHT
    rate_limit_count: int = RATE_LIMIT_COUNT
    rate_limit_window_seconds: float = RATE_LIMIT_WINDOW_SECONDS
    form_limit_bytes: int = FORM_LIMIT_BYTES
    file_limit_bytes: int = FILE_LIMIT_BYTES
    # Far above what a desk needs; set it low to meet 413.
    storage_minutes_limit: float = 100_000.0
    # An upload whose body brings nothing for this long is answered 408.
    stall_timeout_seconds: float = 60.0
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        problems = [f"{name} {problem}" for name, problem in self._problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[tuple[str, str]]:
        at_least_one = ("webhook_attempts", "encoders", "max_in_flight", "rate_limit_count")
        positive = ("rate_limit_window_seconds", "form_limit_bytes", "file_limit_bytes", "stall_timeout_seconds")
        found = [(name, "must be 1 or more") for name in at_least_one if getattr(self, name) < 1]
        found += [(name, "must be above 0") for name in positive if getattr(self, name) <= 0]
        if not 0 <= self.port <= 65535:
            found.append(("port", "must be 0 to 65535"))
        if not 1 <= self.ready_at_percent <= 100:
            found.append(("ready_at_percent", "must be 1 to 100"))
        if self.encode not in ("h264", "copy"):
            found.append(("encode", "must be h264 or copy"))
        for name in ("account_id", "api_token"):
            if not getattr(self, name):
                found.append((name, "must not be empty"))
        return found
