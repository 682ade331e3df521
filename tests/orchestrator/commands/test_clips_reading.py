"""`clips ls`, `show`, `explain`: what is in the database, in words and as JSON."""

from __future__ import annotations

import json

import pytest

from orchestrator.commands.clips import VIEW_NAMES
from orchestrator.noticing import VIEWS
from orchestrator.storage.pool import connect
from signals import signal_status_update


async def test_clips_are_listed_newest_first(cli, ground) -> None:
    for clip_id in ("c1", "c2", "c3"):
        await ground.insert(clip_id, f"title {clip_id}")
    await ground.move("c2", "queued", 30)
    ran = await cli("clips", "ls")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[0].split() == ["ID", "STATUS", "%", "FOR", "TITLE"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["c3", "uploading", "15"],
        ["c2", "queued", "30"],
        ["c1", "uploading", "15"],
    ]
    assert lines[1].endswith("s  title c3")


async def test_a_list_is_narrowed(cli, ground) -> None:
    await ground.insert("c1", "Holiday in Rome")
    await ground.insert("c2", "100%_sure")
    await ground.insert("c3")
    await ground.move("c1", "queued", 30)
    await ground.move("c3", "error", 15, error_message="no bytes")

    async def ids(*arguments: str) -> list[str]:
        ran = await cli("clips", "ls", "--json", *arguments)
        assert ran.code == 0
        return [clip["id"] for clip in ran.document["clips"]]

    assert await ids("--status", "queued,error") == ["c3", "c1"]
    assert await ids("--status", "queued", "--status", "uploading") == ["c2", "c1"]
    assert await ids("--search", "rome") == ["c1"]
    assert await ids("--search", "%_") == ["c2"]
    assert await ids("--pipeline", "stream", "--limit", "2") == ["c3", "c2"]
    await ground.owner.execute("UPDATE clips SET processing_details = '{\"error_code\": \"no_bytes\"}' WHERE id = 'c3'")
    await ground.owner.execute("UPDATE clips SET look_at = now() - interval '2 min' WHERE id = 'c2'")
    assert await ids("--error-code", "no_bytes") == ["c3"]
    assert await ids("--error-code", "other") == []
    assert await ids("--view", "attention") == ["c3"]
    assert await ids("--view", "stuck") == ["c2"]
    assert "(no bytes)" in (await cli("clips", "ls")).out


def test_the_views_are_those_of_the_board() -> None:
    assert tuple(VIEWS) == VIEW_NAMES


async def test_a_list_longer_than_a_page_is_whole(cli, ground) -> None:
    await ground.owner.execute(
        "INSERT INTO clips (id) SELECT 'c' || lpad(n::text, 4, '0') FROM generate_series(1, 450) n"
    )
    ran = await cli("clips", "ls", "--limit", "449", "--json")
    ids = [clip["id"] for clip in ran.document["clips"]]
    assert (len(ids), ids[0], ids[-1], ran.document["more"]) == (449, "c0450", "c0002", True)
    ran = await cli("clips", "ls", "--limit", "450", "--json")
    assert (len(ran.document["clips"]), ran.document["more"]) == (450, False)
    ran = await cli("clips", "ls", "--limit", "2")
    assert ran.err == "there are more than these 2; narrow the search or raise --limit\n"


async def test_json_has_the_columns_and_what_follows_from_them(cli, ground) -> None:
    await ground.insert("c1", "x")
    document = (await cli("clips", "ls", "--json")).document["clips"][0]
    assert {"id", "status", "progress", "processing_details", "attempt", "state", "message", "terminal"} <= set(
        document
    )
    assert "source_url" not in document


TITLE = "\x1b]0;pwned\x07Evil\x1b[2J\u202egpj\r\nrow"


@pytest.mark.parametrize("command", [("ls",), ("show", "c1"), ("explain", "c1"), ("watch", "c1")])
async def test_strangers_texts_steer_no_terminal(cli, ground, command: tuple[str, ...]) -> None:
    await ground.insert("c1", TITLE, **{TITLE: TITLE})
    await ground.record("c1", "refused", TITLE, TITLE, None, reason=TITLE)
    await ground.move("c1", "error", 15, error_message=TITLE)
    for arguments in (command, (*command, "--json")):
        ran = await cli("clips", *arguments)
        assert ran.code in (0, 1)
        assert ran.out
        assert all(line.isprintable() for line in ran.all.splitlines())
        assert "\r" not in ran.all
    assert command[0] != "ls" or ran.document["clips"][0]["title"] == TITLE


async def test_a_clip_is_shown_with_its_history_and_what_waits(cli, ground, database: str) -> None:
    await ground.insert("c1", "My clip", colour="blue")
    await ground.move("c1", "queued", 30, duration=5.5, file_size=1234567)
    await ground.record("c1", "refused", "queued", "uploading", None, reason="Refused: status never goes back")
    await ground.lead()
    api = await connect(database, "orchestrator_api", "test")
    await signal_status_update(api, "c1", "stream_ready", source="webhook")
    await api.close()
    ran = await cli("clips", "show", "c1")
    assert ran.code == 0
    assert ran.out.startswith("c1  queued  30 %  Queued at Cloudflare\nCloudflare has its bytes and has not begun")
    words = " ".join(ran.out.split())
    for told in (
        "title My clip",
        "video uidc1",
        "duration 5.5 s",
        "file size 1,234,567 bytes",
        "colour: blue",
        "created uploading api",
        "moved uploading > queued monitor it was seen so",
        "refused queued > uploading monitor Refused: status never goes back",
        "Waiting to be judged AT (UTC) TRY ASKS FOR BY",
        "1 stream_ready webhook",
    ):
        assert told in words
    document = (await cli("clips", "show", "c1", "--json")).document
    assert [event["kind"] for event in document["events"]] == ["created", "moved", "refused"]
    assert document["pending_signals"][0]["requested_status"] == "stream_ready"
    assert document["explanation"].startswith("Cloudflare has its bytes")
    assert document["more_events"] is False


async def test_a_long_history_says_that_it_goes_on(cli, ground) -> None:
    await ground.insert("c1")
    await ground.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, source)"
        " SELECT 'c1', 'refused', 1, 'api' FROM generate_series(1, 2000)"
    )
    document = (await cli("clips", "show", "c1", "--json")).document
    assert (len(document["events"]), document["more_events"]) == (2000, True)
    assert (await cli("clips", "show", "c1")).err == "the history goes on after these 2000 lines\n"


async def test_explain_is_one_sentence(cli, ground) -> None:
    await ground.insert("c1")
    ran = await cli("clips", "explain", "c1")
    assert (ran.code, ran.out.count("\n")) == (0, 1)
    assert ran.out.startswith("Cloudflare waits for its bytes (at uploading since ")
    assert ran.out.endswith("; no monitor leads, so nothing happens until one runs (`orchestrator monitor`).\n")
    await ground.lead()
    document = (await cli("clips", "explain", "c1", "--json")).document
    assert (document["id"], document["status"], document["monitor_leads"]) == ("c1", "uploading", True)
    assert "the monitor looks now" in document["explanation"]
    assert (document["waiting_on"], document["retry_at"]) == ("uploader", None)
    assert document["next_look_at"] < document["gives_up_at"]


@pytest.mark.parametrize("command", ["show", "explain", "watch", "retry"])
async def test_an_unknown_clip_is_named(cli, command: str) -> None:
    ran = await cli("clips", command, "nobody")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "there is no clip nobody; `orchestrator clips ls` shows those there are\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("ls", "--status", "readyish"),
            "argument --status: there is no status 'readyish'; there are uploading, queued",
        ),
        (("ls", "--limit", "0"), "argument --limit: '0' is not a whole number from 1 to 10000"),
        (("ls", "--limit", "9" * 5000), "is not a whole number from 1 to 10000"),
        (("ls", "--pipeline", "dream"), "argument --pipeline: invalid choice: 'dream'"),
        (("ls", "--search", "x" * 201), "argument --search: it has 201 characters"),
        (("ls", "--search", "\udcff"), "argument --search: it is not UTF-8"),
        (("ls", "--stat", "queued"), "unrecognized arguments: --stat queued"),
        (("show", "../x"), "'../x' cannot be an id"),
        (("show", "\x1b[2J"), "cannot be an id"),
        (("show",), "the following arguments are required: ID"),
        (("watch", "c1", "--timeout", "nan"), "'nan' is not a number of seconds"),
        (("watch", "c1", "--timeout", "-1"), "is not a number of seconds above 0"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
async def test_wrong_usage_is_one_line_with_a_remedy(cli, arguments: tuple[str, ...], complaint: str) -> None:
    ran = await cli("clips", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert complaint in ran.err
    assert "--help`" in ran.err
    assert ran.err.strip().isprintable()


async def test_help_is_readable(cli) -> None:
    ran = await cli("clips", "--help")
    assert ran.code == 0
    for name in ("ls", "show", "watch", "explain", "retry", "signal"):
        assert f"\n    {name} " in ran.out
    ran = await cli("clips", "ls", "--help")
    assert "--database-url VALUE" in ran.out
    assert "[env DATABASE_URL]" in ran.out


async def test_a_flag_goes_before_the_environment(cli, ground, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await ground.insert("c1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    ran = await cli("clips", "ls", "--json", "--database-url", database)
    assert [clip["id"] for clip in json.loads(ran.out)["clips"]] == ["c1"]
