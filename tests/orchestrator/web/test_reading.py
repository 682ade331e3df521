"""Reading clips: pages of the list, one clip with its version, the status that never is a 404, the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from yarl import URL

from orchestrator.identifiers import mint_clip_id
from orchestrator.web.reading import Place, read_cursor, write_cursor
from statusutils import STREAM

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


async def test_pages_follow_each_other_newest_first_without_loss_or_repetition(client, place):
    for number in range(7):
        await place.clip(f"clip{number}")
    seen, cursor, pages = [], None, 0
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        answer = await (await client.get("/api/clips", params=query)).json()
        seen += [clip["id"] for clip in answer["clips"]]
        pages += 1
        cursor = answer["next_cursor"]
        if cursor is None:
            break
        await place.clip(f"clip{number}-newer-{pages}")  # what arrives meanwhile shifts nothing
    assert seen == [f"clip{number}" for number in reversed(range(7))]
    assert pages == 3


async def test_a_page_that_fits_exactly_is_the_last(client, place):
    for number in range(2):
        await place.clip(f"clip{number}")
    answer = await (await client.get("/api/clips?limit=2")).json()
    assert (len(answer["clips"]), answer["next_cursor"]) == (2, None)


async def test_the_list_is_filtered_by_status_pipeline_and_search(client, place):
    await place.clip("one", uid="u" * 32, title="Harbour at 100% dusk_")
    await place.clip("two", title="Nothing")
    await place.move("two", "processing")

    async def ids(**query: str) -> list[str]:
        return [clip["id"] for clip in (await (await client.get("/api/clips", params=query)).json())["clips"]]

    assert await ids(status="processing") == ["two"]
    assert await ids(status="processing,uploading") == ["two", "one"]
    assert await ids(status="complete") == []
    assert await ids(pipeline="stream") == ["two", "one"]
    assert await ids(search="harBOUR") == ["one"]
    assert await ids(search="100%") == ["one"]
    assert await ids(search="dusk_") == ["one"]
    assert await ids(search="h%r") == []
    assert await ids(search="tw") == ["two"]
    assert await ids(search="u" * 32) == ["one"]
    assert await ids(search="' OR true --") == []
    assert await ids(search="", status="") == ["two", "one"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=" + "9" * 400, "limit"), ("limit=%C2%B2", "limit"),
        ("status=done", "status"), ("status=uploading,nonsense", "status"), ("status=%00", "status"),
        ("pipeline=nope", "pipeline"), ("search=" + "x" * 201, "search"), ("search=a%00b", "search"),
        ("cursor=!!!", "cursor"), ("cursor=" + write_cursor(Place(NOW, "../x")), "cursor"), ("cursor=%FF", "cursor"),
        ("cursor=AA", "cursor"),
    ],
)  # fmt: skip
async def test_a_bad_query_is_refused_by_name(client, query, field):
    answer = await client.get(f"/api/clips?{query}")
    problem = await answer.json()
    assert (answer.status, [error["field"] for error in problem["errors"]]) == (422, [field])


async def test_an_unknown_status_is_told_which_there_are(client):
    problem = await (await client.get("/api/clips?status=done")).json()
    assert all(name in problem["errors"][0]["reason"] for name in STREAM.by_name)


def test_a_cursor_leads_back_to_its_id():
    for clip_id in ("a", "01kqsdr2g0fqtbpe18w49f87", "A_b-" * 16):
        assert read_cursor(write_cursor(Place(NOW, clip_id))) == Place(NOW, clip_id)


async def test_a_clip_carries_its_columns_and_what_follows_from_them(client, place):
    await place.clip("one", uid="u1", title="Name", note="kept")
    await place.move("one", "stream_ready", hls_url="https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8")
    clip = await (await client.get("/api/clips/one")).json()
    promised = (
        "id pipeline cloudflare_uid title status progress processing_details attempt duration file_size thumbnail_url"
        " hls_url dash_url mp4_url r2_url error_message uploaded_at completed_at created_at updated_at"
    )
    assert set(promised.split()) <= set(clip)
    assert (clip["state"], clip["terminal"], clip["message"]) == ("running", False, STREAM["stream_ready"].message)
    assert (clip["progress"], clip["processing_details"]["note"]) == (60.0, "kept")
    assert clip["created_at"].endswith("Z")
    assert "source_url" not in clip


async def test_a_clip_that_has_not_changed_is_not_sent_again(client, place):
    await place.clip("one")
    first = await client.get("/api/clips/one")
    tag = first.headers["ETag"]
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get("/api/clips/one", headers={"If-None-Match": header})
        assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
    await place.move("one", "queued")
    changed = await client.get("/api/clips/one", headers={"If-None-Match": tag})
    assert changed.status == 200
    assert changed.headers["ETag"] != tag


async def test_an_unknown_clip_is_a_404_problem(client):
    for clip_id in ("nope", "..%2F..%2Fetc%2Fpasswd", "%00", "a" * 65, "%F0%9F%8E%AC"):
        answer = await client.get(f"/api/clips/{clip_id}")
        assert (answer.status, (await answer.json())["code"]) == (404, "unknown-clip")


@pytest.mark.parametrize(
    ("stage", "state", "terminal"),
    [
        *((name, "running", False) for name in list(STREAM.by_name)[1:-2]),
        ("complete", "done", True),
        ("error", "failed", True),
    ],
)
async def test_the_status_says_the_same_in_one_word_for_programs(client, place, stage, state, terminal):
    await place.clip("one")
    extra = {"error_message": "The file is corrupt"} if stage == "error" else {}
    await place.move("one", stage, **extra)
    status = await (await client.get("/api/clips/one/status")).json()
    assert list(status) == [
        "id", "known", "status", "state", "progress", "message", "terminal", "error", "eta_seconds", "updated_at",
    ]  # fmt: skip
    assert (status["known"], status["status"], status["state"], status["terminal"]) == (True, stage, state, terminal)
    assert status["error"] == ("The file is corrupt" if stage == "error" else None)


@pytest.mark.parametrize(
    "clip_id",
    ["nope", "..%2f..%2fetc%2fpasswd", "a/b/c", "%00", "x%00y", "a" * 3000, "%F0%9F%8E%AC", "%FF%FE",
     "'; DROP TABLE clips;--",
     "",
     "../../etc/passwd", "%2e%2e%2f", "*", "%5C..%5C", "status", "<script>"],
)  # fmt: skip
async def test_the_status_of_whatever_id_is_an_answer(client, place, clip_id):
    url = URL(f"{client.make_url('/')}api/clips/{clip_id.replace(' ', '%20')}/status", encoded=True)
    answer = await client.session.get(url)
    status = await answer.json()
    assert answer.status == 200
    assert (status["known"], status["status"], status["state"], status["terminal"]) == (False, None, "pending", False)
    assert "never issued" in status["message"]


async def test_an_id_just_issued_may_still_appear_and_an_old_one_not(client, place):
    async def message(issued_ago: timedelta) -> str:
        clip_id = mint_clip_id(place.clock() - issued_ago)
        return str((await (await client.get(f"/api/clips/{clip_id}/status")).json())["message"])

    assert "may appear" in await message(timedelta(seconds=2))
    assert "Issued on 2026-05-03" in await message(timedelta(days=1))
    assert "never issued" in await message(-timedelta(hours=1))


async def test_the_history_has_refused_requests_with_their_rule_and_pages(client, place):
    await place.clip("one")
    for stage in ("queued", "processing"):
        await place.move("one", stage)
    await place.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source, details)"
        " VALUES ('one', 'refused', 1, 'processing', 'queued', 50, 'api', '{\"rule\": \"backward\"}')"
    )
    await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    history = await (await client.get("/api/clips/one/events")).json()
    assert [line["kind"] for line in history["events"]] == ["created", "moved", "moved", "refused"]
    assert history["events"][-1]["reason"] == "status never goes back"
    assert history["events"][1]["reason"] == "Cloudflare says so"
    assert [signal["requested_status"] for signal in history["pending"]] == ["queued"]
    first = await (await client.get("/api/clips/one/events?limit=3")).json()
    assert (len(first["events"]), first["next_after"]) == (3, first["events"][-1]["id"])
    rest = await (await client.get(f"/api/clips/one/events?limit=3&after={first['next_after']}")).json()
    assert ([line["kind"] for line in rest["events"]], rest["next_after"]) == (["refused"], None)
    assert history["pruned_before"] is None


async def test_a_history_that_was_pruned_says_so_and_since_when(client, place):
    await place.clip("one")
    await place.move("one", "error", error_message="broken")
    await place.monitor.execute("UPDATE history_pruning SET pruned_before = '2026-02-01T00:00:00Z'")
    whole = await (await client.get("/api/clips/one/events")).json()
    assert (len(whole["events"]), whole["pruned_before"]) == (2, None)
    await place.owner.execute("SET session_replication_role = replica")
    await place.owner.execute("DELETE FROM clip_events WHERE kind = 'created'")
    await place.owner.execute("RESET session_replication_role")
    pruned = await (await client.get("/api/clips/one/events")).json()
    assert [line["to_status"] for line in pruned["events"]] == ["error"]
    assert pruned["pruned_before"] == "2026-02-01T00:00:00.000000Z"
    page = await (await client.get("/clips/one")).text()
    assert "only how each attempt ended is kept" in page
    assert 'datetime="2026-02-01T00:00' in page
    await place.monitor.execute("UPDATE history_pruning SET pruned_before = '-infinity'")


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=" + "9" * 20, "limit=0", "limit=1e3"])
async def test_a_bad_place_in_the_history_is_refused(client, place, query):
    await place.clip("one")
    assert (await client.get(f"/api/clips/one/events?{query}")).status == 422


async def test_a_database_that_is_away_is_a_problem_and_no_empty_list(client, place):
    await place.clip("one")
    await place.services.pool.close()
    for path in ("/api/clips", "/api/clips/one", "/api/clips/one/status", "/api/clips/one/events"):
        answer = await client.get(path)
        assert (answer.status, (await answer.json())["code"]) == (503, "database-away")
        assert int(answer.headers["Retry-After"]) > 0
