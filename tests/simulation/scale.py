"""The product's transfer on the scale of a simulation: files of some kilobytes that still have several parts."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

from orchestrator.pipelines.stream import hands
from orchestrator.transfer import TransferJob, TransferLimits, copy_to_bucket

#: A third of the file that a `Fate` makes unless it says otherwise: two full parts and a short one.
PART_BYTES = 1_000


class SmallLimits(TransferLimits):
    """Limits whose parts may be as small as one likes; the bucket has to agree (`BucketOptions`)."""

    def __post_init__(self) -> None:
        """Nothing is too small here."""


@contextlib.contextmanager
def small_parts(
    part_bytes: int = PART_BYTES, max_bytes: int | None = None, deadline_seconds: float | None = None
) -> Iterator[None]:
    """Within, the stream pipeline cuts files into parts of *part_bytes*, and takes none above *max_bytes*."""
    limits = SmallLimits(part_floor_bytes=part_bytes)
    if deadline_seconds is not None:
        limits = SmallLimits(part_floor_bytes=part_bytes, deadline_seconds=deadline_seconds)
    copy = functools.partial(copy_to_bucket, limits=limits)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(hands, "copy_to_bucket", copy))
        if max_bytes is not None:
            job = functools.partial(TransferJob, max_bytes=max_bytes)
            stack.enter_context(mock.patch.object(hands, "TransferJob", job))
        yield
