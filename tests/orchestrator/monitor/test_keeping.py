"""The keeper: one lost renewal is no lost lease; one that cannot be renewed is given up while it still holds."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.monitor import loop
from orchestrator.monitor.errors import LeadershipLost
from orchestrator.monitor.leadership import RENEWAL_SECONDS, Term
from orchestrator.monitor.loop import MonitorParts


class Unrenewable:
    """A lease at a database that is away; *remaining* is how long it can be trusted after each failed renewal."""

    def __init__(self, *remaining: float) -> None:
        self._remaining = list(remaining)
        self.remaining_seconds = 0.0

    async def renew(self, term: Term, age_seconds: float) -> None:
        self.remaining_seconds = self._remaining.pop(0)
        raise ConnectionResetError

    @property
    def renewals_left(self) -> int:
        return len(self._remaining)


async def keep(lease: Unrenewable) -> None:
    parts = MonitorParts(None, None, {}, {})  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await loop._Turn(parts, lease, Term("holder", 1))._keep()  # type: ignore[arg-type]


async def test_a_lease_that_cannot_be_renewed_in_time_is_given_up() -> None:
    lease = Unrenewable(RENEWAL_SECONDS - 0.1, 0.0)
    with pytest.raises(LeadershipLost):
        await keep(lease)
    assert lease.renewals_left == 1


async def test_one_lost_renewal_is_no_lost_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RENEWAL_SECONDS", 0.01)
    lease = Unrenewable(1.0, 1.0, 0.0, 0.0)
    with pytest.raises(LeadershipLost):
        await keep(lease)
    assert lease.renewals_left == 1
