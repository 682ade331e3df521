from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from orchestrator.local.dev_state import PORT_NAMES, choose_ports, read_state, write_state
from orchestrator.local.errors import LocalError

_HOST = "127.0.0.1"


def test_secrets_are_drawn_once_and_then_remembered(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    first = read_state(file)
    assert read_state(file) != first
    write_state(file, first)
    assert read_state(file) == first


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_state(file, read_state(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_secret_is_in_the_text_of_a_state(tmp_path: Path) -> None:
    state = read_state(tmp_path / "state.json")
    hidden = (state.api_token, state.webhook_secret, state.access_key_id, state.secret_access_key)
    assert not any(secret in repr(state) for secret in hidden)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"account_id": "a"}', '{"account_id": 1, "ports": {}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)
    with pytest.raises(LocalError, match=r"state\.json"):
        read_state(file)


def test_ports_are_chosen_once_all_different_and_never_the_pages(tmp_path: Path) -> None:
    state, moved = choose_ports(read_state(tmp_path / "state.json"), _HOST, 18_080)
    assert set(state.ports) == set(PORT_NAMES)
    assert len({*state.ports.values(), 18_080}) == len(PORT_NAMES) + 1
    assert moved == []
    assert choose_ports(state, _HOST, 18_080) == (state, [])


def test_a_port_that_was_lost_is_replaced_and_reported(tmp_path: Path) -> None:
    state, _ = choose_ports(read_state(tmp_path / "state.json"), _HOST, 18_080)
    with socket.create_server((_HOST, state.ports["bucket"])):
        after, moved = choose_ports(state, _HOST, 18_080)
    assert moved == ["bucket"]
    assert after.ports["bucket"] not in state.ports.values()
    assert (after.ports["stream"], after.ports["files"]) == (state.ports["stream"], state.ports["files"])


def test_a_page_that_takes_a_remembered_port_gets_it(tmp_path: Path) -> None:
    state, _ = choose_ports(read_state(tmp_path / "state.json"), _HOST, 18_080)
    after, moved = choose_ports(state, _HOST, state.ports["stream"])
    assert moved == ["stream"]
    assert state.ports["stream"] not in after.ports.values()
