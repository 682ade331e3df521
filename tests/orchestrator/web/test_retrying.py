"""Retrying all failed clips of a filter: counted before, asked for once, never more than was confirmed."""

from __future__ import annotations

import base64
import re

import pytest

from orchestrator.web import retrying


async def failed(place, name: str, *, uid: bool = True, pending: int = 0, **details):
    """A clip that failed, with or without a video left to start from."""
    await place.clip(name, uid=f"uid-{name}" if uid else None, **details)
    await place.move(name, "processing")
    await place.move(name, "error")
    if pending:
        await place.owner.execute("UPDATE clips SET pending = $2 WHERE id = $1", name, pending)


async def preview(client, **query):
    answer = await client.get("/api/board/retry", params=query)
    assert answer.status == 200
    return await answer.json()


async def ask(client, count, **more):
    body = {"expected": count["clips"], "failed_before": count["failed_before"], **more}
    return await client.post("/api/clips/retry", json=body)


async def asked_for(place):
    return {row["clip_id"] for row in await place.owner.fetch("SELECT clip_id FROM clip_signals WHERE attempt = 2")}


async def test_a_count_tells_what_would_be_asked_and_why_not_the_rest_and_asks_nothing(client, place):
    for number in range(3):
        await failed(place, f"good{number}")
    await failed(place, "automatic", retry_at="2999-01-01T00:00:00+00:00")
    await failed(place, "gone", uid=False)
    await failed(place, "deleted", delete_requested=True)
    await failed(place, "asked", pending=1)
    await place.clip("running")
    before = await place.fingerprint()
    count = await preview(client)
    assert (count["clips"], count["automatic"], count["whole"]) == (4, 1, True)
    assert count["not_retried"] == {"nothing-left": 2, "asked-already": 1}
    assert await place.fingerprint() == before


async def test_all_that_were_counted_are_asked_for_from_their_last_safe_place(client, place):
    for number in range(3):
        await failed(place, f"good{number}")
    await failed(place, "gone", uid=False)
    count = await preview(client)
    answer = await ask(client, count)
    result = await answer.json()
    assert (answer.status, result["asked"], result["remaining"]) == (202, 3, 0)
    signals = [signal for number in range(3) for signal in await place.signals(f"good{number}")]
    assert [(s["requested_status"], s["attempt"], s["source"]) for s in signals] == [("uploading", 2, "api")] * 3
    assert await place.signals("gone") == []
    again = await (await ask(client, {**count, "clips": 0})).json()
    assert (again["asked"], again["not_retried"]["asked-already"]) == (0, 3)


async def test_only_what_fits_the_filter_is_asked_for(client, place):
    await failed(place, "one", error_code="no_space")
    await failed(place, "two", error_code="other")
    await place.owner.execute("UPDATE clips SET title = 'Harbour' WHERE id = 'two'")
    assert (await preview(client, error_code="no_space"))["clips"] == 1
    assert (await preview(client, search="harb"))["clips"] == 1
    assert (await preview(client, pipeline="cut"))["clips"] == 0
    assert (await preview(client, view="attention"))["clips"] == 2
    assert (await preview(client, view="stuck"))["clips"] == 0
    await ask(client, await preview(client, error_code="no_space"), error_code="no_space")
    assert await asked_for(place) == {"one"}


async def test_a_clip_that_failed_after_the_count_is_left_alone(client, place):
    await failed(place, "one")
    count = await preview(client)
    await place.owner.execute("UPDATE clips SET status_since = clock_timestamp() + interval '1 s' WHERE id = 'one'")
    result = await (await ask(client, count)).json()
    assert (result["asked"], result["not_retried"]) == (0, {"failed-since": 1})


async def test_another_number_than_the_one_confirmed_is_refused_and_asks_for_nothing(client, place):
    for number in range(8):
        await failed(place, f"c{number}")
    count = await preview(client)
    answer = await ask(client, {**count, "clips": 14})
    assert (answer.status, (await answer.json())["code"]) == (409, "count-changed")
    assert await asked_for(place) == set()
    assert (await ask(client, {**count, "clips": 9})).status == 202


async def test_no_more_are_asked_for_than_were_confirmed(client, place):
    """Older ones come into the window of a count as the newest are judged: they are counted, and confirmed, anew."""
    for number in range(8):
        await failed(place, f"c{number}")
    count = await preview(client)
    result = await (await ask(client, {**count, "clips": 2})).json()
    assert (result["asked"], result["remaining"]) == (2, 0)
    assert len(await asked_for(place)) == 2


async def test_clips_with_a_full_document_block_no_other_and_the_end_is_told(client, place, monkeypatch):
    monkeypatch.setattr(retrying, "BATCH", 3)
    for number in range(9):
        await failed(place, f"c{number}")
    text = "jsonb_build_object('text', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1800) AS n))"
    await place.owner.execute("SET session_replication_role = replica")
    await place.owner.execute(f"UPDATE clips SET processing_details = {text} WHERE id IN ('c8', 'c7')")
    await place.owner.execute("SET session_replication_role = origin")
    count = await preview(client)
    expected, calls = count["clips"], 0
    while expected:
        result = await (await ask(client, {**count, "clips": expected})).json()
        expected, calls = result["remaining"], calls + 1
        assert calls < 9, "it goes round in a circle"
    assert await asked_for(place) == {f"c{number}" for number in range(7)}


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_moment_at_an_end_of_the_calendar_is_refused_by_name(client, moment):
    answer = await client.post("/api/clips/retry", json={"expected": 0, "failed_before": moment})
    assert answer.status == 422
    cursor = base64.urlsafe_b64encode(f"{moment} c1".encode()).decode().rstrip("=")
    assert (await client.get("/api/clips", params={"cursor": cursor})).status == 422


async def test_a_call_whose_answer_was_lost_may_be_sent_again(client, place):
    for number in range(20):
        await failed(place, f"c{number}")
    count = await preview(client)
    assert (await (await ask(client, count)).json())["asked"] == 20
    again = await ask(client, count)
    assert (again.status, (await again.json())["asked"]) == (202, 0)
    assert len(await asked_for(place)) == 20


async def test_many_go_in_batches_until_none_remains(client, place, monkeypatch):
    monkeypatch.setattr(retrying, "BATCH", 3)
    monkeypatch.setattr(retrying, "_STATEMENT", 2)
    for number in range(8):
        await failed(place, f"c{number}")
    count, asked = await preview(client), []
    while count["clips"]:
        result = await (await ask(client, count)).json()
        asked.append(result["asked"])
        count = {"clips": result["remaining"], "failed_before": result["failed_before"]}
    assert asked == [3, 3, 2]
    assert len(await asked_for(place)) == 8
    assert await place.owner.fetchval("SELECT count(*) FROM clip_signals") == 8


async def test_a_document_that_is_full_keeps_its_own_clip_back_and_no_other(client, place):
    for number in range(5):
        await failed(place, f"c{number}")
    await place.owner.execute("SET session_replication_role = replica")
    full = "jsonb_build_object('text', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1800) AS n))"
    await place.owner.execute(f"UPDATE clips SET processing_details = {full} WHERE id = 'c2'")
    result = await (await ask(client, await preview(client))).json()
    assert (result["asked"], result["refused"], result["remaining"]) == (4, 1, 0)
    assert await asked_for(place) == {"c0", "c1", "c3", "c4"}


async def test_a_row_that_somebody_holds_is_left_for_the_next_call(client, place):
    for number in range(3):
        await failed(place, f"c{number}")
    count = await preview(client)
    async with place.owner.transaction():
        await place.owner.execute("SELECT 1 FROM clips WHERE id = 'c1' FOR UPDATE")
        result = await (await ask(client, count)).json()
    assert (result["asked"], result["remaining"]) == (2, 1)
    result = await (await ask(client, {**count, "clips": 1})).json()
    assert (result["asked"], result["remaining"]) == (1, 0)


async def test_the_same_call_with_a_key_is_made_once(client, place):
    await failed(place, "one")
    count = await preview(client)
    body = {"expected": 1, "failed_before": count["failed_before"]}
    answers = [await client.post("/api/clips/retry", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    first, second = [await answer.json() for answer in answers]
    assert (first["asked"], first) == (1, second)
    assert len(await place.signals("one")) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"expected": 1}, {"expected": -1, "failed_before": "2026-05-04T12:00:00Z"},
     {"expected": 1, "failed_before": "yesterday"}, {"expected": 1, "failed_before": "2026-05-04T12:00:00"},
     {"expected": 1, "failed_before": "2026-05-04T12:00:00Z", "view": "nope"},
     {"expected": 1, "failed_before": "2026-05-04T12:00:00Z", "status": "complete"}],
)  # fmt: skip
async def test_what_is_not_understood_is_refused(client, place, body):
    await failed(place, "one")
    assert (await client.post("/api/clips/retry", json=body)).status == 422
    assert await place.signals("one") == []


def fields_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))


async def test_the_page_asks_for_a_confirmation_with_the_number_and_shows_what_came_of_it(client, place):
    for number in range(3):
        await failed(place, f"c{number}")
    await failed(place, "gone", uid=False)
    board = await (await client.get("/?status=error")).text()
    assert 'href="/retry?' in board
    page = await (await client.get("/retry")).text()
    assert "3 clips can be tried again" in page
    assert "1 clip: nothing of them is left to start from" in page
    assert "Try 3 clips again" in page
    assert await asked_for(place) == set()
    done = await (await client.post("/retry", data=fields_of(page))).text()
    assert "Done: a new attempt was asked for 3 clips" in done
    assert await asked_for(place) == {"c0", "c1", "c2"}


async def test_the_page_goes_on_batch_by_batch_and_says_how_far_it_is(client, place, monkeypatch):
    monkeypatch.setattr("orchestrator.web.pages.retry_page.BATCH", 2)
    for number in range(5):
        await failed(place, f"c{number}")
    page, said = await (await client.get("/retry")).text(), []
    while 'name="expected"' in page:
        page = await (await client.post("/retry", data=fields_of(page))).text()
        said += re.findall(r"Asked for (\d+) of (\d+)", page)
    assert said == [("2", "5"), ("4", "5")]
    assert "asked for 5 clips" in page
    assert len(await asked_for(place)) == 5


async def test_another_sites_page_cannot_retry_anything(client, place):
    await failed(place, "one")
    page = await (await client.get("/retry")).text()
    answer = await client.post("/retry", data=fields_of(page), headers={"Origin": "https://evil.example"})
    assert answer.status == 403
    assert await place.signals("one") == []
