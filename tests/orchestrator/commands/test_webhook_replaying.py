"""`webhook replay`: what came for a clip is listed, and acted on again through the door it came by."""

from __future__ import annotations

import json

import pytest


async def keep(ground, clip_id: str, state: str, minute: int = 0, signature: str = "valid") -> int:
    """A kept notification, as the web process writes it; its number."""
    return await ground.owner.fetchval(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, received_at, signature, state, outcome, size_bytes,"
        " body_sha256, body) VALUES ($1, $2, now() + $4 * interval '1 min', $5, $3, 'recorded', 100,"
        " sha256(convert_to($6, 'UTF8')), $6) RETURNING id",
        clip_id, f"uid{clip_id}", state, minute, signature,
        json.dumps({"uid": f"uid{clip_id}", "status": {"state": state}, "minute": minute}),
    )  # fmt: skip


async def test_the_last_one_is_acted_on_again_and_only_asks(cli, ground) -> None:
    await ground.insert("c1")
    await keep(ground, "c1", "queued")
    await keep(ground, "c1", "ready", minute=1)
    ran = await cli("webhook", "replay", "c1")
    assert (ran.code, ran.err) == (0, "")
    assert "asked to move to stream_ready" in ran.out
    [signal] = await ground.signals()
    assert (signal["requested_status"], signal["source"], signal["insists"]) == (
        "stream_ready",
        "webhook replay",
        False,
    )
    assert await ground.owner.fetchval("SELECT hearsay FROM clip_signals")
    assert await ground.owner.fetchval("SELECT status FROM clips") == "uploading"


async def test_a_certain_one_is_acted_on_also_when_it_was_refused_as_stale(cli, ground) -> None:
    await ground.insert("c1")
    number = await keep(ground, "c1", "queued", signature="stale")
    await keep(ground, "c1", "ready", minute=1)
    ran = await cli("webhook", "replay", "c1", "--delivery", str(number), "--json")
    assert (ran.code, ran.document["requested_status"]) == (0, "queued")


async def test_what_came_is_listed_and_nothing_is_asked(cli, ground) -> None:
    await ground.insert("c1")
    number = await keep(ground, "c1", "ready\x1b[2J")
    ran = await cli("webhook", "replay", "c1", "--list")
    assert ran.code == 0
    assert ran.out.splitlines()[0].split() == ["NUMBER", "CAME", "(UTC)", "TIMES", "SIGNATURE", "STATE", "OUTCOME"]
    assert "\x1b" not in ran.out
    assert ran.out.splitlines()[1].split()[0] == str(number)
    document = (await cli("webhook", "replay", "c1", "--list", "--json")).document
    assert [each["id"] for each in document["deliveries"]] == [number]
    assert await ground.signals() == []


@pytest.mark.parametrize("arguments", [(), ("--delivery", "4711")])
async def test_what_is_not_kept_cannot_be_replayed(cli, ground, arguments: tuple[str, ...]) -> None:
    await ground.insert("c1")
    ran = await cli("webhook", "replay", "c1", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert "no such notification" in ran.err
