"""The pages as they leave the server: the present state in them, every foreign text escaped, usable without scripts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from statusutils import STREAM

# Each would run, close something or break out somewhere if it got through as HTML.
HOSTILE = (
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea></select></progress><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "javascript:alert(1)",
    "{{7*7}} ${7*7} $title $$ $main",
    "<!-- --><iframe src=//evil.example>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202egpj.exe\u202c \u2028 \u2029 \x0b",
    "<style>*{display:none}</style>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
)
ALLOWED_TAGS = set(
    "html head meta title link body a header svg path circle nav main div form label input select option button ul ol"  # noqa: SIM905
    " li section span strong progress time img h1 h2 h3 p code article details summary dl dt dd table thead tbody tr th"
    " td video noscript script b bdi rect template aside pre".split()
)


class Outline(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_harmless(page: str) -> Outline:
    """No tag, no attribute and no address in *page* that a foreign text could have brought in."""
    outline = Outline(page)
    for tag, attributes in outline.tags:
        assert tag in ALLOWED_TAGS, tag
        assert not [name for name in attributes if name.startswith("on")], attributes
        assert "style" not in attributes
        for name in ("href", "src", "action", "poster", "data-iframe"):
            address = attributes.get(name) or ""
            assert not re.match(r"\s*(javascript|data|vbscript):", address, re.I), address
            assert not address.startswith("//"), address
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/assets/")
        if tag == "meta":
            assert "url" not in (attributes.get("content") or "")
    return outline


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_foreign_texts_are_texts_on_every_page(client, place, hostile):
    await place.clip("one", uid="u1", title=hostile, requested_status_error=hostile, created_by=hostile)
    await place.move("one", "processing")
    await place.move("one", "error", error_message=hostile, hls_url=hostile, thumbnail_url=hostile, r2_url=hostile)
    await place.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, source, details)"
        " VALUES ('one', $1, 1, $1, $1, $1, $2), ('one', 'refused', 1, $1, $1, $1, $2)",
        hostile,
        json.dumps({"reason": hostile, "rule": hostile}),
    )
    for path in ("/", "/clips/one", "/upload", "/sign-in"):
        answer = await client.get(path)
        outline = check_harmless(await answer.text())
        if path in ("/", "/clips/one"):
            assert " ".join(hostile.split()) in " ".join(outline.text.split())
    for path in ("/", "/upload", "/nothing"):
        answer = await client.get(path, params={"search": hostile, "cursor": hostile}, headers={"Accept": "text/html"})
        check_harmless(await answer.text())
    answer = await client.post("/upload", data={"url": hostile, "title": hostile}, headers={"Accept": "text/html"})
    check_harmless(await answer.text())


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_what_passed_with_the_provider_is_text_on_the_page_of_a_clip(client, place, hostile):
    await place.owner.execute("TRUNCATE webhook_deliveries, webhook_refusals, provider_calls")
    await place.clip("one", uid="u1", last_problem={"at": "2026-05-04T12:00:00Z", "code": hostile, "text": hostile})
    await place.owner.execute("UPDATE clips SET hls_url = $1, dash_url = $1, uploaded_at = now()", hostile)
    await place.owner.execute(
        "INSERT INTO webhook_deliveries (clip_id, cloudflare_uid, signature, state, outcome, size_bytes, body_sha256,"
        " body) VALUES ('one', 'u1', 'valid', left($1, 100), 'recorded', 1, sha256('x'), $2)",
        hostile,
        json.dumps({hostile: hostile}),
    )
    await place.owner.execute(
        "INSERT INTO provider_calls (cloudflare_uid, at, operation, call_class, try, waited_ms, took_ms, problem)"
        " VALUES ('u1', now(), left($1, 40), left($1, 20), 1, 0, 0, left($1, 60))",
        hostile,
    )
    await place.owner.execute("INSERT INTO webhook_refusals VALUES (now(), left($1, 40), 1, now())", hostile)
    for status in ("stream_ready", "error"):
        await place.move("one", status, error_message=hostile)
        outline = check_harmless(await (await client.get("/clips/one")).text())
        assert " ".join(hostile.split())[:40] in " ".join(outline.text.split())


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_complete_clip_links_only_to_web_addresses(client, place, hostile):
    await place.clip("one", uid="u1")
    await place.move("one", "complete", r2_url=hostile, hls_url=hostile, thumbnail_url=hostile)
    outline = check_harmless(await (await client.get("/clips/one")).text())
    assert not [tag for tag, _ in outline.tags if tag == "video"]


async def test_the_list_has_every_clip_newest_first_with_its_state_in_words(client, place, stages):
    for number, stage in enumerate((*stages, "error")):
        await place.clip(f"clip{number:02}", title=f"Title {number}")
        if stage != "uploading":
            await place.move(f"clip{number:02}", stage)
    page = await (await client.get("/")).text()
    assert re.findall(r'href="/clips/(\w+)"', page) == [f"clip{number:02}" for number in reversed(range(10))]
    for word in ("Waiting", "Running", "Done", "Failed"):
        assert f"<span>{word}</span>" in page
    assert all(STREAM[stage].message in page for stage in stages)


async def test_an_empty_list_a_filter_without_a_hit_and_a_failure_are_three_things(client, place):
    assert "No clips yet" in await (await client.get("/")).text()
    assert "No clip fits" in await (await client.get("/?search=x")).text()
    await place.services.pool.close()
    answer = await client.get("/", headers={"Accept": "text/html"})
    page = await answer.text()
    assert answer.status == 503
    assert "The database is out of reach" in page
    assert "No clips yet" not in page


async def test_pages_keep_the_filter(client, place):
    for number in range(3):
        await place.clip(f"clip{number}", title="a & b")
    page = await (await client.get("/", params={"search": "a & b", "limit": "2"})).text()
    [older] = re.findall(r'href="(/\?[^"]+)" rel="next"', page)
    older = older.replace("&amp;", "&")
    assert "search=a+%26+b" in older
    second = await (await client.get(older)).text()
    assert re.findall(r'href="/clips/(\w+)"', second) == ["clip0"]
    assert "Newest" in second


async def test_the_clip_page_shows_the_whole_way_and_where_the_clip_is(client, place, stages):
    await place.clip("one", title="A day")
    await place.move("one", "mp4_processing")
    page = await (await client.get("/clips/one")).text()
    path = re.findall(r'<li class="(\w+)"( aria-current="step")?>.*?<code>(\w+)</code>', page)
    assert [name for _, _, name in path] == [*stages, "error"]
    assert [name for _, here, name in path if here] == ["mp4_processing"]
    assert [name for how, _, name in path if how == "done"] == list(stages[:5])
    assert '<progress max="100" value="75"' in page
    assert "Cloudflare is making the MP4" in page
    assert 'aria-live="polite"' in page


async def test_a_failed_clip_tells_why_how_far_it_came_and_offers_another_try(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    await place.move("one", "error", error_message="The file is corrupt")
    page = await (await client.get("/clips/one")).text()
    assert "Failed: The file is corrupt" in page
    assert '<progress max="100" value="50"' in page
    assert 'action="/clips/one/retry"' in page
    assert "http-equiv" not in page  # nothing moves any more


async def test_the_page_says_in_a_sentence_why_the_clip_stands_where_it_stands(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    page = await (await client.get("/clips/one")).text()
    assert "Cloudflare is encoding it (at processing since" in page
    assert "no monitor leads" in page
    await place.owner.execute(
        "UPDATE monitor_lease SET holder = 'x', expires_at = clock_timestamp() + interval '9 s', taken_at = now(),"
        " round_at = clock_timestamp()"
    )
    assert "the monitor looks" in await (await client.get("/clips/one")).text()


async def test_the_history_stands_there_with_refusals_and_their_rule(client, place):
    await place.clip("one")
    await place.move("one", "processing")
    await place.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, source, details)"
        " VALUES ('one', 'refused', 1, 'processing', 'queued', 'webhook', $1)",
        json.dumps({"rule": "backward", "reason": "No way"}),
    )
    text = Outline((await (await client.get("/clips/one")).text()).replace("</td>", " </td>")).text
    assert "Refused: Queued at Cloudflare backward webhook No way" in text
    assert "Now: Cloudflare is encoding monitor Cloudflare says so" in text
    assert "Created api" in text


async def test_what_was_asked_and_not_judged_is_shown_as_asked(client, place):
    await place.clip("one")
    await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    page = await (await client.get("/clips/one")).text()
    assert "Requested: <strong>Queued at Cloudflare</strong>" in page


async def test_the_player_is_the_providers_before_the_end_and_the_file_after_it(client, place):
    manifest = "https://customer-x.cloudflarestream.com/u1/manifest/video.m3u8"
    await place.clip("one", uid="u1")
    await place.move("one", "processing", hls_url=manifest)
    assert "<video" not in await (await client.get("/clips/one")).text()  # it does not play yet
    await place.move("one", "stream_ready")
    page = await (await client.get("/clips/one")).text()
    assert f'src="{manifest}"' in page
    assert 'data-iframe="https://customer-x.cloudflarestream.com/u1/iframe"' in page
    await place.move("one", "complete", r2_url="https://media.example.org/videos/u1.mp4", file_size=12_345_678)
    page = await (await client.get("/clips/one")).text()
    assert 'src="https://media.example.org/videos/u1.mp4"' in page
    assert 'href="https://media.example.org/videos/u1.mp4" download' in page
    assert "12.3 MB" in page


async def test_pages_may_load_from_provider_and_bucket_and_run_no_inline_script(client, place):
    await place.clip("one")
    for path in ("/", "/clips/one", "/upload", "/api/docs", "/clips/nope"):
        answer = await client.get(path)
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "https://media.example.org" in policy["media-src"]
        for name in ("media-src", "img-src", "connect-src", "frame-src"):
            assert "https://*.cloudflarestream.com" in policy[name]
            assert "*" not in policy[name].split()
        assert answer.headers["X-Frame-Options"] == "DENY"
        page = await answer.text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src)", page)


async def test_a_stand_in_on_this_machine_may_be_uploaded_to_and_played_from(place):
    client = await place.start(
        cloudflare_api_url="http://127.0.0.1:8788/client/v4",
        cloudflare_delivery_hosts="http://127.0.0.1:8788",
        r2_public_url="http://127.0.0.1:9000/clips",
    )
    policy = (await client.get("/upload")).headers["Content-Security-Policy"]
    assert "connect-src 'self' http://127.0.0.1:8788;" in policy
    assert "media-src 'self' blob: http://127.0.0.1:8788 http://127.0.0.1:9000;" in policy


async def test_without_scripts_a_moving_page_refreshes_itself(client, place):
    await place.clip("one")
    for path in ("/", "/clips/one"):
        assert '<noscript><meta http-equiv="refresh"' in await (await client.get(path)).text()
    await place.move("one", "complete")
    for path in ("/", "/clips/one"):
        assert "http-equiv" not in await (await client.get(path)).text()


async def test_the_buttons_are_forms_that_ask_and_lead_back(client, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    answer = await client.post("/clips/one/retry", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/clips/one")
    assert [signal["attempt"] for signal in await place.signals("one")] == [2]
    await place.move("one", "error")
    answer = await client.post("/clips/one/delete", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/clips/one")
    page = await (await client.get("/clips/one")).text()
    assert "/clips/one/delete" not in page
    assert "/clips/one/retry" not in page


async def test_a_button_that_comes_too_late_tells_so_on_a_page(client, place):
    await place.clip("one", uid="u1")
    answer = await client.post("/clips/one/retry", headers={"Accept": "text/html"})
    assert (answer.status, answer.content_type) == (409, "text/html")
    assert "Only a failed clip can be tried again" in await answer.text()


async def test_an_unknown_clip_has_a_page_that_says_whether_to_wait(client, place):
    answer = await client.get("/clips/nope")
    assert answer.status == 404
    assert "never issued" in await answer.text()
    weird = await client.get("/clips/%00%3Cscript%3E")
    assert weird.status == 404
    check_harmless(await weird.text())


async def test_the_form_for_addresses_works_without_scripts(client, place):
    answer = await client.post(
        "/upload", data={"url": " https://files.example.org/a.mp4 ", "title": "Fetched"}, allow_redirects=False
    )
    assert answer.status == 303
    row = await place.owner.fetchrow("SELECT id, title, source_url FROM clips")
    assert answer.headers["Location"] == f"/clips/{row['id']}"
    assert (row["title"], row["source_url"]) == ("Fetched", "https://files.example.org/a.mp4")


@pytest.mark.parametrize("form", [{}, {"url": ""}, {"url": "ftp://x"}, {"url": "https://e.org/x", "title": "x" * 501}])
async def test_a_bad_form_is_shown_again_with_what_to_mend(client, place, form):
    answer = await client.post("/upload", data=form, headers={"Accept": "text/html"})
    page = await answer.text()
    if form:
        assert 'role="alert"' in page or "understood" in page
    assert 400 <= answer.status < 500
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 0


async def test_every_field_has_a_label_and_every_picture_a_word(client, place):
    await place.clip("one", uid="u1")
    for path in ("/", "/upload", "/clips/one"):
        page = await (await client.get(path)).text()
        bare = re.sub(r"<label[^>]*>.*?</label>", "", page, flags=re.S)
        assert not re.findall(r'<(?:input(?! type="hidden")|select|textarea)\b', bare)
        assert all('aria-hidden="true"' in svg for svg in re.findall(r"<svg[^>]*>", page))
        assert all("aria-label" in bar for bar in re.findall(r"<progress[^>]*>", page))
        assert '<html lang="en">' in page
        assert page.count("<h1") == 1
        assert page.count("<main") == 1


async def test_the_times_at_each_status_stand_however_long_the_history_has_grown(client, place):
    """Failed tries and refused requests are lines of it, too, and there may be hundreds after the last move."""
    await place.clip("one", uid="u1")
    await place.move("one", "processing")
    await place.owner.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, to_status, source)"
        " SELECT 'one', 'failed-try', 1, 'processing', 'monitor' FROM generate_series(1, 250)"
    )
    page = await (await client.get("/clips/one")).text()
    assert 'class="waterfall"' in page
    assert page.count('<th scope="row">') >= 2
