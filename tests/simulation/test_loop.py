"""The simulated loop and network keep what they promise: order, time, crashes without clean-up, real HTTP."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orchestrator.transfer import clearing
from simulation.clocks import in_charge
from simulation.loop import Deadlock
from simulation.network import Cut, Fate, NetworkedLoop
from simulation.nodes import EPOCH, Node


def run(loop: NetworkedLoop, main: Callable[[], Awaitable[Any]], node: Node | None = None) -> Any:
    """What *main* returns, in simulated time."""
    with in_charge(loop):
        try:
            return loop.run_until_complete(loop.spawn(node or Node("main"), main()))
        finally:
            loop.bury()


def test_an_hour_passes_at_once() -> None:
    loop = NetworkedLoop(1)

    async def wait() -> tuple[float, float, datetime]:
        before = time.monotonic()
        await asyncio.sleep(3600)
        return time.monotonic() - before, time.time(), clearing.datetime.now(UTC)

    real_before = time.monotonic()
    passed, wall, now = run(loop, wait)
    assert passed == pytest.approx(3600)
    assert wall == pytest.approx(EPOCH + 3600)
    assert now == datetime.fromtimestamp(EPOCH + 3600, UTC)
    assert time.monotonic() - real_before < 60


def test_a_node_lives_by_its_own_clocks() -> None:
    loop = NetworkedLoop(1)
    fast = Node("fast", rate=2.0, wall_seconds=-86400)

    async def wait() -> float:
        await asyncio.sleep(10)
        return time.time()

    assert run(loop, wait, fast) == pytest.approx(EPOCH + 10 - 86400)
    assert loop.now == pytest.approx(5)


def test_a_crashed_node_runs_no_clean_up() -> None:
    loop = NetworkedLoop(1)
    victim, done = Node("victim"), []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            done.append("clean-up")

    async def kill() -> None:
        loop.spawn(victim, work())
        await asyncio.sleep(1)
        loop.crash(victim)
        await asyncio.sleep(200)
        assert not done

    run(loop, kill)


def test_a_paused_node_goes_on_where_it_stood() -> None:
    loop = NetworkedLoop(1)
    sleeper, woke = Node("sleeper"), []

    async def count() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            woke.append(loop.now)

    async def main() -> None:
        counting = loop.spawn(sleeper, count())
        await asyncio.sleep(1.5)
        loop.pause(sleeper, 10)
        await counting

    run(loop, main)
    assert woke == pytest.approx([1.0, 11.5, 12.5])


def test_a_thread_is_lost_with_its_node_before_it_ran_or_after() -> None:
    loop = NetworkedLoop(1)
    done: list[str] = []

    async def ask(name: str) -> None:
        await asyncio.to_thread(done.append, name)
        done.append(f"{name} told")

    async def main() -> None:
        early, late = Node("early"), Node("late")
        loop.spawn(early, ask("early"))
        loop.spawn(late, ask("late"))
        await asyncio.sleep(0)
        loop.crash(early)
        while "late" not in done:
            await asyncio.sleep(0.0001)
        loop.crash(late)
        await asyncio.sleep(10)

    run(loop, main)
    assert done == ["late"]


def test_a_deadlock_is_named() -> None:
    loop = NetworkedLoop(1)

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run(loop, wait)


async def _serve(loop: NetworkedLoop, size: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        return web.Response(body=body + bytes(size))

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()  # noqa: S104 - an address in memory


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_aiohttp_talks_over_it_unmodified(size: int) -> None:
    loop = NetworkedLoop(1)

    async def main() -> list[int]:
        await loop.spawn(Node("server", host="web.example"), _serve(loop, size))
        lengths = []
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post("http://web.example/", data=b"x" * 10) as answer:
                    lengths.append(len(await answer.read()))
        return lengths

    assert run(loop, main) == [size + 10] * 3
    assert not loop.problems


@pytest.mark.parametrize(
    ("fate", "error"),
    [
        (Fate(refused=True), aiohttp.ClientConnectorError),
        (Fate(black_hole=True), aiohttp.ConnectionTimeoutError),
        (Fate(cut_after_bytes=0), aiohttp.ClientError),
        (Fate(cut_after_bytes=1000), aiohttp.ClientPayloadError),
        (Fate(cut_after_bytes=1000, cut=Cut.EOF), aiohttp.ClientPayloadError),
        (Fate(cut_after_bytes=1000, cut=Cut.SILENCE), aiohttp.SocketTimeoutError),
    ],
)
def test_a_fate_befalls_a_connection(fate: Fate, error: type[Exception]) -> None:
    loop = NetworkedLoop(1)
    loop.network.fate = lambda *_: fate

    async def main() -> None:
        await loop.spawn(Node("server", host="web.example"), _serve(loop, 5000))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with pytest.raises(error):
                async with session.get("http://web.example/") as answer:
                    await answer.read()

    run(loop, main)


def test_a_killed_server_resets_its_connections_and_another_takes_its_place() -> None:
    loop = NetworkedLoop(1)
    server = Node("server#1", host="web.example")

    async def main() -> int:
        await loop.spawn(server, _serve(loop, 5))
        async with aiohttp.ClientSession() as session:
            async with session.get("http://web.example/") as answer:
                await answer.read()
            loop.crash(server)
            loop.network.crashed(server)
            with pytest.raises(aiohttp.ClientError):
                await session.post("http://web.example/", data=b"x")
            await loop.spawn(Node("server#2", host="web.example"), _serve(loop, 7))
            async with session.get("http://web.example/") as answer:
                return len(await answer.read())

    assert run(loop, main) == 7


def test_the_same_seed_repeats_the_same_chance_and_nothing_stays_replaced() -> None:
    async def draw() -> list[Any]:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: None)
        return [secrets.token_hex(4), secrets.randbits(64), loop.time()]

    first, again, other = (run(NetworkedLoop(seed), draw) for seed in (7, 7, 8))
    assert first == again != other
    assert secrets.token_hex(4) != secrets.token_hex(4)
    assert abs(time.time() - datetime.now(UTC).timestamp()) < timedelta(minutes=1).total_seconds()
