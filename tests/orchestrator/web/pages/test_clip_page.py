"""The page of one clip: what it waits for, what comes when, how long it took, what passed with the provider."""

from __future__ import annotations

import gzip
import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.web.assets import read_assets
from orchestrator.web.expecting import EXPECTATIONS, SAMPLES_MIN, Usual

# The page's own script, as it goes over the wire; what others wrote is loaded only when it is needed.
SCRIPT_MAX_BYTES = 15 * 1024
_IMPORT = re.compile(r"""(?:import|from)\s*\(?\s*["'](\./[\w.-]+\.js)["']|new URL\(["'](\./[\w.-]+\.js)["']""")


async def page_of(client: Any, clip_id: str = "one") -> str:
    answer = await client.get(f"/clips/{clip_id}")
    assert answer.status == 200
    return await answer.text()


def region(page: str, name: str) -> str:
    """The inside of one region of the page, as text."""
    inside = page.partition(f'data-region="{name}"')[2].partition("</section>")[0].partition("</aside>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", inside.partition(">")[2]).split())


def loaded_at_start(files: dict[str, Any], name: str, seen: set[str]) -> set[str]:
    """The modules that come with *name*, by whatever way it names them."""
    if name in seen:
        return seen
    seen.add(name)
    for found in _IMPORT.findall(files[name].body.decode()):
        loaded_at_start(files, next(part for part in found if part).removeprefix("./"), seen)
    return seen


def test_the_pages_own_script_is_small() -> None:
    files = read_assets().files
    names: set[str] = set()
    for name in ("clip.js", "theme.js"):
        if name in files:
            loaded_at_start(files, name, names)
    assert {"clip.js", "live.js", "live-worker.js", "toasts.js"} <= names
    assert not names & {"hls.js", "tus.js"}
    sizes = {name: len(gzip.compress(files[name].body)) for name in names}
    print(f"script of the clip page: {sum(sizes.values())} bytes gzipped", sizes)
    assert sum(sizes.values()) <= SCRIPT_MAX_BYTES


async def test_progress_has_two_parts(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    await place.monitor.execute("UPDATE clips SET progress = 54.2")
    page = await page_of(client)
    assert '<progress max="100" value="54.2"' in page
    assert '<rect class="floor" width="50"' in page
    assert '<rect class="live" x="50" width="4.2"' in page
    assert "50 % certain by its status 4.2 % more, seen while it works" in region(page, "status")


@pytest.mark.parametrize(("status", "floor"), [("complete", "100"), ("error", "50")])
async def test_at_its_end_the_bar_stands_where_the_clip_came_to(client, place, status, floor):
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    await place.move("one", status)
    assert f'<rect class="floor" width="{floor}"' in await page_of(client)


async def test_what_comes_when_stands_there_and_is_counted_down(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "processing", look_at=await place.owner.fetchval("SELECT now() + interval '90 s'"))
    page = await page_of(client)
    assert "What would move it a running `orchestrator monitor`" in region(page, "status")
    assert re.search(r"Checks again in (8\d|90) s at \d\d:\d\d:\d\d UTC", region(page, "status"))
    assert re.search(r"Given up if nothing moves in \d+ h", region(page, "status"))
    assert len(re.findall(r'data-until="\d{4}-\d\d-\d\dT[\d:.]+Z"', page)) == 2
    assert 'data-now="' in page


async def test_the_banner_is_there_as_long_as_something_goes_on(client, place):
    await place.clip("one", uid="u1")
    assert "Uploading to Cloudflare 15 %" in region(await page_of(client), "banner")
    await place.move("one", "complete", look_at=None)
    assert region(await page_of(client), "banner") == ""


async def test_an_error_that_is_tried_again_by_itself_says_when_and_is_followed(client, place):
    at = await place.owner.fetchval("SELECT clock_timestamp() + interval '5 min'")
    await place.clip("one", uid="u1", retry_at=at.isoformat())
    await place.move("one", "error", error_message="The provider was away")
    page = await page_of(client)
    assert 'data-terminal="no"' in page
    assert "What failed: The provider was away Try again now" in region(page, "status")
    assert re.search(r"Tries again by itself in (4 min|5 min|29\d s|300 s) at", region(page, "status"))
    assert "tries again in" in region(page, "banner")
    await place.owner.execute("UPDATE clips SET processing_details = processing_details - 'retry_at'")
    await place.move("one", "error")
    await place.owner.execute("UPDATE clips SET look_at = NULL")
    page = await page_of(client)
    assert 'data-terminal="yes"' in page
    assert "Try again" in region(page, "status")


def expect(client: Any, **usual: tuple[float, float]) -> None:
    """What is usual in the stream pipeline, as if enough clips had been completed."""
    expectations = client.app[EXPECTATIONS]
    expectations._read_at = float("inf")
    expectations.usual = {("stream", status): Usual(*each) for status, each in usual.items()}
    expectations.ranges = {("stream", status): each for status, each in usual.items()}


async def test_the_time_it_probably_takes_is_a_range_and_silent_without_samples(client, place):
    await place.clip("one", uid="u1")
    assert "Probably" not in region(await page_of(client), "status")
    expect(client, uploading=(200.0, 600.0))
    assert re.search(r"Probably complete in 3 min to (9|10) min", region(await page_of(client), "status"))
    expect(client, uploading=(0.0, 600.0))
    assert re.search(r"Probably complete within (9|10) min", region(await page_of(client), "status"))
    await place.monitor.execute("UPDATE clips SET status_since = status_since - interval '1 h'")
    assert "Probably" not in region(await page_of(client), "status")


async def test_a_range_is_learned_from_enough_clips(client, place):
    for number in range(SAMPLES_MIN):
        await place.clip(f"old{number}")
        await place.forget_history(f"old{number}")
        for step, status in enumerate(("uploading", "complete")):
            await place.owner.execute(
                "INSERT INTO clip_events (clip_id, kind, attempt, to_status, source, at) VALUES"
                " ($1, 'moved', 1, $2, 'monitor', clock_timestamp() - interval '1 h' + $3 * interval '1 s')",
                f"old{number}", status, step * 100 * (number + 1),
            )  # fmt: skip
    await place.clip("one", uid="u1")
    await page_of(client)
    expectations = client.app[EXPECTATIONS]
    assert expectations.ranges["stream", "uploading"] == pytest.approx((200, 460), abs=1)
    usual = expectations.usual["stream", "uploading"]
    assert (usual.median_seconds, usual.p90_seconds) == pytest.approx((300, 460), abs=1)


async def test_the_waterfall_tells_each_stay_against_the_usual(client, place):
    await place.clip("one", uid="u1")
    for status in ("queued", "processing"):
        await place.move("one", status)
    await place.owner.execute("ALTER TABLE clip_events DISABLE TRIGGER USER")
    await place.owner.execute(
        "UPDATE clip_events SET at = clock_timestamp() - interval '100 s' + (id * 20) * interval '1 s'"
    )
    await place.owner.execute("ALTER TABLE clip_events ENABLE TRIGGER USER")
    page = await page_of(client)
    text = region(page, "waterfall")
    assert "Uploading to Cloudflare 20 s Queued at Cloudflare 20 s Cloudflare is encoding" in text
    assert "so far" in text
    assert "What is usual is told once 5 clips were completed" in text
    assert page.count('<rect class="took') == 3
    expect(client, uploading=(2.0, 4.0), queued=(20.0, 30.0))
    text = region(await page_of(client), "waterfall")
    assert "Uploading to Cloudflare 20 s slower than usual 2.0 s 4.0 s" in text
    assert "Queued at Cloudflare 20 s 20 s 30 s" in text
    assert "Cloudflare is encoding 4" in text


async def test_the_history_is_its_end_when_it_is_long(client, place):
    await place.clip("one")
    await place.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, source)"
        " SELECT 'one', 'refused', 1, 'uploading', 'queued', 'n' || n FROM generate_series(1, 450) n"
    )
    text = region(await page_of(client), "history")
    assert "n450" in text
    assert "n251" in text
    assert "n250 " not in text
    assert "These are the last 200 lines" in text


async def deliver(place: Any, state: str = "ready", body: str = '{"uid": "u1", "status": {"state": "ready"}}') -> int:
    found: int = await place.owner.fetchval(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, signature, state, outcome, size_bytes, body_sha256,"
        " body) VALUES ('one', 'u1', 'valid', $1, 'recorded', 1234, $2, $3) RETURNING id",
        state, hashlib.sha256(state.encode()).digest(), body,
    )  # fmt: skip
    return found


@pytest.fixture(autouse=True)
async def no_traffic(place):
    await place.owner.execute("TRUNCATE webhook_deliveries, webhook_refusals, provider_calls")


async def test_notifications_are_told_and_one_is_acted_on_again_by_a_button(client, place):
    await place.clip("one", uid="u1")
    assert "None came yet" in region(await page_of(client), "deliveries")
    number = await deliver(place)
    page = await page_of(client)
    assert "✓ valid ready recorded, for the monitor to judge 1.2 kB" in region(page, "deliveries")
    assert f'action="/clips/one/deliveries/{number}/replay"' in page
    answer = await client.post(f"/clips/one/deliveries/{number}/replay", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/clips/one")
    [signal] = await place.signals("one")
    assert (signal["requested_status"], signal["source"], signal["hearsay"]) == ("stream_ready", "webhook replay", True)


async def test_what_was_refused_of_late_stands_beside_them(client, place):
    await place.clip("one", uid="u1")
    await place.owner.execute("INSERT INTO webhook_refusals VALUES (date_trunc('hour', now()), 'mismatch', 12, now())")
    text = region(await page_of(client), "deliveries")
    assert "Within a day, of all clips, not taken: 12 × signed with another secret." in text


async def test_calls_are_told_with_tries_waits_and_answers(client, place):
    await place.clip("one", uid="u1")
    assert "None is kept" in region(await page_of(client), "calls")
    await place.owner.execute(
        "INSERT INTO provider_calls (cloudflare_uid, at, operation, call_class, try, waited_ms, took_ms, http_status,"
        " problem) VALUES ('u1', now(), 'get', 'reconcile', 1, 1500, 80, 502, 'provider_unavailable'),"
        " ('u1', now(), 'get', 'reconcile', 2, 3, 70, 200, NULL), ('u2', now(), 'delete', 'person', 1, 0, 1, 200, NULL)"
    )
    text = region(await page_of(client), "calls")
    assert "get to look 2 3 ms 70 ms ✓ 200" in text
    assert "get to look 1 1.5 s 80 ms ⚠ 502, provider_unavailable" in text
    assert "delete" not in text
    found = (await (await client.get("/api/clips/one/calls")).json())["calls"]
    assert [(call["attempt"], call["http_status"], call["problem"]) for call in found] == [
        (2, 200, None),
        (1, 502, "provider_unavailable"),
    ]
    await place.clip("two")
    assert (await (await client.get("/api/clips/two/calls")).json()) == {"calls": []}
    assert (await client.get("/api/clips/nope/calls")).status == 404


async def test_a_reader_sees_everything_and_no_button(place):
    reader = {"Authorization": "Bearer a-reading-token-of-24-chars"}
    client = await place.start(
        api_tokens="a-token-of-sixteen-characters", api_read_tokens="a-reading-token-of-24-chars"
    )
    await place.clip("one", uid="u1")
    await place.move("one", "error", error_message="Broken")
    number = await deliver(place)
    page = await (await client.get("/clips/one", headers=reader)).text()
    assert "What failed: Broken" in region(page, "status")
    assert not [action for action in re.findall(r'action="([^"]*)"', page) if action.startswith("/clips")]
    for path in ("/clips/one/retry", f"/clips/one/deliveries/{number}/replay", "/clips/one/delete"):
        assert (await client.post(path, headers=reader)).status == 403


async def test_addresses_are_offered_to_take_away(client, place):
    manifest = "https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8"
    await place.clip("one", uid="u1")
    assert region(await page_of(client), "links") == ""
    await place.move("one", "complete", hls_url=manifest, r2_url="https://media.example.org/videos/u1.mp4")
    page = await page_of(client)
    assert f'data-copy="{manifest}"' in page
    assert 'data-copy="https://media.example.org/videos/u1.mp4"' in page


async def test_where_nothing_plays_the_page_says_so(client, place):
    await place.clip("one", uid="u1")
    assert region(await page_of(client), "player") == ""
    await place.move("one", "stream_ready")
    assert "no address to play it from is known" in region(await page_of(client), "player")
    await place.move("one", "complete", hls_url="https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8")
    await place.owner.execute('UPDATE clips SET processing_details = processing_details || \'{"deleted_at": "x"}\'')
    assert "The video was removed at the provider" in region(await page_of(client), "player")


async def test_a_failed_query_is_a_problem_and_no_empty_page(client, place):
    await place.clip("one", uid="u1")
    await place.services.pool.close()
    answer = await client.get("/clips/one", headers={"Accept": "text/html"})
    assert answer.status == 503
    assert "Try again" in await answer.text()


async def test_times_of_another_day_have_their_date(client, place):
    at = await place.owner.fetchval("SELECT clock_timestamp()") + timedelta(days=3)
    await place.clip("one", uid="u1")
    await place.move("one", "processing", look_at=at)
    assert f"at {at:%Y-%m-%d %H:%M:%S} UTC" in region(await page_of(client), "status")
