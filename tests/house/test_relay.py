"""The relay does what its treatments say, to either direction, to open connections and to new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from house.relay import BLACK_HOLE, HOLD, PASS, RESET, SWALLOW, UNTOUCHED, Relay, Treatment, Upstream, Way

LIMIT_SECONDS = 10.0
# Long enough for loopback to bring whatever would come.
NOTHING_COMES_SECONDS = 0.1

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1000):
        writer.write(chunk)
    writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    async with Relay(Upstream("127.0.0.1", server.sockets[0].getsockname()[1])) as relay:
        yield relay
    server.close()


async def _open(relay: Relay) -> Connection:
    return await asyncio.open_connection("127.0.0.1", relay.port)


async def _ask(connection: Connection, text: bytes = b"hello") -> bytes:
    reader, writer = connection
    writer.write(text)
    async with asyncio.timeout(LIMIT_SECONDS):
        return await reader.readexactly(len(text))


async def _hears_nothing(connection: Connection) -> bool:
    try:
        async with asyncio.timeout(NOTHING_COMES_SECONDS):
            await connection[0].read(1)
    except TimeoutError:
        return True
    return False


async def _read_until_reset(reader: asyncio.StreamReader) -> bytes:
    got = b""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                got += await reader.readexactly(1)
            except ConnectionResetError:
                return got


async def test_it_passes_bytes_and_the_end(relay: Relay) -> None:
    connection = await _open(relay)
    assert await _ask(connection) == b"hello"
    connection[1].write_eof()
    assert await connection[0].read() == b""
    assert relay.accepted == 1


async def test_a_delay_delays(relay: Relay) -> None:
    relay.treat(Treatment(down=Way(delay_seconds=0.2)))
    started = asyncio.get_running_loop().time()
    await _ask(await _open(relay))
    assert asyncio.get_running_loop().time() - started >= 0.2


@pytest.mark.parametrize("treatment", [Treatment(up=SWALLOW), Treatment(down=SWALLOW), BLACK_HOLE])
async def test_a_black_hole_swallows_and_stays_open_and_stays_one(relay: Relay, treatment: Treatment) -> None:
    connection = await _open(relay)
    await _ask(connection)
    relay.treat(treatment)
    connection[1].write(b"lost")
    assert await _hears_nothing(connection)
    relay.heal()
    connection[1].write(b"after a gap")
    assert await _hears_nothing(connection)
    assert relay.swallowed_bytes > 0
    assert await _ask(await _open(relay)) == b"hello"


async def test_what_is_held_comes_later_and_whole(relay: Relay) -> None:
    connection = await _open(relay)
    relay.treat(Treatment(up=HOLD))
    connection[1].write(b"hel")
    assert await _hears_nothing(connection)
    relay.heal()
    assert await _ask(connection, b"lo") == b"he"
    assert await connection[0].readexactly(3) == b"llo"


@pytest.mark.parametrize("n", [0, 1, 4, 5])
async def test_a_cut_comes_at_its_byte(relay: Relay, n: int) -> None:
    connection = await _open(relay)
    await _ask(connection, b"before")
    relay.treat(Treatment(down=Way(cut_at_byte=n)))
    connection[1].write(b"hello")
    assert await _read_until_reset(connection[0]) == b"hello"[:n]


async def test_a_reset_resets_what_is_open_and_what_comes(relay: Relay) -> None:
    connection = await _open(relay)
    await _ask(connection)
    relay.treat(RESET)
    with pytest.raises(ConnectionResetError):
        await connection[0].read()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await _ask(await _open(relay))


async def test_it_refuses_and_takes_connections_again_on_the_same_port(relay: Relay) -> None:
    connection = await _open(relay)
    await _ask(connection)
    relay.refuse()
    with pytest.raises(ConnectionRefusedError):
        await _open(relay)
    assert await _ask(connection) == b"hello"
    await relay.listen()
    assert await _ask(await _open(relay)) == b"hello"


async def test_new_and_open_connections_are_treated_apart(relay: Relay) -> None:
    first = await _open(relay)
    await _ask(first)
    relay.treat(BLACK_HOLE, existing=False)
    assert await _ask(first) == b"hello"
    second = await _open(relay)
    second[1].write(b"lost")
    assert await _hears_nothing(second)
    relay.treat(UNTOUCHED, existing=False)
    relay.treat(Treatment(up=PASS, down=SWALLOW), new=False)
    first[1].write(b"lost")
    assert await _hears_nothing(first)
    assert await _ask(await _open(relay)) == b"hello"


async def test_new_connections_go_where_the_server_has_moved_to(relay: Relay, tmp_path: Path) -> None:
    before = await _open(relay)
    await _ask(before)
    moved = await asyncio.start_unix_server(_echo, tmp_path / "socket")
    relay.upstream = Upstream(str(tmp_path / "socket"))
    assert await _ask(await _open(relay)) == b"hello"
    assert await _ask(before) == b"hello"
    moved.close()


async def test_a_server_that_is_away_is_a_reset(relay: Relay, tmp_path: Path) -> None:
    relay.upstream = Upstream(str(tmp_path / "nobody"))
    reader, _ = await _open(relay)
    with pytest.raises(ConnectionResetError):
        await reader.read()


async def test_nothing_is_left_open(relay: Relay) -> None:
    connection = await _open(relay)
    await _ask(connection)
    assert relay.open_count == 1
    connection[1].close()
    async with asyncio.timeout(LIMIT_SECONDS):
        while relay.open_count:
            await asyncio.sleep(0.01)
