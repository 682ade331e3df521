from __future__ import annotations

import re

from orchestrator.local.stream.limiter import RateLimiter


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_passing_the_limit_blocks_for_a_whole_window() -> None:
    clock = _Clock()
    limiter = RateLimiter(3, 300, clock)
    assert [limiter.take().remaining for _ in range(3)] == [2, 1, 0]
    clock.now += 250
    assert limiter.take().retry_after_seconds == 300
    # The window would have ended here; the block has not.
    clock.now += 60
    assert limiter.take().retry_after_seconds == 240
    clock.now += 240
    assert limiter.take().remaining == 2


def test_a_window_that_passes_quietly_starts_anew() -> None:
    clock = _Clock()
    limiter = RateLimiter(2, 300, clock)
    limiter.take()
    limiter.take()
    clock.now += 300
    allowance = limiter.take()
    assert (allowance.remaining, allowance.reset_seconds) == (1, 300)


async def test_every_answer_tells_what_is_left(open_account) -> None:
    account = await open_account(rate_limit_count=3)
    left = []
    for path in ("/stream", "/stream/nothing", "/nowhere"):
        answer = await account.call("GET", path)
        assert answer.headers["Ratelimit-Policy"] == '"default";q=3;w=300'
        match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["Ratelimit"])
        left.append(int(match.group(1)))
        assert 0 < int(match.group(2)) <= 300
    assert left == [2, 1, 0]
    answer = await account.call("GET", "/stream")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, 971, "300")
    assert (account.stream.calls.total, account.stream.calls.limited) == (4, 1)


async def test_uploads_and_delivery_are_not_counted(open_account, media) -> None:
    account = await open_account(rate_limit_count=2)
    announced = await account.announce()
    await account.send(announced["uploadURL"], media / "clip.mp4")
    async with account.session.get(f"{account.stream.base_url}/{announced['uid']}/iframe") as answer:
        assert "Ratelimit" not in answer.headers
    assert (await account.call("GET", "/stream")).status == 200
    assert (await account.call("GET", "/stream")).status == 429


async def test_a_wrong_token_uses_nothing_up(open_account) -> None:
    account = await open_account(rate_limit_count=1)
    account.token = "wrong"
    for _ in range(3):
        assert "Ratelimit" not in (await account.call("GET", "/stream")).headers
    account.token = account.stream.api_token
    assert (await account.call("GET", "/stream")).status == 200


async def test_the_block_ends(open_account) -> None:
    account = await open_account(rate_limit_count=1, rate_limit_window_seconds=0.2)
    statuses = [(await account.call("GET", "/stream")).status for _ in range(2)]
    assert statuses[0] == 200
    while (await account.call("GET", "/stream")).status == 429:
        pass
