from __future__ import annotations

import asyncio
import socket

import pytest

from orchestrator.local.errors import PortInUse
from orchestrator.local.ports import free_port_from, is_free, wait_until_free

_HOST = "127.0.0.1"


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server((_HOST, 0))


def test_a_port_with_a_listener_is_not_free(listener: socket.socket) -> None:
    with listener:
        assert not is_free(_HOST, listener.getsockname()[1])


def test_a_port_without_one_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert is_free(_HOST, port)


def test_an_address_that_is_not_ours_is_an_error_and_not_a_busy_port() -> None:
    with pytest.raises(PortInUse, match=r"192\.0\.2\.1"):
        is_free("192.0.2.1", 8080)


@pytest.mark.as_user
def test_a_port_that_needs_root_is_named() -> None:
    with pytest.raises(PortInUse, match="port 80"):
        is_free(_HOST, 80)


async def test_waiting_ends_when_the_listener_goes(listener: socket.socket) -> None:
    waiting = asyncio.create_task(wait_until_free(_HOST, listener.getsockname()[1], 20))
    await asyncio.sleep(0)
    listener.close()
    assert await waiting


async def test_waiting_ends_with_the_patience(listener: socket.socket) -> None:
    with listener:
        assert not await wait_until_free(_HOST, listener.getsockname()[1], 0.01)


def test_the_next_free_port_passes_over_listeners_and_over_what_is_taken(listener: socket.socket) -> None:
    with listener:
        port = listener.getsockname()[1]
        found = free_port_from(_HOST, port, {port + 1})
    assert found > port + 1


def test_no_port_is_found_beyond_the_last() -> None:
    with pytest.raises(PortInUse):
        free_port_from(_HOST, 65535, {65535})
