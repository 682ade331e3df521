"""What a transfer is asked to do, how far it may go, what it tells on the way and in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.drivers.patience import Patience
from orchestrator.drivers.stored_objects import ObjectLabels

MIB = 1024 * 1024

#: Everything of ours in the bucket lies under this, so that the sweep touches nothing else.
KEY_PREFIX = "videos/"

#: The largest file the provider takes by any method.
LARGEST_SOURCE_BYTES = 30 * 1000**3

_UID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class TransferJob:
    """One clip's file to be copied. The address may carry a token and does not print.

    Raises ValueError for a uid that could not be part of a key.
    """

    clip_id: str
    uid: str
    attempt: int
    source_url: str = field(repr=False)
    #: None when the provider did not say; then the duration is not checked.
    expected_duration_seconds: float | None = None
    max_bytes: int = LARGEST_SOURCE_BYTES
    labels: ObjectLabels = field(default_factory=ObjectLabels)

    def __post_init__(self) -> None:
        object_key(self.uid, self.attempt)

    @property
    def key(self) -> str:
        return object_key(self.uid, self.attempt)


def object_key(uid: str, attempt: int) -> str:
    """Where attempt *attempt* of *uid* is kept: always the same place, so a repeat is harmless.

    A further attempt has a place of its own: the store lets the last writer win, and an old writer may still be alive.
    """
    if not _UID.match(uid):
        raise ValueError("a uid is 1 to 64 letters, digits, dashes and underscores")
    if attempt < 1:
        raise ValueError("attempts count from 1")
    return f"{KEY_PREFIX}{uid}.mp4" if attempt == 1 else f"{KEY_PREFIX}{uid}-{attempt}.mp4"


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How a transfer is cut and when it is ended."""

    # 16 MiB keeps a 30 GB file under 2,000 parts and what is read twice after a crash to a few seconds' worth.
    part_floor_bytes: int = 16 * MIB
    # 30 GB at 1.5 MB/s, a slow host's rate, take 5.6 hours.
    deadline_seconds: float = 6 * 3600.0
    # Neither side is silent this long while a part is on its way.
    stall_seconds: float = 60.0
    # Tries of one part, each with its own read of the source.
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.part_floor_bytes < 5 * MIB:
            raise ValueError("R2 takes parts from 5 MiB up")


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far a transfer is. `bytes_done` never falls within one call."""

    bytes_done: int
    #: None while the source hides its length.
    bytes_total: int | None
    #: The part on its way, from 1.
    part: int
    #: True in exactly one report of a call: the bucket holds its first part now.
    is_first_part_durable: bool = False


@dataclass(frozen=True, slots=True)
class TransferResult:
    """A whole and verified object. Only now may its address be shown."""

    key: str
    public_url: str
    size_bytes: int
    etag: str
    #: Of the whole object; None when the bytes did not all pass through this call.
    sha256: str | None
