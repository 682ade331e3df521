"""Idempotency-Key: made once, answered twice; never between two callers, never for two calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.drivers.errors import TransientError

KEY = {"Idempotency-Key": "a-key-of-the-caller"}
UPLOAD = {"source": "upload", "size_bytes": 5, "title": "Once"}


async def test_the_same_key_and_body_get_the_same_answer_and_make_one_thing(client, place):
    first = await client.post("/api/clips", json=UPLOAD, headers=KEY)
    again = await client.post("/api/clips", json=dict(reversed(UPLOAD.items())), headers=KEY)
    assert (first.status, again.status) == (201, 201)
    assert await again.json() == await first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(place.stream.asked) == 1
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_without_a_key_every_call_makes_its_own(client, place):
    for _ in range(2):
        assert (await client.post("/api/clips", json=UPLOAD)).status == 201
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/clips/one/signals", {"requested_status": "queued"}),
        ("/api/cloudflare/upload-to-r2", {"videoUid": "u1"}),
        ("/api/cloudflare/delete-video", {"videoUid": "u1"}),
    ],
)
async def test_a_signal_with_a_key_is_recorded_once(client, place, path, body):
    await place.clip("one", uid="u1")
    answers = [await client.post(path, json=body, headers=KEY) for _ in range(3)]
    assert len({(answer.status, await answer.text()) for answer in answers}) == 1
    assert len(await place.signals("one")) == 1


async def test_a_retry_with_a_key_is_asked_once(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    for _ in range(2):
        assert (await client.post("/api/clips/one/retry", headers=KEY)).status == 202
    assert len(await place.signals("one")) == 1


async def test_another_body_or_address_under_the_same_key_is_a_422(client, place):
    await place.clip("one")
    await client.post("/api/clips", json=UPLOAD, headers=KEY)
    for path, body in (
        ("/api/clips", UPLOAD | {"title": "Twice"}),
        ("/api/clips/one/signals", UPLOAD),
        ("/api/cloudflare/delete-video", UPLOAD),
    ):
        answer = await client.post(path, json=body, headers=KEY)
        assert (answer.status, (await answer.json())["code"]) == (422, "reused-key")
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 2


async def test_many_at_once_make_one_thing(client, place):
    async def call() -> Any:
        answer = await client.post("/api/clips", json=UPLOAD, headers=KEY)
        return answer.status, (await answer.json()).get("id")

    answers = await asyncio.gather(*(call() for _ in range(20)))
    assert {status for status, _ in answers} == {201}
    assert len({clip_id for _, clip_id in answers}) == 1
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_a_call_that_made_nothing_gives_its_key_back(client, place):
    place.stream.fails = TransientError("call_budget", "no calls left")
    assert (await client.post("/api/clips", json=UPLOAD, headers=KEY)).status == 503
    place.stream.fails = None
    assert (await client.post("/api/clips", json=UPLOAD | {"title": "Now"}, headers=KEY)).status == 201


async def test_a_call_under_way_is_waited_for_and_then_told(client, place, monkeypatch):
    monkeypatch.setattr("orchestrator.web.idempotency._WAIT_SECONDS", 0.1)
    await client.post("/api/clips", json=UPLOAD, headers=KEY)
    await place.owner.execute("UPDATE idempotency_keys SET status = NULL, answer = NULL")
    answer = await client.post("/api/clips", json=UPLOAD, headers=KEY)
    assert (answer.status, (await answer.json())["code"]) == (409, "same-key-under-way")
    assert answer.headers["Retry-After"] == "1"


async def test_a_key_whose_process_died_is_free_after_a_minute(client, place):
    await client.post("/api/clips", json=UPLOAD, headers=KEY)
    await place.owner.execute(
        "UPDATE idempotency_keys SET status = NULL, answer = NULL, claimed_at = claimed_at - interval '61 s'"
    )
    assert (await client.post("/api/clips", json=UPLOAD, headers=KEY)).status == 201
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 2


async def test_a_slow_call_whose_key_was_taken_over_makes_nothing(client, place, monkeypatch):
    reached, go_on = asyncio.Event(), asyncio.Event()
    reserve = place.stream.create_direct_upload

    async def slow(*arguments: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await reserve(*arguments)

    monkeypatch.setattr(place.stream, "create_direct_upload", slow)
    first = asyncio.create_task(client.post("/api/clips", json=UPLOAD, headers=KEY))
    await reached.wait()
    monkeypatch.setattr(place.stream, "create_direct_upload", reserve)
    await place.owner.execute("UPDATE idempotency_keys SET claimed_at = claimed_at - interval '61 s'")
    second = await client.post("/api/clips", json=UPLOAD, headers=KEY)
    go_on.set()
    assert ((await first).status, second.status) == (409, 201)
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 1


async def test_keys_are_forgotten_after_a_day(client, place):
    first = await (await client.post("/api/clips", json=UPLOAD, headers=KEY)).json()
    await place.owner.execute("UPDATE idempotency_keys SET claimed_at = claimed_at - interval '25 h'")
    await client.post("/api/clips", json=UPLOAD, headers={"Idempotency-Key": "another"})
    assert await place.owner.fetchval("SELECT count(*) FROM idempotency_keys") == 1
    again = await (await client.post("/api/clips", json=UPLOAD, headers=KEY)).json()
    assert again["id"] != first["id"]


async def test_two_callers_may_use_the_same_key(place):
    client = await place.start(api_tokens="first-token-of-sixteen,second-token-of-sixteen")
    made = set()
    for token in ("first-token-of-sixteen", "second-token-of-sixteen"):
        answer = await client.post("/api/clips", json=UPLOAD, headers=KEY | {"Authorization": f"Bearer {token}"})
        assert answer.status == 201
        made.add((await answer.json())["id"])
    assert len(made) == 2


async def test_neither_key_nor_upload_address_lies_in_the_database(client, place):
    made = await (await client.post("/api/clips", json=UPLOAD, headers=KEY)).json()
    row = await place.owner.fetchrow("SELECT * FROM idempotency_keys")
    everything = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in row.values())
    assert KEY["Idempotency-Key"].encode() not in everything
    assert made["upload_url"].encode() not in everything


@pytest.mark.parametrize("key", ["", "x" * 256, "\xe4"])
async def test_a_key_that_cannot_be_one_is_refused(client, key):
    answer = await client.post("/api/clips", json=UPLOAD, headers={"Idempotency-Key": key})
    assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_bad_calls_with_a_key_are_refused_as_ever(client):
    for body, status in ((b"{", 400), (b"{}", 422)):
        headers = KEY | {"Content-Type": "application/json"}
        assert (await client.post("/api/clips", data=body, headers=headers)).status == status
