"""What is told of a running transfer: often enough for a moving bar, rarely enough to cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.transfer.jobs import TransferProgress

#: Five reports a second look like motion.
_REPORT_EVERY_SECONDS = 0.2


class ProgressMeter:
    """Counts bytes and reports them, never fewer than before even when a part is begun again."""

    def __init__(self, report: Callable[[TransferProgress], None]) -> None:
        self._report = report
        self._told_at = float("-inf")
        self._most_bytes = 0
        self._total_bytes: int | None = None
        self._durable_bytes = 0
        self._part = 1
        self._has_told_first = False

    def begin(self, durable_bytes: int, total_bytes: int | None) -> None:
        """Stand where the checkpoint stands; what it holds is told at once."""
        self._durable_bytes, self._total_bytes = durable_bytes, total_bytes
        if durable_bytes:
            self._tell(durable_bytes, is_first_part_durable=self._is_first())

    def moved(self, part: int, part_bytes: int) -> None:
        """*part_bytes* of *part* have gone out; told at most five times a second."""
        self._part = part
        if time.monotonic() - self._told_at >= _REPORT_EVERY_SECONDS:
            self._tell(self._durable_bytes + part_bytes)

    def part_is_durable(self, part: int, part_bytes: int) -> None:
        """The bucket holds *part*; told at once for the first, like any other motion after that."""
        self._durable_bytes += part_bytes
        self._part = part
        if self._is_first():
            self._tell(self._durable_bytes, is_first_part_durable=True)
        else:
            self.moved(part, 0)

    def end(self) -> None:
        """Everything is in the bucket."""
        self._tell(self._durable_bytes)

    def _is_first(self) -> bool:
        if self._has_told_first:
            return False
        self._has_told_first = True
        return True

    def _tell(self, bytes_done: int, *, is_first_part_durable: bool = False) -> None:
        self._told_at = time.monotonic()
        self._most_bytes = max(self._most_bytes, bytes_done)
        self._report(TransferProgress(self._most_bytes, self._total_bytes, self._part, is_first_part_durable))
