"""The figures: what they say, that one look serves everybody, and that an old picture is told as an old one."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.web.board import BOARD
from orchestrator.web.expecting import EXPECTATIONS


async def board_of(client):
    client.app[BOARD]._tried_at = float("-inf")  # the two seconds are over
    return await (await client.get("/api/board")).json()


def counts_of(board):
    return {(each["pipeline"], each["status"]): each["clips"] for each in board["counts"] if each["clips"]}


async def test_clips_are_counted_by_pipeline_and_status(client, place):
    for number, status in enumerate(["processing", "processing", "error", "complete"]):
        await place.clip(f"c{number}", uid=f"u{number}")
        await place.move(f"c{number}", status, **({"look_at": None} if status in ("error", "complete") else {}))
    await place.owner.execute("UPDATE clips SET completed_at = clock_timestamp() WHERE status = 'complete'")
    board = await board_of(client)
    assert counts_of(board) == {("stream", "processing"): 2, ("stream", "error"): 1, ("stream", "complete"): 1}
    assert not any(each["at_least"] for each in board["counts"])
    assert {each["view"]: each["clips"] for each in board["views"]} == {"stuck": 0, "attention": 1}
    assert sum(bar["clips"] for bar in board["completed"]["minutes"]) == 1
    assert sum(bar["clips"] for bar in board["completed"]["hours"]) == 1
    assert (len(board["completed"]["minutes"]), len(board["completed"]["hours"])) == (60, 24)


async def test_counting_ends_somewhere_and_says_so(client, place, monkeypatch):
    await place.owner.execute("SET session_replication_role = replica")
    await place.owner.execute(
        "INSERT INTO clips (id, status, progress, completed_at)"
        " SELECT 'c' || n, 'complete', 100, now() FROM generate_series(1, 10050) AS n"
    )
    board = await board_of(client)
    [complete] = [each for each in board["counts"] if (each["pipeline"], each["status"]) == ("stream", "complete")]
    assert (complete["clips"], complete["at_least"]) == (10_000, True)
    assert '<b class="number">10,000+</b>' in await (await client.get("/")).text()


async def test_who_leads_and_what_waits_is_told(client, place):
    board = await board_of(client)
    assert (board["engine"]["leader"], board["engine"]["round_age_seconds"]) == (None, None)
    assert "none leads: nothing moves" in await (await client.get("/")).text()
    await place.owner.execute(
        "UPDATE monitor_lease SET holder = 'host:7', epoch = 3, expires_at = clock_timestamp() + interval '9 s',"
        " taken_at = now(), round_at = clock_timestamp() - interval '2 s'"
    )
    await place.clip("one")
    await place.owner.execute("UPDATE clips SET look_at = now() - interval '40 s'")
    await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    engine = (await board_of(client))["engine"]
    assert (engine["leader"], engine["epoch"], engine["signals_waiting"], engine["looks_due"]) == ("host:7", 3, 1, 1)
    assert 2 <= engine["round_age_seconds"] < 60
    assert engine["latest_look_seconds"] >= 40


async def test_who_takes_heavy_steps_is_told_where_there_is_somebody(client, place):
    engine = (await board_of(client))["engine"]
    assert (engine["workers"], engine["steps_queued"], engine["steps_running"]) == (0, 0, 0)
    assert "Workers" not in await (await client.get("/")).text()
    await place.owner.execute(
        "INSERT INTO workers (id, name, kinds, places, seen_at) VALUES"
        " (gen_random_uuid(), 'h:1', '{transfer-to-bucket}', 2, clock_timestamp()),"
        " (gen_random_uuid(), 'h:2', '{transfer-to-bucket}', 2, clock_timestamp() - interval '1 minute')"
    )
    await place.owner.execute(
        "INSERT INTO clip_pgqueuer (priority, entrypoint, dedupe_key, status) VALUES"
        " (0, 'transfer-to-bucket', 'a/1/t', 'picked'), (0, 'transfer-to-bucket', 'b/1/t', 'queued'),"
        " (0, 'transfer-to-bucket', 'c/1/t', 'queued')"
    )
    engine = (await board_of(client))["engine"]
    assert (engine["workers"], engine["steps_queued"], engine["steps_running"]) == (1, 2, 1)
    assert "1, at 1 transfers; 2 wait for a place" in await (await client.get("/")).text()
    assert 'orchestrator_heavy_steps{state="queued"} 2.0' in await (await client.get("/metrics")).text()


@pytest.mark.parametrize(
    ("row", "left", "blocked"),
    [
        ("50, clock_timestamp(), '-infinity', 0, '-infinity'", 50, False),
        ("50, clock_timestamp() - interval '10 s', '-infinity', 0, '-infinity'", 80, False),
        ("50, clock_timestamp() - interval '1 day', '-infinity', 0, '-infinity'", 120, False),
        ("0, clock_timestamp(), clock_timestamp() + interval '5 min', 0, '-infinity'", 0, True),
        ("50, clock_timestamp(), '-infinity', 7, clock_timestamp() + interval '1 min'", 50, False),
    ],
    ids=["spent", "refilled", "full", "blocked", "provider-says"],
)
async def test_the_call_budget_is_what_the_drivers_would_find(client, place, row, left, blocked):
    await place.owner.execute("DELETE FROM call_budget")
    assert (await board_of(client))["engine"]["budget"] is None
    await place.owner.execute("INSERT INTO call_budget (account, tokens) VALUES ('another', 1)")
    await place.owner.execute(f"INSERT INTO call_budget VALUES ('account', {row})")
    budget = (await board_of(client))["engine"]["budget"]
    await place.owner.execute("DELETE FROM call_budget")
    assert budget["calls_left"] == pytest.approx(left, abs=3)
    assert (budget["blocked_seconds"] > 0) == blocked
    assert budget["provider_left"] == (7 if "7, clock" in row else None)
    assert budget["calls_at_once"] == 120


async def test_reasons_of_failures_are_summed_up_without_those_that_were_wished(client, place):
    for number, details in enumerate(
        [
            {"error_code": "no_space"},
            {"error_code": "no_space"},
            {},
            {"error_code": "deleted", "delete_requested": True},
        ]
    ):
        await place.clip(f"c{number}", **details)
        await place.move(f"c{number}", "error")
    assert (await board_of(client))["reasons"] == [
        {"error_code": "no_space", "clips": 2},
        {"error_code": "", "clips": 1},
    ]
    page = await (await client.get("/")).text()
    assert 'href="/?status=error&amp;error_code=no_space"' in page


async def test_many_who_ask_at_once_share_one_look(client, place):
    looks = []
    read = client.app[BOARD]._read

    async def counting(*arguments):
        looks.append(1)
        await read(*arguments)

    client.app[BOARD]._read = counting
    answers = await asyncio.gather(*(client.get("/api/board") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(looks) == 1


@pytest.mark.parametrize(("took_seconds", "looks"), [(0.01, 2), (0.5, 1)])
async def test_a_look_that_takes_long_is_taken_more_seldom(client, place, took_seconds, looks):
    board, taken = client.app[BOARD], []

    async def slow(*arguments):
        taken.append(1)

    board._read = slow
    await board.picture(place.services, client.app[EXPECTATIONS])
    board._took_seconds = took_seconds
    board._tried_at -= 3
    await board.picture(place.services, client.app[EXPECTATIONS])
    assert len(taken) == looks


async def test_an_old_picture_is_told_as_one_and_none_is_no_empty_one(client, place):
    await place.clip("one")
    assert counts_of(await board_of(client)) == {("stream", "uploading"): 1}
    await place.services.pool.close()
    board = await board_of(client)
    assert counts_of(board) == {("stream", "uploading"): 1}
    assert (board["stale"], board["problem"]) == (True, "The database did not answer")
    client.app[BOARD]._read_at -= 90
    answer = await client.get("/", headers={"Accept": "text/html"})
    page = await answer.text()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "These figures are 90 s old" in page
    assert "The clips could not be read" in page
    assert "Try again" in page
    assert "No clips yet" not in page


async def test_without_any_picture_the_call_is_refused(client, place):
    await place.services.pool.close()
    answer = await client.get("/api/board")
    assert (answer.status, (await answer.json())["code"]) == (503, "database-away")
    page = await (await client.get("/")).text()
    assert "there are no figures to show" in page
    assert '<b class="number">' not in page


async def test_usual_times_are_told_once_enough_is_known(client, place, stages):
    for number in range(6):
        await place.clip(f"c{number}", uid=f"u{number}")
        for stage in stages[1:]:
            await place.move(f"c{number}", stage)
    board = await board_of(client)
    assert [each["status"] for each in board["stages"]] == list(stages[:-1])
    assert client.app[EXPECTATIONS].usual
    assert "Usual time at each status" in await (await client.get("/")).text()
