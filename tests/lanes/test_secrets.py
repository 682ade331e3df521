"""No secret is ever found again: not in what this house says while all fails, nor in what any lane has written."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from house import SOURCE_TOKEN, House, free_port
from wire.http import once, request_bytes
from wire.searching import search, search_files

from lanes.canaries import CANARIES
from orchestrator.web.routes import ROUTES

if TYPE_CHECKING:
    from lanes.conftest import Figures

OPERATOR, API_TOKEN = CANARIES["operator token"], CANARIES["api token"]
PASSWORD, WEBHOOK = CANARIES["database password"], CANARIES["webhook secret"]
BEARER = {"Authorization": f"Bearer {OPERATOR}"}
# What the stand-ins keep of their own: another company's database knows the secrets it has given out.
THEIRS = ("webhook.json", "token-secret")


@pytest.fixture
def stream_options() -> dict[str, Any]:
    return {"encode": "copy"}


@pytest.fixture
async def told(house: House) -> House:
    """A house that is told every canary in every way in which it can be told one."""
    house.extra |= {
        "API_TOKENS": f"{OPERATOR},another-token-of-sixteen",
        "CLOUDFLARE_WEBHOOK_SECRET": f"{CANARIES['former webhook secret']},{WEBHOOK}",
        "DATABASE_URL": _with_password(house.database),
    }
    return house


def _with_password(address: str) -> str:
    """The address with a password; our server asks for none and lets any in."""
    return re.sub(r"^(postgres(?:ql)?://[^:@/]+)@", rf"\1:{PASSWORD}@", address)


def expect_none(said: str | bytes, where: str) -> int:
    """Fail on any canary in *said*; its size."""
    data = said.encode() if isinstance(said, str) else said
    hits = list(search(data, where, CANARIES))
    assert hits == []
    return len(data)


async def test_clips_of_every_kind_pass_through_without_leaving_a_secret(
    told: House, sample: Path, figures: Figures
) -> None:
    house = told
    assert PASSWORD in house.environment["DATABASE_URL"]
    await house.start_web()
    monitor = house.start("monitor")
    source = await house.serve_file(sample)
    ids = [await _uploaded(house, sample, protocol) for protocol in ("form", "tus")]
    made = await _made(house, {"source": "url", "url": source, "title": "by address"})
    ids.append(made["id"])
    # A video that is played with a signed address alone: its token is a secret while it lives.
    signed = await _made(house, {"source": "upload", "title": "signed", "size_bytes": 1000})
    await _require_signed(house, signed["cloudflare_uid"])
    await house.upload_form(signed["upload_url"], sample)
    ids.append(signed["id"])
    # The provider cannot fetch one, and says so with the whole address.
    house.stream.faults.set(
        encoding_fails={"video": "quoted", "text": f"could not fetch {source}", "code": f"ERR {source}"},
        api_5xx={"times": 3, "status": 502, "html": True},
    )
    quoted = await _made(house, {"source": "url", "url": source, "title": "quoted"})
    for clip_id in ids:
        await house.until_complete(clip_id)
    await house.until(quoted["id"], lambda clip: clip.status == "error" or clip.attempt > 1)
    searched = await _everything_said(house, [*ids, quoted["id"]])
    for process in (monitor, house.processes[0]):
        command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes() if sys.platform == "linux" else b""
        searched += expect_none(command_line, "command line")
    figures.tell(KiB_said_by_this_house=searched // 1024)


async def _uploaded(house: House, sample: Path, protocol: str) -> str:
    made = await _made(
        house,
        {"source": "upload", "title": protocol, "size_bytes": sample.stat().st_size, "protocol": protocol},
        {"Idempotency-Key": f"key-{CANARIES['source address']}-{protocol}"},
    )
    send = house.upload_tus if protocol == "tus" else house.upload_form
    await send(made["upload_url"], sample)
    return str(made["id"])


async def _made(house: House, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    status, made = await house.api("POST", "/api/clips", json=body, headers={**BEARER, **(headers or {})})
    assert status == 201, made
    return dict(made)


async def _require_signed(house: House, uid: str) -> None:
    address = f"{house.stream.url}/accounts/{house.stream.account_id}/stream/{uid}"
    async with house.http.post(
        address, json={"requireSignedURLs": True}, headers={"Authorization": f"Bearer {API_TOKEN}"}
    ) as answer:
        assert answer.status == 200, await answer.text()


async def _everything_said(house: House, ids: list[str]) -> int:
    """Search every page, every answer, the figures, the events, every table and every log; how much that was."""
    paths = [
        "/metrics",
        "/readyz",
        "/healthz",
        "/api/clips",
        "/api/openapi.json",
        "/api/docs",
        "/",
        "/upload",
        "/sign-in",
    ]
    for clip_id in ids:
        paths += [f"/api/clips/{clip_id}{rest}" for rest in ("", "/status", "/events")] + [f"/clips/{clip_id}"]
    searched = 0
    for path in paths:
        for headers in (BEARER, {**BEARER, "Accept": "text/html"}):
            async with house.http.get(house.address + path, headers=headers) as answer:
                assert answer.status == 200, path
                searched += expect_none(await answer.read() + str(answer.headers).encode(), path)
    async with house.http.get(f"{house.address}/api/events?clip={ids[0]}", headers=BEARER) as answer:
        async with asyncio.timeout(10):
            searched += expect_none(
                await answer.content.readuntil(b"\n\n") + await answer.content.readuntil(b"\n\n"), "sse"
            )
    searched += await _tables(house)
    for log in house.directory.glob("*.log"):
        searched += expect_none(log.read_bytes(), log.name)
    return searched


async def _tables(house: House) -> int:
    searched = 0
    names = await house.rows.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert len(names) >= 8
    for row in names:
        # The address a clip is fetched from is kept for the monitor alone until the clip ends: the one place it may be.
        rows = await house.rows.fetch(f'SELECT * FROM "{row["tablename"]}"')
        for each in rows:
            plain = {key: value for key, value in each.items() if key != "source_url"}
            searched += expect_none(str(plain), row["tablename"])
            if each.get("source_url") is not None:
                assert each["status"] != "complete", "the address outlives the clip"
    return searched


async def test_whoever_quotes_our_secrets_back_is_not_quoted(told: House, figures: Figures) -> None:
    """A provider and a bucket whose every answer repeats what we sent, in every shape in which they could."""
    house = told
    shapes = list(_SHAPES)
    async with _echo(shapes) as (address, heard):
        house.extra |= {
            "CLOUDFLARE_API_URL": f"{address}/client/v4",
            "R2_ENDPOINT_URL": f"{address}/bucket",
            "CLOUDFLARE_DELIVERY_HOSTS": address,
        }
        await house.start_web()
        for number in range(len(_SHAPES)):
            body = {"source": "upload", "title": str(number), "size_bytes": 1000}
            status, said = await house.api("POST", "/api/clips", json=body, headers=BEARER)
            assert status in (502, 503), said
            expect_none(json.dumps(said), "the answer to an upload")
        await house.rows.executemany(
            "INSERT INTO clips (id, cloudflare_uid) VALUES ($1, $1)", [(f"c{n}",) for n in range(len(_SHAPES))]
        )
        await house.rows.execute(
            "INSERT INTO clips (id, source_url) VALUES ('from', $1)", f"https://e.org/x?t={SOURCE_TOKEN}"
        )
        await house.rows.execute(
            "UPDATE clips SET status = 'mp4downloading', progress = 85, mp4_url = $1 WHERE id = 'c0'",
            f"{address}/x.mp4?token={SOURCE_TOKEN}",
        )
        # A refused token would let the monitor wait for a person; the web process has met those.
        del shapes[1:3]
        house.start("monitor")
        async with asyncio.timeout(60):
            while len(heard) < len(_SHAPES) + 5:
                await asyncio.sleep(0.1)
        assert any(API_TOKEN in each for each in heard), "the provider was not told the token"
        await house.rows.execute("UPDATE clips SET mp4_url = NULL, look_at = now() WHERE id = 'c0'")
        searched = await _tables(house)
        searched += sum(expect_none(log.read_bytes(), log.name) for log in house.directory.glob("*.log"))
    figures.tell(KiB_quoted_back=searched // 1024)


def _quote(request: web.Request) -> str:
    return f"{request.headers.get('Authorization', '')}: bad call to {request.url} with {dict(request.headers)}"


_SHAPES = (
    lambda said: web.json_response({"success": False, "errors": [{"code": 10005, "message": said}]}, status=400),
    lambda said: web.json_response({"success": False, "errors": [{"code": 10000, "message": said}]}, status=403),
    lambda said: web.json_response({"success": False, "errors": [{"code": 9109, "message": said}]}, status=401),
    lambda said: web.json_response({"success": False, "errors": [], "messages": [said], "result": said}, status=200),
    lambda said: web.json_response({"success": False, "errors": [{"code": said, "message": [said]}]}, status=500),
    lambda said: web.Response(text=f"<html>{said}</html>", status=503, content_type="text/html"),
    lambda said: web.Response(text=said, status=409),
    lambda said: web.Response(text=f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>", status=403),
    lambda said: web.json_response({"success": False, "errors": [{"code": 10013, "message": said}]}, status=413),
)  # fmt: skip


@asynccontextmanager
async def _echo(shapes: list[Any]) -> AsyncIterator[tuple[str, list[str]]]:
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        said = _quote(request)
        heard.append(said)
        return shapes[len(heard) % len(shapes)](said)

    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_route("*", "/{anything:.*}", answer)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", heard
    finally:
        await runner.cleanup()


async def test_calls_full_of_secrets_are_refused_without_repeating_them(told: House, figures: Figures) -> None:
    """Every canary in every part of a call, well formed and not: no answer and no log line has it."""
    house = told
    await house.start_web()
    searched = 0
    for canary in CANARIES.values():
        for raw in _calls_with(canary, f"127.0.0.1:{house.port}"):
            try:
                reply = await once("127.0.0.1", house.port, raw)
            except ConnectionError:
                continue
            # What a caller sends of its own may be shown to it again where it helps; secrets of ours it cannot know.
            if canary in (OPERATOR, WEBHOOK, API_TOKEN, PASSWORD):
                headers = [header for header in reply.headers if header[0] != "set-cookie"]  # the caller's own session
                searched += expect_none(str(headers).encode(), "headers")
    searched += sum(expect_none(log.read_bytes(), log.name) for log in house.directory.glob("*.log"))
    searched += await _tables(house)
    figures.tell(KiB_said_to_calls_with_secrets=searched // 1024)


def _calls_with(secret: str, host: str) -> Iterable[bytes]:
    form = (("Content-Type", "application/x-www-form-urlencoded"), ("Sec-Fetch-Site", "same-origin"))
    bearer, wrong = ("Authorization", f"Bearer {secret}"), ("Authorization", f"Basic {secret}")
    for route in ROUTES:
        target = route.template.replace("{id}", "nope").replace("{version}", "x").replace("{name}", "x")
        if target == "/api/events":
            continue
        yield request_bytes(
            route.method, f"{target}?token={secret}", host, [wrong], b"{" if route.method != "GET" else None
        )
    yield request_bytes("POST", "/sign-in", host, form, f"token={secret}".encode())
    yield request_bytes("POST", "/sign-in", host, form, f"token={secret}x&next=/{secret}".encode())
    yield request_bytes(
        "POST", "/webhooks/cloudflare", host, [("Webhook-Signature", f"time=1,sig1={secret}")], secret.encode()
    )
    yield request_bytes("POST", "/webhooks/cloudflare", host, [("Webhook-Signature", f"{secret}\0")], b"{}")
    yield request_bytes("GET", "/api/clips", host, [("Cookie", f"orchestrator_session={secret}")])
    yield request_bytes("GET", "/api/clips", host, [bearer, ("Authorization", "Bearer\0")])
    yield request_bytes("GET", f"/{secret}\x7f", host, [bearer])
    yield request_bytes(f"GE{secret}T", "/", host, [bearer])
    yield request_bytes(
        "POST", "/api/clips", host, [bearer, ("Content-Type", "application/json")], f'{{"{secret}": '.encode()
    )
    yield request_bytes("GET", "/", host, [bearer, ("Content-Length", f"{secret}")])
    yield request_bytes("GET", "/", host, [bearer, ("Transfer-Encoding", secret)])
    yield f"GET / HTTP/9.9 {secret}\r\n\r\n".encode()
    body = json.dumps({"source": "url", "url": f"https://u:{secret}@e.org/ x"}).encode()
    yield request_bytes("POST", "/api/clips", host, [bearer, ("Content-Type", "application/json")], body)


COMMANDS = (
    ["serve"], ["monitor"], ["migrate"], ["doctor"], ["clips", "ls"], ["clips", "show", "x"], ["webhook", "register"],
)  # fmt: skip


async def test_commands_that_cannot_work_say_why_without_a_secret(told: House, figures: Figures) -> None:
    house = told
    away = f"postgresql://operator:{PASSWORD}@127.0.0.1:{free_port()}/clips"
    wrong: list[dict[str, str]] = [
        {"DATABASE_URL": away},
        {"DATABASE_URL": f"postgresql://operator:{PASSWORD}@[::1/clips"},
        {"DATABASE_URL": f"mysql://operator:{PASSWORD}@h/clips"},
        {"DATABASE_URL": f"postgresql://operator:{PASSWORD}@h:notaport/clips"},
        {"DATABASE_URL": f"postgresql://operator@127.0.0.1:1/clips?password={PASSWORD}&sslmode={PASSWORD}"},
        {"CLOUDFLARE_API_TOKEN": f"{API_TOKEN}\n", "R2_SECRET_ACCESS_KEY": f"{CANARIES['bucket secret']} x"},
        {"CLOUDFLARE_API_URL": f"https://u:{API_TOKEN}@api.cloudflare.com/client/v4"},
        {"CLOUDFLARE_API_URL": f"http://127.0.0.1:{free_port()}/client/v4", "R2_ENDPOINT_URL": "http://127.0.0.1:1"},
        {"PUBLIC_BASE_URL": f"https://e.org/?token={SOURCE_TOKEN}", "PORT": "99999"},
        {"API_TOKENS": f"{OPERATOR},short", "HOST": "0.0.0.0"},  # noqa: S104  (refused, not bound)
        {"PORT": str(house.port), "DATABASE_URL": away, "LOG_JSON": "true"},
    ]
    gate, searched = asyncio.Semaphore(2), 0

    async def run(changes: dict[str, str], command: list[str]) -> int:
        async with gate:
            done = await asyncio.to_thread(_run, {**house.environment, **changes}, command)
        # Where nothing that a command needs is wrong, it works, or serves until it is stopped.
        return expect_none(done, f"{command} with {sorted(changes)}")

    # Each fault with one process, each command with a database that is away.
    pairs = [(changes, ["serve"]) for changes in wrong] + [(wrong[0], command) for command in COMMANDS]
    pairs += [(wrong[7], ["doctor"]), (wrong[7], ["webhook", "register", "https://e.org/hook"])]
    searched = sum(await asyncio.gather(*(run(*pair) for pair in pairs)))
    assert searched > 0
    figures.tell(commands_that_could_not_work=len(pairs))


def _run(environment: dict[str, str], command: list[str]) -> bytes:
    arguments = [sys.executable, "-m", "orchestrator", *command]
    try:
        done = subprocess.run(arguments, env=environment, capture_output=True, check=False, timeout=12, cwd="/")
    except subprocess.TimeoutExpired as still:
        return (still.stdout or b"") + (still.stderr or b"")
    return done.stdout + done.stderr


async def test_an_exception_nobody_expected_is_logged_without_a_secret(told: House) -> None:
    """The outermost edge logs a traceback; a database whose errors quote rows is the worst it can meet."""
    house = told
    await house.start_web()
    await house.rows.execute(
        "CREATE FUNCTION quote_everything() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'row %', NEW USING DETAIL = NEW.source_url, ERRCODE = 'data_exception'; END $$;"
        " CREATE TRIGGER a_first BEFORE INSERT ON clips FOR EACH ROW EXECUTE FUNCTION quote_everything()"
    )
    body = {"source": "url", "url": f"https://e.org/x.mp4?t={SOURCE_TOKEN}"}
    status, said = await house.api("POST", "/api/clips", json=body, headers=BEARER)
    assert status == 500
    expect_none(json.dumps(said), "the answer")
    for log in house.directory.glob("*.log"):
        expect_none(log.read_bytes(), log.name)


def test_no_lane_has_written_a_secret(lane_directory: Path, figures: Figures) -> None:
    """Everything under build/lanes: outputs, logs, figures, and what the stand-ins have kept of us."""
    root = lane_directory.parent if lane_directory.parent.name == "lanes" else lane_directory
    paths = [path for path in root.rglob("*") if path.name not in THEIRS]
    hits, files, size = search_files(paths, CANARIES)
    # The provider is told where to fetch from, and keeps it: that is no leak.
    hits = [hit for hit in hits if not (hit.what == "source address" and "/stream/" in hit.place)]
    figures.tell(files_searched=files, MiB_searched=size // 1024**2, secrets_found=len(hits))
    assert hits == []
