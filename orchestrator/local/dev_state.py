"""What `orchestrator dev` remembers between runs: the secrets it drew, and the ports it chose.

One file that only its owner may read:

    {"account_id": "…", "api_token": "…", …, "ports": {"stream": 8081, "bucket": 8082, "files": 8083}}

The ports stay the same, because the addresses of finished clips hold them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import LocalError
from .ports import free_port_from, is_free

PORT_NAMES = ("stream", "bucket", "files")


@dataclass(frozen=True, slots=True)
class DevState:
    """The secrets of the stand-ins. They open nothing but this directory's data, on loopback."""

    account_id: str
    api_token: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    ports: dict[str, int] = field(default_factory=dict)


def read_state(file: Path) -> DevState:
    """What *file* remembers, or a new state when there is no file yet.

    Raises:
        LocalError: the file is damaged.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _draw()
    except ValueError as exc:
        raise LocalError(f"{file} is damaged; remove it, and new secrets are drawn") from exc
    if not _fits(found):
        raise LocalError(f"{file} is not what this version writes; remove it, and new secrets are drawn")
    return DevState(**found)


def write_state(file: Path, state: DevState) -> None:
    """Keep *state*; the file is whole at any moment and readable by its owner alone."""
    unfinished = file.with_name(f"{file.name}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(dataclasses.asdict(state), opened, indent=2)
    unfinished.replace(file)


def choose_ports(state: DevState, host: str, page_port: int) -> tuple[DevState, list[str]]:
    """*state* with a free port for every name, the remembered ones where they are free, and the names that moved."""
    ports: dict[str, int] = {}
    moved = []
    for name in PORT_NAMES:
        remembered = state.ports.get(name)
        if remembered is not None and remembered != page_port and is_free(host, remembered):
            ports[name] = remembered
            continue
        if remembered is not None:
            moved.append(name)
        first = page_port + 1 if page_port < 65_000 else 8081
        ports[name] = free_port_from(host, first, {page_port, *ports.values(), *state.ports.values()})
    return dataclasses.replace(state, ports=ports), moved


def _draw() -> DevState:
    return DevState(
        account_id=secrets.token_hex(16),  # as long as a real one
        api_token=secrets.token_hex(20),
        webhook_secret=secrets.token_hex(20),
        access_key_id=secrets.token_hex(16),
        secret_access_key=secrets.token_hex(32),
    )


def _fits(found: Any) -> bool:
    names = [each.name for each in dataclasses.fields(DevState) if each.name != "ports"]
    return (
        isinstance(found, dict)
        and set(found) == {*names, "ports"}
        and all(isinstance(found[name], str) and found[name] for name in names)
        and isinstance(found["ports"], dict)
        and all(isinstance(port, int) and 0 < port < 65536 for port in found["ports"].values())
    )
