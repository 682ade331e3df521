"""What the stream pipeline does outside, as values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CopyFromUrl:
    """Have the provider fetch the clip from its source address."""

    clip_id: str
    attempt: int
    title: str | None


@dataclass(frozen=True, slots=True)
class EnableMp4:
    """Have the provider make the MP4: for the *make*-th time in this attempt, after those before have failed.

    *is_fresh* says that the video was made for this clip, and that this is its first attempt: whether an MP4 was asked
    for before is known to us, then.
    """

    clip_id: str
    attempt: int
    uid: str
    make: int = 1
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class TransferToBucket:
    """Stream the finished MP4 into the bucket and verify it there."""

    clip_id: str
    attempt: int
    uid: str
    mp4_url: str = field(repr=False)
    duration_seconds: float | None
    is_private: bool


@dataclass(frozen=True, slots=True)
class DeleteVideo:
    """Remove the video, and the MP4 made from it, at the provider."""

    clip_id: str
    attempt: int
    uid: str


@dataclass(frozen=True, slots=True)
class AbandonTransfer:
    """Give up what a failed attempt has left unfinished in the bucket."""

    clip_id: str
    attempt: int


StreamEffect = CopyFromUrl | EnableMp4 | TransferToBucket | DeleteVideo | AbandonTransfer
