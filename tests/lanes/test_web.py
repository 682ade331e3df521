"""The web process under attack: addresses that lead inside, script in every text, calls from other sites, odd calls."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import socket
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from house import free_port
from wire.addresses import RESOLVED_INSIDE, inside
from wire.browser import CHROMIUM, Tab, open_browser
from wire.http import Reply, once, request_bytes
from wire.scripts import TERMINAL, TEXTS

from lanes.canaries import CANARIES
from orchestrator.drivers import egress
from orchestrator.drivers.egress import EgressPolicy
from orchestrator.drivers.errors import DriverError, PermanentError
from orchestrator.transfer.source import HttpSource
from orchestrator.web.access import Guard
from orchestrator.web.routes import ROUTES

if TYPE_CHECKING:
    from house import House

    from lanes.conftest import Figures

TOKEN = CANARIES["operator token"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FOO")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {"webhook_url": None, "encode": "copy", "rate_limit_count": 1_000_000}


@pytest.fixture
async def open_house(house: House) -> House:
    """A house whose web process runs, without tokens: this machine alone may call."""
    house.extra["CLOUDFLARE_CALLS"] = "1000000"
    await house.start_web()
    return house


class Canary:
    """A listener that nobody may ever reach; it answers whatever comes with a file."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()

    @asynccontextmanager
    async def listening(self, *ports: int) -> AsyncIterator[Canary]:
        """Wait at a free port of every address of this machine, and at *ports* where they may be had."""
        servers = [await asyncio.start_server(self._met, "0.0.0.0", 0)]  # noqa: S104  (nobody shall come)
        self.port = servers[0].sockets[0].getsockname()[1]
        for host, port in (("::1", self.port), *(("127.0.0.1", port) for port in ports)):
            with suppress(OSError):
                servers.append(await asyncio.start_server(self._met, host, port))
        try:
            yield self
        finally:
            for server in servers:
                server.close()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with Canary().listening(443, 80) as waiting:
        yield waiting


async def test_no_address_leads_the_reader_inside(canary: Canary, figures: Figures, monkeypatch: Any) -> None:
    """The reader of finished files, with the hosts of production: each address itself, and as a redirect's target."""
    reader = HttpSource(EgressPolicy())
    refused = 0
    for address in inside(canary.port):
        with pytest.raises(PermanentError) as caught:
            await reader.probe(address)
        assert caught.value.code == "source_address_not_allowed", address
        refused += 1
    await reader.close()

    class Hostile(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            return [
                {"hostname": host, "host": found, "port": port, "family": family, "proto": 0, "flags": 0}
                for found in RESOLVED_INSIDE[host]
            ]

        async def close(self) -> None:
            return None

    monkeypatch.setattr(egress, "DefaultResolver", Hostile)
    reader = HttpSource(EgressPolicy())
    for name in RESOLVED_INSIDE:
        with pytest.raises(DriverError) as failed:
            await reader.probe(f"https://{name}/x.mp4")
        assert failed.value.code == "source_address_not_allowed", name
        refused += 1
    await reader.close()
    figures.add(addresses_refused=refused)
    assert canary.connections == 0


async def test_no_mp4_address_of_the_provider_leads_the_monitor_inside(
    house: House, canary: Canary, figures: Figures
) -> None:
    """Clips whose MP4 is said to be inside, directly and behind a redirect of a host on the list."""
    targets = [address for address in inside(canary.port) if address.isprintable()]
    redirecting = aiohttp.web.Application()

    async def redirect(request: aiohttp.web.Request) -> aiohttp.web.Response:
        answer = aiohttp.web.Response(status=302)
        with suppress(ValueError):
            answer.headers["Location"] = quote(targets[int(request.match_info["n"])], safe="/:?#[]@!$&'()*+,;=%\\")
        return answer

    redirecting.router.add_get("/{n}", redirect)
    runner, port = aiohttp.web.AppRunner(redirecting), free_port()
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    origin = f"http://127.0.0.1:{port}"
    house.extra["CLOUDFLARE_DELIVERY_HOSTS"] = f"{origin},cloudflarestream.com,videodelivery.net"
    addresses = [*targets, *(f"{origin}/{number}" for number in range(len(targets)))]
    await house.rows.executemany(
        "INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $1)", [(f"c{number}",) for number in range(len(addresses))]
    )
    await house.rows.executemany(
        "UPDATE clips SET status = 'mp4downloading', progress = 85, mp4_url = $2 WHERE id = $1",
        [(f"c{number}", address) for number, address in enumerate(addresses)],
    )
    house.start("monitor")
    # Refused for good, or tried in vain: a redirect that is a path leads to the host on the list itself.
    tried = "SELECT id FROM clips WHERE tries > 0 UNION SELECT clip_id FROM clip_events WHERE to_status = 'error'"
    async with asyncio.timeout(60):
        while await house.rows.fetchval(f"SELECT count(*) FROM ({tried}) AS t") < len(addresses):
            await asyncio.sleep(0.1)
    await runner.cleanup()
    said = "coalesce(processing_details ->> 'error_code', processing_details #>> '{last_problem,code}')"
    codes = {row[0]: row[1] for row in await house.rows.fetch(f"SELECT {said}, count(*) FROM clips GROUP BY 1")}
    assert codes["source_address_not_allowed"] >= len(addresses) - 10, codes
    figures.add(addresses_refused=len(addresses))
    assert canary.connections == 0


async def test_addresses_of_owners_are_handed_to_the_provider_and_never_fetched(
    open_house: House, canary: Canary, figures: Figures
) -> None:
    house = open_house
    # The provider refuses each copy, so that whoever came to the canary would be one of us.
    house.stream.faults.set(quota_exceeded={"route": "POST /stream/copy"})
    house.start("monitor")
    answers = {201: 0, 422: 0, 400: 0}
    for address in inside(canary.port):
        status, told = await house.api("POST", "/api/clips", json={"source": "url", "url": address})
        assert status in answers, (address, told)
        answers[status] += 1
        scheme, _, rest = address.partition("://")
        if scheme.lower() not in ("http", "https") or "@" in re.split("[/?#]", rest)[0]:
            assert status == 422, address
        if address:
            assert address not in str(told)
    async with asyncio.timeout(60):
        while house.stream.calls.count("POST /stream/copy") < answers[201]:
            await asyncio.sleep(0.1)
    figures.tell(owners_addresses_handed_on=answers[201], owners_addresses_refused=answers[422])
    assert canary.connections == 0


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    if not CHROMIUM:
        pytest.skip("no Chromium here; set CHROMIUM")
    async with open_browser() as browser:
        yield await browser.tab()


async def _hostile_clip(house: House, number: int, text: str, status: str) -> str:
    """A clip that carries *text* wherever a stranger can write."""
    clip_id, text = f"xss-{number:03}", text[:500]
    storable = text.replace("\0", "")
    await house.rows.execute("INSERT INTO clips (id, title) VALUES ($1, $2)", clip_id, storable)
    await house.rows.execute(
        "UPDATE clips SET status = $2, error_message = CASE $2 WHEN 'error' THEN $3 END,"
        " progress = CASE $2 WHEN 'complete' THEN 100 WHEN 'error' THEN progress ELSE 60 END,"
        " thumbnail_url = $3, hls_url = $3, dash_url = $3, mp4_url = $3, r2_url = $3,"
        " processing_details = jsonb_build_object($3::text, $3::text, 'requested_status_error', $3::text)"
        " WHERE id = $1",
        clip_id, status, storable,
    )  # fmt: skip
    await house.rows.execute(
        "INSERT INTO clip_events (clip_id, kind, attempt, from_status, to_status, progress, source, details)"
        " VALUES ($1, 'refused', 1, $2, $2, 1, $2, jsonb_build_object('rule', $2::text, 'reason', $2::text))",
        clip_id, storable,
    )  # fmt: skip
    return clip_id


async def test_no_text_runs_on_any_page(open_house: House, tab: Tab, figures: Figures) -> None:
    """With the policy of the browser switched off: escaping alone must do. Then with it, which must find no fault."""
    house = open_house
    statuses = ("error", "complete", "stream_ready")
    clips = [
        await _hostile_clip(house, number, text, statuses[number % len(statuses)]) for number, text in enumerate(TEXTS)
    ]
    pages = 0
    await tab.call("Page.setBypassCSP", enabled=True)
    for clip_id, text in zip(clips, TEXTS, strict=True):
        await _visit(tab, f"{house.address}/clips/{clip_id}")
        shown = await tab.run("document.querySelector('h1').textContent")
        assert shown == text.replace("\r\n", "\n"), text
        let_in = "main script, main iframe, main object, main meta, main base, main form[action^='//']"
        assert await tab.run(f'document.querySelectorAll("{let_in}").length') == 0
        pages += 1
    whole = quote("".join(TEXTS[:12]))
    for path in (
        "/",
        f"/?search={quote(TEXTS[0])}",
        *(f"/?search={quote(text[:190])}" for text in TEXTS[5:15]),
        f"/?status={whole}",
        f"/?cursor={whole}",
        f"/?pipeline={whole}",
        *(f"/clips/{quote(text, safe='')}" for text in TEXTS[:12]),
        f"/sign-in?next={whole}",
        f"/upload?{whole}={whole}",
        f"/{whole}",
        "/api/docs",
        *(f"/api/clips/{quote(text, safe='')}/status" for text in TEXTS[:4]),
        f"/api/clips/{clips[0]}",
        f"/api/clips/{clips[0]}/events",
        f"/api/clips?search={quote(TEXTS[0])}",
    ):
        await _visit(tab, house.address + path)
        pages += 1
    await _live(house, tab, clips[2])
    assert tab.dialogs == []
    assert not await tab.run("window.hacked")
    await tab.call("Page.setBypassCSP", enabled=False)
    tab.complaints.clear()
    for path in ("/", *(f"/clips/{clip_id}" for clip_id in clips[:8])):
        await _visit(tab, house.address + path)
    assert [text for text in tab.complaints if "Content Security Policy" in text and "script" in text] == []
    assert tab.dialogs == []
    figures.tell(hostile_texts=len(TEXTS), pages_with_them=pages, scripts_run=0)


async def _visit(tab: Tab, url: str) -> None:
    await tab.call("Page.navigate", url=url)
    await tab.until("document.readyState === 'complete'")
    # Handlers that were let in have run by the next turn; the focus is what most of them wait for.
    await tab.run("new Promise(done => { document.body.click(); setTimeout(done, 20) })")


async def _live(house: House, tab: Tab, clip_id: str) -> None:
    """What arrives while the page is open is text, too."""
    await _visit(tab, f"{house.address}/clips/{clip_id}")
    await house.rows.execute(
        "UPDATE clips SET status = 'error', error_message = $2 WHERE id = $1", clip_id, TEXTS[7] + TEXTS[0]
    )
    await house.rows.execute("SELECT pg_notify('orchestrator_changed', $1)", clip_id)
    await tab.until("document.querySelector('.badge.failed')")


async def test_texts_that_turn_lines_around_turn_only_themselves(open_house: House, tab: Tab) -> None:
    clip_id = await _hostile_clip(open_house, 1, "\u202egnp.exe", "error")
    await _visit(tab, f"{open_house.address}/")
    foreign = "[...document.querySelectorAll('.what strong, .what [data-message]')]"
    kept = (
        f"{foreign}.every(e => ['isolate', 'plaintext', 'isolate-override'].includes(getComputedStyle(e).unicodeBidi))"
    )
    assert await tab.run(kept)
    await _visit(tab, f"{open_house.address}/clips/{clip_id}")
    assert await tab.run("getComputedStyle(document.querySelector('h1')).unicodeBidi") in ("isolate", "plaintext")


def _target(route: Any) -> str:
    names = {"id": "one", "version": "x", "name": "style.css", "delivery": "1"}
    return _NAMED.sub(lambda found: names[found.group().strip("{}")], route.template)


async def _rows(house: House) -> str:
    tables = ("clips", "clip_signals", "clip_events", "idempotency_keys")
    parts = " || ".join(
        f"coalesce((SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {name} t), '')" for name in tables
    )
    return str(await house.rows.fetchval(f"SELECT md5({parts})"))


# Where an address has a name in it.
_NAMED = re.compile(r"\{[^}]*\}")
_FORM = (("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "text/html"))
_CROSS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("Sec-Fetch-Site", "cross-site"),),
    (("Sec-Fetch-Site", "same-site"),),
    (("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1")),
    (("Sec-Fetch-Site", "nonsense"),),
    (("Sec-Fetch-Site", ""),),
    (("Origin", "https://evil.example"),),
    (("Origin", "null"),),
    (("Origin", ""),),
    (("Origin", "http://{host}.evil.example"),),
    (("Origin", "http://evil.example/{host}"),),
    (("Origin", "http://evil@{host}:1"),),
    (("Origin", "://["),),
)


async def test_no_other_site_can_make_a_browser_act(house: House, figures: Figures) -> None:
    """Every route with every unsafe method, as a browser would send it for another site: by loopback and by cookie."""
    refused = 0
    for tokens in ("", TOKEN):
        house.extra["API_TOKENS"] = tokens
        process = await house.start_web()
        await house.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('one', 'u1') ON CONFLICT DO NOTHING")
        cookie = await _session(house) if tokens else ()
        before = await _rows(house)
        for route in ROUTES:
            if route.path in ("/webhooks/cloudflare",):
                continue  # nobody's browser: it is opened by a signature alone
            for method in UNSAFE:
                for headers in _cross_headers(house, bare=bool(tokens) and route.guard is not Guard.OPEN):
                    reply = await _call(house, method, _target(route), (*_FORM, *cookie, *headers), b"token=x")
                    allowed = (403,) if route.method == method else (403, 405)
                    assert reply.status in allowed, (method, route.path, headers, reply.status)
                    refused += 1
        assert await _rows(house) == before
        process.terminate()
        await asyncio.to_thread(process.wait, 15)
    figures.tell(calls_of_other_sites_refused=refused)


def _cross_headers(house: House, *, bare: bool) -> Iterator[tuple[tuple[str, str], ...]]:
    host = f"127.0.0.1:{house.port}"
    for headers in _CROSS:
        yield tuple((name, value.replace("{host}", host)) for name, value in headers)
    if bare:
        yield ()  # a cookie without any word of where the call came from


async def _session(house: House) -> tuple[tuple[str, str], ...]:
    headers = (*_FORM, ("Sec-Fetch-Site", "same-origin"))
    reply = await _call(house, "POST", "/sign-in", headers, f"token={TOKEN}".encode())
    assert reply.status == 303
    cookie = reply.header("Set-Cookie") or ""
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    return (("Cookie", cookie.partition(";")[0]),)


async def _call(
    house: House, method: str, target: str, headers: Any = (), body: bytes | None = None, host: str | None = None
) -> Reply:
    raw = request_bytes(method, target, f"127.0.0.1:{house.port}" if host is None else host, headers, body)
    return await once("127.0.0.1", house.port, raw)


async def test_a_page_of_another_site_gets_nothing_done_in_a_real_browser(
    open_house: House, tab: Tab, figures: Figures
) -> None:
    house = open_house
    await house.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('one', 'u1')")
    tries = f"""
      const at = '{house.address}', tries = [];
      for (const path of ['/clips/one/delete', '/clips/one/retry', '/upload', '/api/clips', '/api/clips/one/signals',
                          '/api/cloudflare/delete-video', '/api/clips/one']) {{
        for (const method of ['POST', 'DELETE', 'PUT', 'PATCH']) for (const mode of ['no-cors', 'cors'])
          tries.push(fetch(at + path, {{method, mode, credentials: 'include', body: '{{"requested_status":"error"}}'}}))
        tries.push(new Promise(done => done(navigator.sendBeacon(at + path, 'x'))));
      }}
      Promise.allSettled(tries).then(all => all.length)
    """
    page = aiohttp.web.Application()

    async def show(_: aiohttp.web.Request) -> aiohttp.web.Response:
        form = f"<form method=post action='{house.address}/clips/one/delete'><input name=a value=b></form>"
        return aiohttp.web.Response(text=f"<!doctype html><body>{form}", content_type="text/html")

    page.router.add_get("/", show)
    runner, port = aiohttp.web.AppRunner(page), free_port()
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    before = await _rows(house)
    made = 0
    for other in (f"http://localhost:{port}/", f"http://127.0.0.1:{port}/"):  # another site; another origin of the same
        await tab.go(other)
        made += await tab.run(tries)
        await tab.run("document.forms[0].submit()")
        await tab.until("document.body.innerText.includes('another site')")
        made += 1
    await runner.cleanup()
    assert await _rows(house) == before
    figures.add(calls_of_other_sites_refused=made)


async def test_every_answer_carries_the_headers(house: House, figures: Figures) -> None:
    house.extra |= {"API_TOKENS": TOKEN, "PUBLIC_BASE_URL": "https://clips.example.org"}
    await house.start_web()
    await house.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('one', 'u1')")
    bearer = (("Authorization", f"Bearer {TOKEN}"), ("Accept", "text/html"))
    asset = re.search(rb'href="(/assets/[^"]+)"', (await _call(house, "GET", "/", bearer)).body)
    assert asset is not None
    targets = [*dict.fromkeys(_target(route) for route in ROUTES), "/nope", "/clips/nope", asset[1].decode()]
    seen = 0
    for target in targets:
        if target == "/api/events":
            continue  # its answer has no end; its headers are tested beside it
        for method in METHODS[:7]:
            for headers in (bearer, (), bearer[:1]):
                reply = await _call(house, method, target, headers, b"{}" if method in UNSAFE else None)
                _check_headers(reply, f"{method} {target} {reply.status}")
                seen += 1
    figures.tell(answers_with_all_headers=seen)


def _check_headers(reply: Reply, what: str) -> None:
    assert reply.header("X-Content-Type-Options") == "nosniff", what
    assert reply.header("Referrer-Policy") == "same-origin", what
    assert reply.header("Cross-Origin-Resource-Policy") == "same-origin", what
    assert reply.header("X-Request-Id"), what
    assert "aiohttp" not in (reply.header("Server") or ""), what
    assert "Access-Control-Allow-Origin" not in dict(reply.headers), what
    policy = reply.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy, what
    assert "frame-ancestors 'none'" in policy, what
    assert "unsafe" not in policy, what
    assert "*" not in policy.replace("https://*.cloudflarestream.com", "").replace("https://*.videodelivery.net", ""), (
        what
    )
    if (reply.header("Content-Type") or "").startswith("text/html"):
        assert reply.header("X-Frame-Options") == "DENY", what
        assert reply.header("Cross-Origin-Opener-Policy") == "same-origin", what
        assert reply.header("Strict-Transport-Security"), what
        assert reply.header("Permissions-Policy"), what
    if reply.header("Content-Type") and "/assets/" not in what and "favicon" not in what:
        assert "public" not in (reply.header("Cache-Control") or ""), what


_UP = (
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    "....//",
    "%252e%252e%252f",
    "..%c0%af",
    "%u002e%u002e/",
)
_FILES = (
    "etc/passwd",
    "proc/self/environ",
    "app.py",
    "settings.py",
    ".env",
    "style.css%00.png",
    "orchestrator/settings.py",
)


async def test_no_path_leads_out_of_its_place(open_house: House, figures: Figures) -> None:
    before = await _rows(open_house)
    tried = 0
    starts = ("/assets/", "/assets/x/", "/assets/x/style.css/", "/clips/", "/api/clips/", "/", "//", "/api/docs/")
    targets = [start + up * times + file for start in starts for up in _UP for times in (1, 8) for file in _FILES]
    targets += [
        "/assets//etc/passwd", "/assets/x//etc/passwd", "/assets/x/%2fetc%2fpasswd", "/assets/x/style.css%00",
        "/assets/x/" + "a" * 300, "/assets/x/con", "/assets/x/.", "/assets/x/..", "/assets/x/__init__.py",
        "/assets/x/\u202essc.elyts", "http://evil.example/etc/passwd", "*", "?", "/" + "%00" * 50,
        "/clips/" + "a" * 3000, "/api/clips/" + "%2F" * 100, "/api/clips/%0d%0aX-Evil:%201",
        "/clips/%0d%0aSet-Cookie:%20a=b",
    ]  # fmt: skip
    for target in targets:
        for method in ("GET", "DELETE"):
            with suppress(ConnectionError):
                reply = await _call(open_house, method, target)
                assert reply.status < 500, (target, reply)
                assert reply.status != 200 or target in ("?", "/?"), (target, reply)
                assert b"root:" not in reply.body
                assert b"import " not in reply.body
                assert not {"x-evil", "set-cookie"} & {name for name, _ in reply.headers}, target
            tried += 1
    assert await _rows(open_house) == before
    figures.tell(paths_tried=tried)


async def test_every_method_at_every_route_is_answered_without_a_fault(house: House, figures: Figures) -> None:
    house.extra |= {"API_TOKENS": TOKEN, "CLOUDFLARE_CALLS": "1000000"}
    await house.start_web()
    await house.rows.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('one', 'u1')")
    bearer = ("Authorization", f"Bearer {TOKEN}")
    answers: dict[int, int] = {}
    for template in dict.fromkeys(_target(route) for route in ROUTES):
        served = {route.method for route in ROUTES if _target(route) == template}
        # What stands at this address, too, for its last part may be a name: /api/clips/retry, a clip called so.
        also = {route.method for route in ROUTES if re.fullmatch(_NAMED.sub("[^/]+", route.template), template)}
        for method in METHODS:
            if (method, template) == ("GET", "/api/events"):
                continue
            for headers in ((bearer,), ()):
                for body in (None, b"", b"{}", b"\xff"):
                    with suppress(ConnectionError):
                        reply = await _call(house, method, template, headers, body)
                        answers[reply.status] = answers.get(reply.status, 0) + 1
                        assert reply.status < 500, (method, template, body, reply)
                        if method not in served | also | {"HEAD", "CONNECT", "TRACE"}:
                            assert reply.status in (400, 405), (method, template, reply.status)
                        if reply.status == 405:
                            assert set((reply.header("Allow") or "").replace(" ", "").split(",")) >= served
    figures.tell(calls_of_the_method_matrix=sum(answers.values()), faults_of_ours=0)


async def test_strangers_of_all_kinds_are_kept_out_of_a_loopback_service(open_house: House) -> None:
    for host in ("evil.example", "127.0.0.1.nip.io", "localhost.evil.example", "0.0.0.0", "[::ffff:8.8.8.8]", ""):  # noqa: S104
        assert (await _call(open_house, "GET", "/api/clips", host=host)).status in (400, 403), host
    for header in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"):
        assert (await _call(open_house, "GET", "/api/clips", [(header, "127.0.0.1")])).status == 403
    assert (await _call(open_house, "GET", "/api/clips")).status == 200


async def test_calls_drawn_from_the_reference_are_never_answered_with_a_fault_of_ours(
    house: House, figures: Figures, amount: Any
) -> None:
    from wire.drawn_calls import draw_calls

    house.extra |= {"API_TOKENS": TOKEN, "CLOUDFLARE_CALLS": "1000000"}
    await house.start_web()
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    told = await asyncio.to_thread(draw_calls, house.address, TOKEN, amount(1500, 60_000), amount(30, 600))
    figures.tell(calls_drawn=told.calls, statuses_met=len(told.statuses), faults_of_ours=0)
    assert max(told.statuses) < 500
    assert len(told.operations) >= 15, "the calls did not reach most of the reference"


def _run_cli(environment: dict[str, str], *arguments: str, as_terminal: bool) -> str:
    command = [sys.executable, "-m", "orchestrator", *arguments]
    if not as_terminal:
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
        return (done.stdout + done.stderr).decode()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=environment | {"TERM": "xterm"}, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with suppress(OSError):
        while chunk := os.read(ours, 65536):
            said += chunk
    os.close(ours)
    process.wait(60)
    return said.decode()


async def _clip_with_all(house: House, texts: list[str]) -> None:
    """A clip whose document and history hold all *texts*."""
    await house.rows.execute("INSERT INTO clips (id) VALUES ('xss-all')")
    for text in texts:
        await house.rows.execute(
            "UPDATE clips SET processing_details = processing_details || jsonb_build_object($1::text, $1::text)"
            " WHERE id = 'xss-all'",
            text,
        )
        await house.rows.execute(
            "INSERT INTO clip_events (clip_id, kind, attempt, to_status, source, details)"
            " VALUES ('xss-all', $1, 1, $1, $1, jsonb_build_object('reason', $1::text))",
            text,
        )


async def test_no_text_steers_a_terminal(house: House, figures: Figures) -> None:
    texts = [*TERMINAL, *TEXTS]
    for number, text in enumerate(texts):
        await _hostile_clip(house, number, text, "error")
    outputs = 0
    await _clip_with_all(house, texts)
    one = [["clips", verb, clip_id] for verb in ("show", "explain") for clip_id in ("xss-all", "xss-002")]
    for as_terminal in (False, True):
        commands = [["clips", "ls", "--limit", "200"], ["clips", "ls", "--json"], *one]
        for command in commands:
            said = await asyncio.to_thread(_run_cli, house.environment, *command, as_terminal=as_terminal)
            assert "xss-" in said or "explain" in command, said
            # Colours of our own are for terminals alone; without one every sequence would show.
            bare = re.sub(r"\x1b\[[0-9;]*m", "", said) if as_terminal else said
            steering = {
                letter for letter in bare
                if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cs") and letter not in "\n\r"
            }  # fmt: skip
            assert not steering, (command, steering)
            # A line end in a title would make a row of its own; what a terminal adds is before the line feed alone.
            assert "\r" not in bare.replace("\r\n", ""), command
            outputs += 1
    figures.tell(terminal_outputs=outputs, hostile_texts_in_each=len(texts))
