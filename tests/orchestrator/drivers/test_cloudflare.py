"""The calls to Stream: what is sent, what is made of every answer, and how often it is tried."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from orchestrator.drivers.budget import BudgetSettings, CallClass, SharedCallBudget
from orchestrator.drivers.cloudflare import LIST_IDS_MAX, CloudflareSettings, CloudflareStream
from orchestrator.drivers.cloudflare_models import DirectUpload, Download, DownloadState, Video, VideoState
from orchestrator.drivers.errors import DriverError, PermanentError, TransientError
from orchestrator.drivers.fencing import Fence, fenced

TOKEN = "canary-0123456789-token"
UID = "6b9e68b07dfee8cc2d116e4c51d6a957"
OTHER_UID = "ea95132c15732412d22c1476fa83f27a"
SIGNED_URL = "https://bucket.example/x.mp4?X-Amz-Signature=canary-signature"
HOOK_URL = "https://clips.example/webhooks/cloudflare"
EXPIRY = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RecordingBudget:
    """A budget that grants everything and keeps what it was told."""

    def __init__(self) -> None:
        self.taken: list[CallClass] = []
        self.learned: list[tuple[int, dict[str, str]]] = []

    async def take(self, klass: CallClass, n: int = 1) -> None:
        self.taken.extend([klass] * n)

    async def learn(self, status: int, headers: Any) -> None:
        self.learned.append((status, dict(headers)))

    @property
    def blocks(self) -> int:
        return sum(status == 429 for status, _ in self.learned)


@dataclass
class Sent:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Script:
    """A server that answers as it is told, and keeps what it was asked."""

    answers: list[Handler] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    budget: RecordingBudget = field(default_factory=RecordingBudget)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.sent.append(Sent(request.method, request.path, dict(request.query), request.headers, body))
        # The last answer is given from then on.
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    @asynccontextmanager
    async def stream(self, **options: Any) -> AsyncIterator[CloudflareStream]:
        """A driver that talks to this server; pauses are as good as none."""
        settings = CloudflareSettings("acc", TOKEN, f"{self.url}/client/v4", first_pause_seconds=0.001)
        stream = CloudflareStream(replace(settings, **options), self.budget, clock=lambda: 1_000_000.9)
        try:
            yield stream
        finally:
            await stream.close()


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    told = Script()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", told.handle)
    async with TestServer(app) as server:
        told.url = str(server.make_url("")).rstrip("/")
        yield told


# --- Answers -----------------------------------------------------------------------------------------


def envelope(result: Any, status: int = 200, headers: dict[str, str] | None = None, **beside: Any) -> Handler:
    body = {"result": result, "success": True, "errors": [], "messages": [], **beside}
    return raw(json.dumps(body).encode(), status, headers)


def refusal(
    status: int, code: int = 1000, message: str = "No", headers: dict[str, str] | None = None, **beside: Any
) -> Handler:
    errors = [{"code": code, "message": message}]
    body = {"result": None, "success": False, "errors": errors, "messages": [], **beside}
    return raw(json.dumps(body).encode(), status, headers)


def raw(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None, content_type: str = "application/json"
) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": content_type, **(headers or {})})

    return answer


async def never(_: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


async def slow_drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"result":')
    assert request.transport is not None
    request.transport.abort()
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


# --- The calls ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One method of the driver, and what holds for it."""

    name: str
    run: Callable[[CloudflareStream], Awaitable[Any]]
    good: Handler
    call_class: CallClass
    repeatable: bool = True
    creates: bool = False
    # What a 404 of the API gives; ... where it is a failure.
    missing: Any = ...
    # What an empty 200 gives; ... where it is a failure.
    empty: Any = ...

    def __str__(self) -> str:
        return self.name


VIDEO = {
    "uid": UID,
    "creator": "mark",
    "status": {"state": "ready", "pctComplete": "100.000000"},
    "readyToStream": True,
}
WEBHOOK = {"notificationUrl": HOOK_URL, "modified": "2026-01-02T03:04:05Z", "secret": "canary-secret"}
DIRECT = {"uid": UID, "uploadURL": "https://upload.example/canary-one-time"}
TUS_HEADERS = {"Location": "https://upload.example/tus/canary-one-time?tusv2=true", "stream-media-id": UID}
MP4 = {"default": {"status": "inprogress", "url": "https://c.example/d.mp4", "percentComplete": 12.0}}

CALLS = [
    Call(
        "create_direct_upload",
        lambda stream: stream.create_direct_upload(600, "mark", {"name": "x"}, EXPIRY),
        envelope(DIRECT),
        CallClass.PERSON,
        repeatable=False,
        creates=True,
    ),
    Call(
        "create_tus_upload",
        lambda stream: stream.create_tus_upload(1000, 600, "mark", "x", EXPIRY),
        raw(b"", 201, TUS_HEADERS),
        CallClass.PERSON,
        repeatable=False,
        creates=True,
    ),
    Call(
        "copy_from_url",
        lambda stream: stream.copy_from_url(SIGNED_URL, "mark", {"name": "x"}),
        envelope({**VIDEO, "status": {"state": "downloading"}}),
        CallClass.PERSON,
        repeatable=False,
        creates=True,
    ),
    Call("list_by_ids", lambda stream: stream.list_by_ids([UID]), envelope([VIDEO]), CallClass.PROGRESS),
    Call(
        "list_in_states",
        lambda stream: stream.list_in_states([VideoState.READY]),
        envelope([VIDEO], total="1"),
        CallClass.RECONCILE,
    ),
    Call("find_by_creator", lambda stream: stream.find_by_creator("mark"), envelope([VIDEO]), CallClass.PROGRESS),
    Call("get", lambda stream: stream.get(UID), envelope(VIDEO), CallClass.PROGRESS, missing=None),
    Call("delete", lambda stream: stream.delete(UID), raw(b""), CallClass.PROGRESS, missing=None, empty=None),
    Call(
        "get_downloads",
        lambda stream: stream.get_downloads(UID),
        envelope(MP4),
        CallClass.PROGRESS,
        missing=Download(DownloadState.ABSENT),
    ),
    Call(
        "enable_download",
        lambda stream: stream.enable_download(UID),
        envelope(MP4),
        CallClass.PROGRESS,
        repeatable=False,
    ),
    Call(
        "reset_download",
        lambda stream: stream.reset_download(UID),
        envelope(""),
        CallClass.PROGRESS,
        missing=None,
        empty=None,
    ),
    Call(
        "create_token",
        lambda stream: stream.create_token(UID),
        envelope({"token": "a.b.c"}),
        CallClass.PROGRESS,
        repeatable=False,
    ),
    Call("get_webhook", lambda stream: stream.get_webhook(), envelope(WEBHOOK), CallClass.PERSON, missing=None),
    Call("put_webhook", lambda stream: stream.put_webhook(HOOK_URL), envelope(WEBHOOK), CallClass.PERSON),
    Call(
        "storage_usage",
        lambda stream: stream.storage_usage(),
        envelope({"totalStorageMinutes": 1, "totalStorageMinutesLimit": "2", "videoCount": 3}),
        CallClass.RECONCILE,
    ),
]
every_call = pytest.mark.parametrize("call", CALLS, ids=str)
THROTTLED = "Please wait and consider throttling your request speed."


async def failure(script: Script, call: Call, **options: Any) -> DriverError:
    async with script.stream(**options) as stream:
        with pytest.raises(DriverError) as failed:
            await call.run(stream)
    return failed.value


def assert_no_answer(script: Script, call: Call, failed: DriverError, code: str = "provider_unavailable") -> None:
    """What creates was sent once and its outcome is open; what is safe to repeat was tried three times."""
    assert isinstance(failed, TransientError)
    assert failed.code == ("outcome_unknown" if call.creates else code)
    assert len(script.sent) == (3 if call.repeatable else 1)
    assert len(script.budget.taken) == len(script.sent)
    assert script.budget.blocks == 0


@every_call
async def test_a_good_answer_is_taken_from_one_counted_call(script: Script, call: Call) -> None:
    script.answers = [call.good]
    async with script.stream() as stream:
        await call.run(stream)
    assert len(script.sent) == 1
    assert script.budget.taken == [call.call_class]
    assert [status for status, _ in script.budget.learned] == [201 if call.name == "create_tus_upload" else 200]
    assert script.sent[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert script.sent[0].path.startswith("/client/v4/accounts/acc/stream")


@every_call
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 300),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "99999999999"}, 3600),
        ({"Retry-After": "Fri, 02 Jan 2026 03:06:00 GMT", "Date": "Fri, 02 Jan 2026 03:04:00 GMT"}, 120),
        ({"Retry-After": "later"}, 300),
    ],
    ids=["without", "with", "huge", "date", "unreadable"],
)
async def test_429_is_sent_once_and_told_to_the_budget(
    script: Script, call: Call, headers: dict[str, str], seconds: float
) -> None:
    script.answers = [refusal(429, 971, THROTTLED, headers)]
    failed = await failure(script, call)
    assert isinstance(failed, TransientError)
    assert (failed.code, failed.retry_after) == ("provider_rate_limit", seconds)
    assert len(script.sent) == 1
    assert script.budget.blocks == 1


@every_call
@pytest.mark.parametrize(
    "body", [b"", b"<html>slow down</html>", b"null", b"{}", b'{"success":false,"errors":null}'], ids=repr
)
async def test_429_counts_whatever_its_body_is(script: Script, call: Call, body: bytes) -> None:
    script.answers = [raw(body, 429)]
    assert (await failure(script, call)).code == "provider_rate_limit"
    assert script.budget.blocks == 1


@every_call
async def test_429_counts_even_if_its_body_breaks_off(script: Script, call: Call) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=429, headers={"Content-Length": "1000", "Retry-After": "60"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    script.answers = [broken]
    failed = await failure(script, call)
    assert isinstance(failed, TransientError)
    assert (failed.code, failed.retry_after) == ("provider_rate_limit", 60)
    assert script.budget.blocks == 1
    assert len(script.sent) == 1


async def test_429_counts_even_if_its_body_never_ends(script: Script) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=429)
        await response.prepare(request)
        await asyncio.sleep(3600)
        return response

    script.answers = [dripping]
    async with script.stream(total_timeout_seconds=1.0) as stream:
        with pytest.raises(TransientError) as failed:
            await stream.get(UID)
    assert failed.value.code == "provider_rate_limit"
    assert script.budget.blocks == 1


@every_call
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520, 524])
async def test_a_broken_server_is_asked_again_only_where_that_is_safe(script: Script, call: Call, status: int) -> None:
    script.answers = [refusal(status, message="Internal Error")]
    assert_no_answer(script, call, await failure(script, call))


@pytest.mark.parametrize("call", [call for call in CALLS if call.repeatable], ids=str)
async def test_a_server_that_mends_itself_costs_a_repeat(script: Script, call: Call) -> None:
    script.answers = [refusal(503), raw(b"<html>", 502), call.good]
    async with script.stream() as stream:
        await call.run(stream)
    assert len(script.sent) == 3


@every_call
async def test_a_server_that_asks_for_patience_is_left_to_the_caller(script: Script, call: Call) -> None:
    script.answers = [refusal(503, headers={"Retry-After": "60"})]
    failed = await failure(script, call)
    assert isinstance(failed, TransientError)
    assert failed.retry_after == 60
    assert len(script.sent) == 1


@every_call
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"success":false,"errors":[{"code":10000,"message":"Auth"}]}'], ids=repr
)
async def test_a_refused_token_is_for_a_person(script: Script, call: Call, status: int, body: bytes) -> None:
    script.answers = [raw(body, status)]
    failed = await failure(script, call)
    assert isinstance(failed, PermanentError)
    assert failed.code == "provider_refused_token"
    assert len(script.sent) == 1


@every_call
async def test_a_page_with_403_is_not_a_word_on_the_token(script: Script, call: Call) -> None:
    script.answers = [raw(b"<html>blocked", 403, content_type="text/html")]
    assert_no_answer(script, call, await failure(script, call))


@every_call
@pytest.mark.parametrize("status", [400, 200])
async def test_a_malformed_token_is_for_a_person(script: Script, call: Call, status: int) -> None:
    script.answers = [refusal(status, 10000, "Authentication error")]
    assert (await failure(script, call)).code == "provider_refused_token"


@every_call
@pytest.mark.parametrize("answer", [refusal(404, 10003, "Not Found"), refusal(200, 10003), raw(b"{}", 404)])
async def test_missing_is_an_answer_where_it_can_be_one(script: Script, call: Call, answer: Handler) -> None:
    script.answers = [answer]
    if call.missing is ...:
        failed = await failure(script, call)
        assert isinstance(failed, TransientError)
        assert failed.code == "not_found"
    else:
        async with script.stream() as stream:
            assert await call.run(stream) == call.missing
    assert [sent.method for sent in script.sent] in (["GET"], ["POST"], ["DELETE"], ["GET", "PUT"])


@every_call
@pytest.mark.parametrize("body", [b"", b"404: Not Found", b"<html>404"], ids=repr)
async def test_a_404_of_something_on_the_way_says_nothing_about_the_video(
    script: Script, call: Call, body: bytes
) -> None:
    script.answers = [raw(body, 404, content_type="text/plain")]
    assert_no_answer(script, call, await failure(script, call))


@every_call
async def test_a_wrong_account_does_not_make_every_video_missing(script: Script, call: Call) -> None:
    script.answers = [refusal(404, 7003, "Could not route to /accounts/acc/stream")]
    failed = await failure(script, call)
    assert isinstance(failed, PermanentError)
    assert failed.code == "provider_address_wrong"


@every_call
@pytest.mark.parametrize("answer", [never, slow_drip], ids=["never", "slow drip"])
async def test_an_answer_that_does_not_come_is_given_up(script: Script, call: Call, answer: Handler) -> None:
    script.answers = [answer]
    failed = await failure(script, call, total_timeout_seconds=0.1)
    assert_no_answer(script, call, failed, "provider_timeout")


@every_call
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw(b"<html>We will be back</html>", content_type="text/html"), id="a page"),
        pytest.param(raw(b"<html>Moved</html>", 302, {"Location": "/elsewhere"}, "text/html"), id="a redirect"),
        pytest.param(refusal(302, headers={"Location": "/elsewhere"}), id="a redirect of the API"),
        pytest.param(cut_off, id="cut off"),
    ],
)
async def test_what_is_not_an_answer_of_the_api_is_none(script: Script, call: Call, answer: Handler) -> None:
    script.answers = [answer]
    assert_no_answer(script, call, await failure(script, call))
    assert all("elsewhere" not in sent.path for sent in script.sent)


@every_call
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"result": {"uid"',
        b'{"result":null,"succ',
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"result":{}}',
        b'{"success":"true"}',
        b'{"success":null,"errors":{}}',
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_half_an_answer_is_none(script: Script, call: Call, body: bytes) -> None:
    script.answers = [raw(body)]
    if call.empty is None:
        # A deletion has nothing to say but its status.
        async with script.stream() as stream:
            assert await call.run(stream) is None
    else:
        failed = await failure(script, call)
        assert isinstance(failed, TransientError)
        assert failed.code == ("outcome_unknown" if call.creates else "provider_unavailable")
        assert call.repeatable or len(script.sent) == 1


@every_call
@pytest.mark.parametrize(
    "result", [None, 5, "x", True, [], [[]], {}, {"uid": 5}, {"token": {}}, [None, 1, {}]], ids=repr
)
async def test_a_result_of_the_wrong_kind_breaks_nothing(script: Script, call: Call, result: Any) -> None:
    script.answers = [envelope(result)]
    code = None
    async with script.stream() as stream:
        try:
            found = await call.run(stream)
        except TransientError as failed:
            found, code = None, failed.code
    assert not isinstance(found, Video | DirectUpload | str)
    assert code in (None, "outcome_unknown" if call.creates else "provider_unavailable")
    assert call.repeatable or len(script.sent) == 1


@every_call
async def test_success_false_is_no_success_whatever_the_status(script: Script, call: Call) -> None:
    script.answers = [refusal(200, 1234, "Something")]
    failed = await failure(script, call)
    assert isinstance(failed, TransientError)
    expected = {True: "outcome_unknown", False: "provider_unavailable"}[call.creates]
    assert failed.code == ("not_ready" if call.name == "enable_download" else expected)
    assert call.repeatable or len(script.sent) == 1


@pytest.mark.parametrize("call", [call for call in CALLS if call.name != "enable_download"], ids=str)
async def test_any_other_refusal_is_for_good_and_says_why(script: Script, call: Call) -> None:
    script.answers = [refusal(400, 10005, "Bad Request")]
    failed = await failure(script, call)
    assert isinstance(failed, PermanentError)
    assert failed.code == "provider_refused"
    assert "10005 Bad Request" in failed.text
    assert len(script.sent) == 1


@every_call
async def test_a_connection_that_breaks_after_the_question_leaves_the_outcome_open(script: Script, call: Call) -> None:
    script.answers = [hang_up]
    assert_no_answer(script, call, await failure(script, call))


@every_call
async def test_what_was_never_sent_is_no_open_outcome(script: Script, call: Call, unused_tcp_port: int) -> None:
    script.answers = [call.good]
    failed = await failure(script, call, api_url=f"http://127.0.0.1:{unused_tcp_port}")
    assert isinstance(failed, TransientError)
    assert failed.code == "provider_unavailable"
    assert len(script.budget.taken) == (3 if call.repeatable else 1)


@every_call
async def test_an_answer_without_end_is_not_kept(script: Script, call: Call) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 1_000_000)

    script.answers = [endless]
    assert_no_answer(script, call, await failure(script, call))


@every_call
async def test_a_call_that_gets_no_place_in_the_budget_is_not_sent(script: Script, call: Call) -> None:
    class Spent(RecordingBudget):
        async def take(self, klass: CallClass, n: int = 1) -> None:
            raise TransientError("call_budget", "none left", retry_after=7)

    script.budget = Spent()
    failed = await failure(script, call)
    assert failed.code == "call_budget"
    assert script.sent == []


@every_call
async def test_cancelling_ends_the_call_at_once(script: Script, call: Call) -> None:
    arrived = asyncio.Event()

    async def wait_for_ever(_: web.Request) -> web.Response:
        arrived.set()
        return await never(_)

    script.answers = [wait_for_ever]
    async with script.stream() as stream:
        running = asyncio.ensure_future(call.run(stream))
        await asyncio.wait_for(arrived.wait(), 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 5)
    assert len(script.sent) == 1


# --- Secrets -----------------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, 10005, f"Invalid token {TOKEN} for {SIGNED_URL}"),
        refusal(401, 10000, f"Invalid token {TOKEN}"),
        refusal(500, 1000, f"Cannot fetch {SIGNED_URL}"),
        raw(TOKEN.encode() + b"<html>", 502),
        hang_up,
        cut_off,
    ],
    ids=["400", "401", "500", "502", "hang up", "cut off"],
)
async def test_no_secret_gets_into_an_error_or_a_log(
    script: Script, call: Call, answer: Handler, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    script.answers = [answer]
    failed = await failure(script, call)
    shown = "".join(traceback.format_exception(failed)) + repr(_chain(failed)) + repr(vars(failed))
    shown += "".join(capsys.readouterr()) + caplog.text
    assert "canary" not in shown


def _chain(error: BaseException | None) -> list[Any]:
    found: list[Any] = []
    while error is not None:
        found += [error, error.args, {key: str(value) for key, value in vars(error).items()}]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def test_settings_and_values_do_not_print_their_secrets() -> None:
    assert "canary" not in repr(CloudflareSettings("acc", TOKEN))
    assert "canary" not in repr(DirectUpload(UID, "https://upload.example/canary"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"account_id": ""},
        {"account_id": "../x"},
        {"api_token": ""},
        {"api_token": "a b"},
        {"api_token": "a\r\nX: y"},
        {"api_url": "ftp://x"},
        {"api_url": "api.cloudflare.com"},
        {"api_url": "https://user@x"},
        {"api_url": "https://x?y"},
    ],
    ids=repr,
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="the "):
        replace(CloudflareSettings("acc", TOKEN), **wrong)  # type: ignore[arg-type]


async def test_the_environment_names_no_proxy(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    script.answers = [envelope(VIDEO)]
    async with script.stream() as stream:
        assert await stream.get(UID) is not None


async def test_cookies_are_not_kept(script: Script) -> None:
    # By name: cookies of bare addresses are dropped anyway.
    script.url = script.url.replace("127.0.0.1", "localhost")
    script.answers = [envelope(VIDEO, headers={"Set-Cookie": "a=b; Path=/"})]
    async with script.stream() as stream:
        await stream.get(UID)
        await stream.get(UID)
    assert "Cookie" not in script.sent[1].headers


# --- Making videos -----------------------------------------------------------------------------------


async def test_a_direct_upload_asks_for_an_address_and_hands_it_on(script: Script) -> None:
    script.answers = [envelope(DIRECT)]
    async with script.stream() as stream:
        upload = await stream.create_direct_upload(600, "clip.1", {"name": "Ä \x00"}, EXPIRY)
    assert (upload.uid, upload.upload_url, upload.expires_at) == (UID, DIRECT["uploadURL"], EXPIRY)
    sent = script.sent[0]
    assert (sent.method, sent.path) == ("POST", "/client/v4/accounts/acc/stream/direct_upload")
    assert sent.json == {
        "maxDurationSeconds": 600,
        "creator": "clip.1",
        "meta": {"name": "Ä \x00"},
        "expiry": "2026-01-02T03:04:05Z",
    }


async def test_a_tus_upload_is_announced_in_headers(script: Script) -> None:
    script.answers = [raw(b"", 201, TUS_HEADERS)]
    async with script.stream() as stream:
        upload = await stream.create_tus_upload(123_456, 600, "clip.1", "Ä, b c", EXPIRY)
    assert (upload.uid, upload.upload_url, upload.expires_at) == (UID, TUS_HEADERS["Location"], EXPIRY)
    sent = script.sent[0]
    assert (sent.method, sent.path, sent.query) == (
        "POST",
        "/client/v4/accounts/acc/stream",
        {"direct_user": "true"},
    )
    assert sent.body == b""
    assert sent.headers["Tus-Resumable"] == "1.0.0"
    assert sent.headers["Upload-Length"] == "123456"
    assert sent.headers["Upload-Creator"] == "clip.1"
    pairs = dict(pair.split(" ") for pair in sent.headers["Upload-Metadata"].split(","))
    assert pairs["maxDurationSeconds"] == "NjAw"
    assert {key: base64.b64decode(value, validate=True).decode() for key, value in pairs.items()} == {
        "name": "Ä, b c",
        "maxDurationSeconds": "600",
        "expiry": "2026-01-02T03:04:05Z",
    }


async def test_an_upload_without_a_name_sends_no_flag_in_its_place(script: Script) -> None:
    script.answers = [raw(b"", 201, TUS_HEADERS)]
    async with script.stream() as stream:
        await stream.create_tus_upload(1, 600, "mark", "")
    assert script.sent[0].headers["Upload-Metadata"] == "maxDurationSeconds NjAw"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Location": TUS_HEADERS["Location"]},
        {"stream-media-id": UID},
        {**TUS_HEADERS, "stream-media-id": "../x"},
        {**TUS_HEADERS, "Location": "javascript:alert(1)"},
        {**TUS_HEADERS, "Location": ""},
    ],
    ids=repr,
)
async def test_a_tus_answer_without_its_headers_leaves_the_outcome_open(
    script: Script, headers: dict[str, str]
) -> None:
    script.answers = [raw(b"", 201, headers)]
    async with script.stream() as stream:
        with pytest.raises(TransientError) as failed:
            await stream.create_tus_upload(1000, 600, "mark", "x")
    assert failed.value.code == "outcome_unknown"
    assert len(script.sent) == 1


async def test_a_relative_tus_address_is_completed(script: Script) -> None:
    script.answers = [raw(b"", 201, {**TUS_HEADERS, "Location": "/tus/1?x=y"})]
    async with script.stream() as stream:
        upload = await stream.create_tus_upload(1000, 600, "mark", "x")
    assert upload.upload_url == f"{script.url}/tus/1?x=y"


async def test_nothing_is_changed_for_whoever_may_not_any_more(script: Script) -> None:
    """A look may be late; a change may not: another one may have taken over while this one waited for its call."""

    def over() -> None:
        assert script.budget.taken, "the last question comes after the wait for the budget"
        raise LookupError("the term is over")

    async with script.stream() as stream:
        with fenced(Fence(over)):
            for change in (
                stream.copy_from_url(SIGNED_URL, "clip.1", {}),
                stream.enable_download(UID),
                stream.reset_download(UID),
                stream.delete(UID),
            ):
                with pytest.raises(LookupError):
                    await change
            assert script.sent == []
            script.answers = [envelope({"uid": UID, "status": {"state": "ready"}})]
            assert await stream.get(UID) is not None


async def test_whoever_asked_for_a_change_can_see_that_it_is_on_its_way(script: Script) -> None:
    fence, seen = Fence(lambda: None), list[tuple[str, bool]]()

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, fence.is_passed))
        return await envelope({"uid": UID, "status": {"state": "ready"}})(request)

    script.answers = [answer]
    async with script.stream() as stream:
        with fenced(fence):
            await stream.get(UID)
            await stream.delete(UID)
    assert seen == [("GET", False), ("DELETE", True)]
    assert not fence.is_passed


async def test_a_copy_names_its_source_and_its_mark(script: Script) -> None:
    script.answers = [envelope({"uid": UID, "status": {"state": "downloading"}})]
    async with script.stream() as stream:
        video = await stream.copy_from_url(SIGNED_URL, "clip.1", {"clip_id": "clip"})
    assert (video.uid, video.state) == (UID, VideoState.DOWNLOADING)
    sent = script.sent[0]
    assert (sent.method, sent.path) == ("POST", "/client/v4/accounts/acc/stream/copy")
    assert sent.json == {"input": SIGNED_URL, "creator": "clip.1", "meta": {"clip_id": "clip"}}


@pytest.mark.parametrize("creator", ["", "x" * 65, "a b", "a\r\nX: y", "ä"], ids=repr)
async def test_a_mark_that_cannot_travel_is_refused_before_anything_is_sent(script: Script, creator: str) -> None:
    async with script.stream() as stream:
        for call in (
            stream.create_direct_upload(600, creator, {}),
            stream.create_tus_upload(1000, 600, creator, "x"),
            stream.copy_from_url(SIGNED_URL, creator, {}),
            stream.find_by_creator(creator),
        ):
            with pytest.raises(PermanentError) as refused:
                await call
            assert refused.value.code == "invalid_argument"
    assert script.sent == []
    assert script.budget.taken == []


@pytest.mark.parametrize("seconds", [0, -1, 36_001])
async def test_a_duration_the_provider_never_takes_is_refused_here(script: Script, seconds: int) -> None:
    async with script.stream() as stream:
        for call in (
            stream.create_direct_upload(seconds, "mark", {}),
            stream.create_tus_upload(1000, seconds, "mark", "x"),
        ):
            with pytest.raises(PermanentError):
                await call
    assert script.sent == []


@pytest.mark.parametrize("size_bytes", [0, -1, 30_000_000_001])
async def test_a_size_the_provider_never_takes_is_refused_here(script: Script, size_bytes: int) -> None:
    async with script.stream() as stream:
        with pytest.raises(PermanentError) as refused:
            await stream.create_tus_upload(size_bytes, 600, "mark", "x")
    assert refused.value.code == "too_large"
    assert script.sent == []


creating = pytest.mark.parametrize("call", [call for call in CALLS if call.creates], ids=str)


@creating
@pytest.mark.parametrize(
    "message",
    [
        "Too many videos are queued or being encoded; try again later.",
        "You have reached the maximum number of in progress uploads",
    ],
)
@pytest.mark.parametrize(
    ("headers", "seconds"), [({}, 120), ({"Retry-After": "600"}, 600), ({"Retry-After": "1"}, 120)]
)
async def test_too_many_videos_in_flight_is_not_the_rate_limit(
    script: Script, call: Call, message: str, headers: dict[str, str], seconds: float
) -> None:
    script.answers = [refusal(429, 1000, message, headers)]
    failed = await failure(script, call)
    assert isinstance(failed, TransientError)
    assert (failed.code, failed.retry_after) == ("provider_busy", seconds)
    assert script.budget.blocks == 0
    assert len(script.sent) == 1


@creating
@pytest.mark.parametrize("status", [413, 429])
async def test_used_up_storage_is_for_a_person(script: Script, call: Call, status: int) -> None:
    script.answers = [refusal(status, 1000, "Storage capacity exceeded: buy minutes or delete videos.")]
    failed = await failure(script, call)
    assert isinstance(failed, PermanentError)
    assert failed.code == "storage_quota"
    assert script.budget.blocks == 0


@creating
async def test_a_file_that_is_too_large_is_for_a_person(script: Script, call: Call) -> None:
    script.answers = [refusal(413, 1000, "The file is too large.")]
    assert (await failure(script, call)).code == "too_large"


@creating
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (971, "Too many videos"),
        (1000, "Rate limited. Please wait."),
        (1000, "Too many requests to the upload service"),
        (1000, "You exceeded 1200 requests per 5 minutes"),
    ],
)
async def test_a_429_about_requests_is_the_rate_limit(script: Script, call: Call, code: int, message: str) -> None:
    script.answers = [refusal(429, code, message)]
    assert (await failure(script, call)).code == "provider_rate_limit"
    assert script.budget.blocks == 1


async def test_words_about_videos_do_not_excuse_a_429_of_a_reading_call(script: Script) -> None:
    script.answers = [refusal(429, 1000, "Too many videos are queued")]
    async with script.stream() as stream:
        with pytest.raises(TransientError) as failed:
            await stream.get(UID)
    assert failed.value.code == "provider_rate_limit"
    assert script.budget.blocks == 1


# --- Looking -----------------------------------------------------------------------------------------


async def test_many_videos_take_one_call_for_every_fifty(script: Script) -> None:
    async def listed(request: web.Request) -> web.StreamResponse:
        uids = request.query["id"].split(",")
        return await envelope([{"uid": uid, "status": {"state": "queued"}} for uid in uids])(request)

    script.answers = [listed]
    wanted = [f"{number:032x}" for number in range(120)]
    async with script.stream() as stream:
        found = await stream.list_by_ids([*wanted, *wanted])
    assert sorted(found) == wanted
    assert [len(sent.query["id"].split(",")) for sent in script.sent] == [LIST_IDS_MAX, LIST_IDS_MAX, 20]
    assert len(script.budget.taken) == 3


async def test_nothing_to_look_at_costs_no_call(script: Script) -> None:
    async with script.stream() as stream:
        assert await stream.list_by_ids([]) == {}
        assert await stream.list_by_ids(["", "a/b", "x" * 65]) == {}
    assert script.sent == []


async def test_a_list_that_knows_no_filter_yields_only_what_was_wanted(script: Script) -> None:
    script.answers = [envelope([{"uid": OTHER_UID}, {"uid": UID}, {"uid": "f" * 32}])]
    async with script.stream() as stream:
        assert list(await stream.list_by_ids([UID, "0" * 32])) == [UID]


async def test_one_odd_row_does_not_cost_the_others(script: Script) -> None:
    rows = [None, 5, {}, {"uid": ["x"]}, {"uid": OTHER_UID, "status": "queued", "duration": {}}, {"id": UID}]
    script.answers = [envelope(rows)]
    async with script.stream() as stream:
        found = await stream.list_by_ids([UID, OTHER_UID])
    assert set(found) == {UID, OTHER_UID}
    assert found[OTHER_UID].state is VideoState.QUEUED


async def test_states_are_asked_for_together_and_counted(script: Script) -> None:
    rows = [{"uid": UID, "status": {"state": "queued"}}, {"uid": OTHER_UID, "status": {"state": "ready"}}]
    script.answers = [envelope(rows, total="1234", range="2")]
    async with script.stream() as stream:
        page = await stream.list_in_states([VideoState.QUEUED, VideoState.IN_PROGRESS], before=EXPIRY, limit=5000)
    assert [video.uid for video in page.videos] == [UID]
    assert page.total == 1234
    assert script.sent[0].query == {
        "status": "queued,inprogress",
        "limit": "1000",
        "include_counts": "true",
        "before": "2026-01-02T03:04:05.678900Z",
    }


async def test_the_first_video_under_a_mark_is_found(script: Script) -> None:
    rows = [
        {"uid": "c" * 32, "creator": "mark", "created": "2026-01-02T00:00:03Z"},
        {"uid": UID, "creator": "mark", "created": "2026-01-02T00:00:01Z"},
        {"uid": OTHER_UID, "creator": "other", "created": "2026-01-01T00:00:00Z"},
        {"uid": "d" * 32, "creator": "mark"},
    ]
    script.answers = [envelope(rows), envelope([rows[2]])]
    async with script.stream() as stream:
        first = await stream.find_by_creator("mark")
        none = await stream.find_by_creator("mark")
    assert first is not None
    assert first.uid == UID
    assert none is None
    assert script.sent[0].query == {"creator": "mark"}


async def test_another_video_than_the_one_asked_for_is_no_answer(script: Script) -> None:
    script.answers = [envelope({**VIDEO, "uid": OTHER_UID})]
    async with script.stream() as stream:
        with pytest.raises(TransientError):
            await stream.get(UID)


@pytest.mark.parametrize("uid", ["", ".", "..", "../copy", "a/b", "a?b", "a b", "a%2e", "x" * 65, "ä", "a\n"], ids=repr)
async def test_what_cannot_be_a_uid_is_never_sent(script: Script, uid: str) -> None:
    async with script.stream() as stream:
        for method in (
            stream.get,
            stream.delete,
            stream.get_downloads,
            stream.enable_download,
            stream.reset_download,
            stream.create_token,
        ):
            with pytest.raises(PermanentError):
                await method(uid)
    assert script.sent == []


async def test_who_waits_is_the_callers_to_say(script: Script) -> None:
    script.answers = [envelope(VIDEO)]
    async with script.stream() as stream:
        await stream.get(UID, call_class=CallClass.PERSON)
    assert script.budget.taken == [CallClass.PERSON]


# --- MP4 and deletion --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 409, 422, 424])
async def test_an_mp4_before_its_time_is_refused_for_now(script: Script, status: int) -> None:
    script.answers = [refusal(status, 10005, "The video is not ready to stream.")]
    async with script.stream() as stream:
        with pytest.raises(TransientError) as failed:
            await stream.enable_download(UID)
    assert failed.value.code == ("provider_conflict" if status == 409 else "not_ready")
    assert len(script.sent) == 1


async def test_an_mp4_that_would_be_too_long_is_refused_for_good(script: Script) -> None:
    script.answers = [refusal(400, 10005, "The duration is too long to generate a download.")]
    async with script.stream() as stream:
        with pytest.raises(PermanentError) as failed:
            await stream.enable_download(UID)
    assert failed.value.code == "too_long"


async def test_an_accepted_mp4_is_being_made_whatever_the_answer_looks_like(script: Script) -> None:
    script.answers = [envelope({}), envelope({"status": "inprogress", "percentComplete": "3.5"}), envelope(MP4)]
    async with script.stream() as stream:
        assert await stream.enable_download(UID) == Download(DownloadState.IN_PROGRESS)
        assert await stream.enable_download(UID) == Download(DownloadState.IN_PROGRESS, 3.5)
        assert await stream.enable_download(UID) == Download(DownloadState.IN_PROGRESS, 12.0, "https://c.example/d.mp4")
    assert [(sent.method, sent.path, sent.json) for sent in script.sent] == [
        ("POST", f"/client/v4/accounts/acc/stream/{UID}/downloads", {})
    ] * 3


@pytest.mark.parametrize("result", [None, {}, [], {"audio": {"status": "ready"}}, {"default": None}], ids=repr)
async def test_no_mp4_has_many_spellings(script: Script, result: Any) -> None:
    script.answers = [envelope(result)]
    async with script.stream() as stream:
        assert await stream.get_downloads(UID) == Download(DownloadState.ABSENT)


async def test_a_running_broadcast_is_deleted_later(script: Script) -> None:
    script.answers = [refusal(409, 10046, "Live recording is in progress")]
    async with script.stream() as stream:
        with pytest.raises(TransientError) as failed:
            await stream.delete(UID)
    assert failed.value.code == "provider_conflict"
    assert len(script.sent) == 1


@pytest.mark.parametrize(
    "answer", [raw(b"", 204), raw(b""), envelope(""), envelope(None), raw(b'""'), raw(b"OK", content_type="text/plain")]
)
async def test_a_deletion_needs_no_words(script: Script, answer: Handler) -> None:
    script.answers = [answer]
    async with script.stream() as stream:
        await stream.delete(UID)
    assert (script.sent[0].method, script.sent[0].path) == ("DELETE", f"/client/v4/accounts/acc/stream/{UID}")


async def test_a_token_is_asked_for_with_its_end(script: Script) -> None:
    script.answers = [envelope({"token": "aaa.bbb-_.ccc"})]
    async with script.stream() as stream:
        assert await stream.create_token(UID, expires_in=timedelta(minutes=5)) == "aaa.bbb-_.ccc"
        await stream.create_token(UID, downloadable=False, expires_in=timedelta(days=9))
    assert script.sent[0].path == f"/client/v4/accounts/acc/stream/{UID}/token"
    assert script.sent[0].json == {"downloadable": True, "exp": 1_000_300}
    assert script.sent[1].json == {"downloadable": False, "exp": 1_086_400}


@pytest.mark.parametrize("token", [None, "", "a/b", "a b", "x" * 9000, 5], ids=lambda token: repr(token)[:20])
async def test_a_token_that_breaks_out_of_a_path_is_none(script: Script, token: Any) -> None:
    script.answers = [envelope({"token": token})]
    async with script.stream() as stream:
        with pytest.raises(TransientError):
            await stream.create_token(UID)


# --- The account -------------------------------------------------------------------------------------


async def test_a_webhook_that_is_set_already_is_left_as_it_is(script: Script) -> None:
    script.answers = [envelope(WEBHOOK)]
    async with script.stream() as stream:
        registration = await stream.put_webhook(HOOK_URL)
    assert registration.secret == "canary-secret"
    assert "canary" not in repr(registration)
    assert [sent.method for sent in script.sent] == ["GET"]


@pytest.mark.parametrize("before", [refusal(404, 10003), envelope(None), envelope({**WEBHOOK, "notificationUrl": "x"})])
async def test_a_webhook_is_set_where_there_is_none_or_another(script: Script, before: Handler) -> None:
    script.answers = [before, envelope(WEBHOOK)]
    async with script.stream() as stream:
        assert (await stream.put_webhook(HOOK_URL)).url == HOOK_URL
    assert [sent.method for sent in script.sent] == ["GET", "PUT"]
    assert script.sent[1].json == {"notificationUrl": HOOK_URL}


async def test_a_webhook_answer_without_its_secret_is_read_again(script: Script) -> None:
    script.answers = [refusal(404, 10003), envelope({"notificationUrl": HOOK_URL}), envelope(WEBHOOK)]
    async with script.stream() as stream:
        assert (await stream.put_webhook(HOOK_URL)).secret == "canary-secret"
    assert [sent.method for sent in script.sent] == ["GET", "PUT", "GET"]


async def test_storage_is_read_from_figures_and_texts(script: Script) -> None:
    script.answers = [envelope({"totalStorageMinutes": "12.5", "totalStorageMinutesLimit": 1000, "videoCount": "3"})]
    async with script.stream() as stream:
        usage = await stream.storage_usage()
    assert (usage.minutes, usage.minutes_limit, usage.video_count) == (12.5, 1000, 3)


# --- Counting and pausing ----------------------------------------------------------------------------


async def test_every_try_is_counted_by_what_came_of_it(script: Script) -> None:
    def counted(status: str) -> float:
        labels = {"operation": "get", "call_class": "reconcile", "status": status}
        return REGISTRY.get_sample_value("orchestrator_provider_calls_total", labels) or 0

    before = counted("503"), counted("200")
    script.answers = [refusal(503), envelope(VIDEO)]
    async with script.stream() as stream:
        await stream.get(UID, call_class=CallClass.RECONCILE)
    assert (counted("503") - before[0], counted("200") - before[1]) == (1, 1)


async def test_pauses_double_and_spread_by_the_source_of_chance(script: Script) -> None:
    drawn: list[float] = []

    def jitter() -> float:
        drawn.append(0.0)
        return 0.0

    script.answers = [refusal(500)]
    settings = CloudflareSettings("acc", TOKEN, f"{script.url}/client/v4", first_pause_seconds=0.1)
    stream = CloudflareStream(settings, script.budget, jitter=jitter)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TransientError):
        await stream.get(UID)
    took = asyncio.get_running_loop().time() - began
    await stream.close()
    assert len(drawn) >= 2
    # The lower ends of both spreads: half of 0.1 and half of 0.2.
    assert took >= 0.15


async def test_429_of_one_driver_stops_those_of_every_process(script: Script, database: str) -> None:
    script.answers = [refusal(429, 971, THROTTLED), envelope(VIDEO)]
    pools = [await asyncpg.create_pool(database, min_size=0, max_size=2) for _ in range(3)]
    settings = CloudflareSettings("acc", TOKEN, f"{script.url}/client/v4", first_pause_seconds=0.001)
    drivers = [CloudflareStream(settings, SharedCallBudget(pool, BudgetSettings(), "acc")) for pool in pools]
    codes = []
    for driver in drivers:
        for call in CALLS:
            with pytest.raises(TransientError) as failed:
                await call.run(driver)
            codes.append(failed.value.code)
            assert failed.value.retry_after == pytest.approx(300, abs=5)
    assert codes == ["provider_rate_limit"] + ["call_budget"] * (3 * len(CALLS) - 1)
    assert len(script.sent) == 1
    for driver, pool in zip(drivers, pools, strict=True):
        await driver.close()
        await pool.close()
