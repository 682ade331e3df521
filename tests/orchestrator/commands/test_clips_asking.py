"""`clips retry` and `clips signal`: one signal each, in everybody's way, and nothing else of the clip changes."""

from __future__ import annotations

import asyncio
import json

import pytest

from orchestrator.storage.pool import connect
from signals import WAKE_CHANNEL

UNLED = "no monitor leads now, so it waits until one runs: `orchestrator monitor`\n"


async def test_a_failed_clip_is_tried_again_from_its_last_safe_place(cli, ground) -> None:
    await ground.insert("c1")
    await ground.move("c1", "error", 15, mp4_url="https://d/x.mp4")
    ran = await cli("clips", "retry", "c1")
    said = "Recorded: clip c1 is asked to move to mp4downloading in attempt 2; the monitor judges it.\n"
    assert (ran.code, ran.out, ran.err) == (0, said, UNLED)
    signals = await ground.signals()
    assert [(row["attempt"], row["requested_status"], row["source"]) for row in signals] == [
        (2, "mp4downloading", "command line")
    ]
    assert await ground.owner.fetchval("SELECT status FROM clips") == "error"


async def test_a_retry_as_json_is_what_the_api_answers(cli, ground) -> None:
    await ground.insert("c1")
    await ground.lead()
    await ground.move("c1", "error", 15)
    ran = await cli("clips", "retry", "c1", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.document == {
        "id": "c1",
        "requested_status": "uploading",
        "attempt": 2,
        "recorded": True,
        "status": "error",
    }


async def test_only_a_failed_clip_is_tried_again(cli, ground) -> None:
    await ground.insert("c1")
    ran = await cli("clips", "retry", "c1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "clip c1 is at uploading; only a failed one can be tried again\n"
    assert await ground.signals() == []


async def test_nothing_left_is_said(cli, ground) -> None:
    await ground.insert("c1", error_code="upload_expired")
    await ground.move("c1", "error", 15)
    ran = await cli("clips", "retry", "c1")
    assert (ran.code, ran.err) == (1, "nothing of clip c1 is left to start from; upload it again as a new clip\n")
    assert await ground.signals() == []


async def test_a_signal_is_recorded_with_its_details(cli, ground) -> None:
    await ground.insert("c1")
    await ground.lead()
    ran = await cli("clips", "signal", "c1", "queued", "--details", '{"seen": 1}', "--message", "I saw it")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "Recorded: clip c1 is asked to move to queued in attempt 1; the monitor judges it.\n"
    [signal] = await ground.signals()
    assert (signal["requested_status"], signal["source"], signal["insists"]) == ("queued", "command line", False)
    assert json.loads(signal["details"]) == {"seen": 1, "message": "I saw it"}


async def test_an_error_insists_and_its_message_is_the_reason(cli, ground) -> None:
    await ground.insert("c1")
    ran = await cli("clips", "signal", "c1", "error", "--message", "wrong file", "--json")
    assert (ran.code, ran.document["requested_status"], ran.err) == (0, "error", UNLED)
    [signal] = await ground.signals()
    assert signal["insists"] is True
    assert json.loads(signal["details"]) == {"error_message": "wrong file"}


@pytest.mark.parametrize("command", [("retry", "c1"), ("signal", "c1", "queued")])
async def test_the_monitor_is_woken(cli, ground, database: str, command: tuple[str, ...]) -> None:
    await ground.insert("c1")
    if command[0] == "retry":
        await ground.move("c1", "error", 15)
    woken = asyncio.Event()
    listening = await connect(database, "orchestrator_monitor", "test")
    await listening.add_listener(WAKE_CHANNEL, lambda *_: woken.set())
    assert (await cli("clips", *command)).code == 0
    await asyncio.wait_for(woken.wait(), 10)
    await listening.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("readyish",), "the stream pipeline has no status 'readyish'; it has uploading, queued, processing"),
        (("\x1b[2J",), "the stream pipeline has no status '\\x1b[2J'; it has"),
        (("queued", "--details", "["), "argument --details: it is no JSON: Expecting value"),
        (("queued", "--details", "[1]"), 'argument --details: it is not a JSON object, like {"key": "value"}'),
        (("queued", "--details", '{"a": NaN}'), "argument --details: it is no JSON: NaN is no JSON"),
        (("queued", "--details", '{"a": 1e999}'), "--details: details cannot be written as JSON"),
        (("queued", "--details", '{"a": "\\u0000"}'), "--details: the text holds characters that PostgreSQL cannot"),
        (("queued", "--details", '{"a": "\\ud800"}'), "--details: the text holds characters that PostgreSQL cannot"),
        (("queued", "--details", "[" * 100_000), "argument --details: it is nested too deeply"),
        (("queued", "--details", '{"a": "%s"}' % ("x" * 70_000)), "--details: the clip's details would grow beyond"),
        (("queued", "--message", "\udcff"), "argument --message: it is not UTF-8"),
    ],
)
async def test_what_cannot_be_asked_is_one_line(cli, ground, arguments: tuple[str, ...], complaint: str) -> None:
    await ground.insert("c1")
    ran = await cli("clips", "signal", "c1", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert ran.err.count("\n") == 1
    assert ran.err.strip().isprintable()
    assert await ground.signals() == []


async def test_a_flood_is_told_to_come_again(cli, ground) -> None:
    await ground.insert("c1")
    await ground.owner.execute("UPDATE clips SET pending = 1000")
    ran = await cli("clips", "signal", "c1", "queued")
    assert (ran.code, ran.err) == (1, "1,000 signals for this clip wait to be judged; ask again later\n")


async def test_a_clip_of_a_newer_version_is_left_alone(cli, ground) -> None:
    await ground.insert("c1")
    await ground.owner.execute("ALTER TABLE clips DISABLE TRIGGER USER")
    await ground.owner.execute("UPDATE clips SET pipeline = 'dream', status = 'error'")
    await ground.owner.execute("ALTER TABLE clips ENABLE TRIGGER USER")
    for command in (("retry", "c1"), ("signal", "c1", "error")):
        ran = await cli("clips", *command)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("clip c1: unknown pipeline 'dream'")
    assert (await cli("clips", "show", "c1")).code == 0
    assert (await cli("clips", "ls")).code == 0
