"""`webhook register` and `trigger`: nothing is taken from anybody unasked, no secret is told unasked."""

from __future__ import annotations

import time

import pytest
from aiohttp import web

from orchestrator.drivers.cloudflare_models import VideoState, parse_webhook_video
from orchestrator.drivers.signatures import HEADER, BadSignature, verify
from orchestrator.settings import Settings

OURS = "https://clips.example/webhooks/cloudflare"
THEIRS = "https://staging.example/hook?token=c4n4ry-query"
SECRET = "c4n4ry-secret-of-the-receiver"
UID = "ea95132c15732412d22c1476fa83f27a"


def registered(stand_in) -> tuple[str, str] | None:
    current = stand_in.parts.webhooks.settings.current
    return (current.url, current.secret) if current else None


async def test_the_first_address_is_registered(cli, stand_in, provider_environment) -> None:
    ran = await cli("webhook", "register", OURS)
    assert (ran.code, ran.out) == (0, f"Notifications go to {OURS}.\n")
    assert ran.err.startswith("CLOUDFLARE_WEBHOOK_SECRET is not set: every notification is refused; --show-secret")
    url, secret = registered(stand_in)
    assert url == OURS
    assert secret not in ran.all


async def test_registering_again_changes_nothing(cli, stand_in, provider_environment) -> None:
    await cli("webhook", "register", OURS)
    before = registered(stand_in)
    ran = await cli("webhook", "register", OURS, "--show-secret")
    assert ran.code == 0
    assert ran.out == f"Notifications go to {OURS}, as they did before.\nCLOUDFLARE_WEBHOOK_SECRET={before[1]}\n"
    assert registered(stand_in) == before


async def test_the_secret_that_is_known_is_said_to_be(
    cli, stand_in, provider_environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = stand_in.parts.webhooks.settings.register(OURS), registered(stand_in)[1]
    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", f"{SECRET},{secret}")
    ran = await cli("webhook", "register", OURS)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("CLOUDFLARE_WEBHOOK_SECRET has the secret that signs them.\n")
    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", SECRET)
    ran = await cli("webhook", "register", OURS)
    assert ran.err.startswith("CLOUDFLARE_WEBHOOK_SECRET has another secret: put the new one before it, with a comma")
    assert SECRET not in ran.all
    assert secret not in ran.all


async def test_nothing_is_taken_from_others_unasked(cli, stand_in, provider_environment) -> None:
    stand_in.parts.webhooks.settings.register(THEIRS)
    before = registered(stand_in)
    ran = await cli("webhook", "register", OURS)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "this account's notifications go to https://staging.example/hook?…, and there is one address per account:"
        " a change takes them from whoever has them there and ends their secret; --yes does it\n"
    )
    assert registered(stand_in) == before
    assert (await cli("webhook", "register", OURS, "--yes")).code == 0
    assert registered(stand_in)[0] == OURS
    assert registered(stand_in)[1] != before[1]


async def test_calls_pass_the_shared_budget(cli, ground, stand_in, provider_environment) -> None:
    await ground.owner.execute(
        "INSERT INTO call_budget (account, tokens, blocked_until) VALUES ($1, 0, clock_timestamp() + interval '1 h')",
        stand_in.account_id,
    )
    ran = await cli("webhook", "register", OURS)
    assert (ran.code, ran.out) == (1, "")
    assert (
        ran.err == "The provider refuses all calls for a while; nobody of us calls before it is over. (call_budget)\n"
    )
    assert registered(stand_in) is None


async def test_a_refused_token_is_said_without_it(cli, provider_environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "c4n4ry-token")
    ran = await cli("webhook", "register", OURS)
    assert (ran.code, ran.out) == (1, "")
    assert "(provider_refused_token)" in ran.err
    assert "c4n4ry" not in ran.err


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("clips.example/webhooks", "is not an http or https address"),
        ("ftp://clips.example/", "is not an http or https address"),
        ("https://u:c4n4ry@clips.example/", "'https://clips.example/' is not an http or https address without user"),
        ("https://[bad/", "is not an http or https address"),
        ("https://clips.example:99999/", "is not an http or https address"),
        ("https://clips.example/\x1b[2J", "is not an http or https address"),
    ],
)
async def test_an_address_that_cannot_be_is_refused(
    cli, stand_in, provider_environment, url: str, complaint: str
) -> None:
    ran = await cli("webhook", "register", url)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert "c4n4ry" not in ran.err
    assert registered(stand_in) is None


async def test_this_machine_is_out_of_the_real_providers_reach(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "a")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "t")
    ran = await cli("webhook", "register", "http://127.0.0.1:8080/webhooks/cloudflare")
    assert ran.code == 2
    assert "is this machine, which the provider cannot reach; give a public address" in ran.err


async def test_the_bucket_may_be_unknown_and_the_provider_may_not(cli) -> None:
    ran = await cli("webhook", "register", OURS)
    assert ran.code == 2
    assert ran.err == (
        "The settings cannot be used:\n  CLOUDFLARE_ACCOUNT_ID: is not set\n  CLOUDFLARE_API_TOKEN: is not set\n"
    )


class Receiver:
    """Checks notifications as ours does."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = secrets
        self.videos: list = []

    async def receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            verify(raw, request.headers.getall(HEADER, []), self.secrets, time.time())
        except BadSignature:
            return web.Response(status=401)
        self.videos.append(parse_webhook_video(raw))
        return web.json_response({"received": True})


@pytest.mark.parametrize("state", ["ready", "error"])
async def test_a_signed_notification_is_accepted(cli, serve, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.delenv("DATABASE_URL")  # nothing but the secret is needed
    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", SECRET)
    receiver = Receiver(SECRET)
    url = f"{await serve(receiver.receive)}/webhooks/cloudflare?x=c4n4ry"
    ran = await cli("webhook", "trigger", UID, "--state", state, "--url", url)
    assert (ran.code, ran.err) == (0, "")
    assert "answered 200: accepted" in ran.out
    [video] = receiver.videos
    assert (video.uid, video.state, video.ready_to_stream) == (UID, VideoState(state), state == "ready")
    assert "c4n4ry" not in ran.all


async def test_another_secret_is_exit_code_1(cli, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await serve(Receiver("another secret").receive)
    ran = await cli("webhook", "trigger", UID, "--url", url, "--cloudflare-webhook-secret", SECRET)
    assert (ran.code, ran.out) == (1, "")
    assert "answered 401: refused: the receiver has another secret than CLOUDFLARE_WEBHOOK_SECRET here" in ran.err
    assert SECRET not in ran.err


async def test_other_answers_are_shown_clean(cli, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say(request: web.Request) -> web.Response:
        return web.Response(status=503, text="\x1b[2Jcome\nagain\u202e")

    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", SECRET)
    ran = await cli("webhook", "trigger", UID, "--url", await serve(say))
    assert ran.code == 1
    assert ran.err.endswith(" answered 503: come again\n")


async def test_a_redirect_is_not_followed(cli, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(SECRET)
    there = await serve(receiver.receive)

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": there})

    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", SECRET)
    ran = await cli("webhook", "trigger", UID, "--url", await serve(elsewhere))
    assert (ran.code, receiver.videos) == (1, [])
    assert "answered 307" in ran.err


async def test_nobody_there_is_exit_code_1(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", SECRET)
    ran = await cli("webhook", "trigger", UID, "--url", "http://127.0.0.1:1/webhooks/cloudflare")
    assert (ran.code, ran.out) == (1, "")
    assert "http://127.0.0.1:1/webhooks/cloudflare cannot be reached (" in ran.err
    assert "is the web process (`orchestrator serve`) running there?" in ran.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((UID,), "CLOUDFLARE_WEBHOOK_SECRET: is not set, and an unsigned notification is always refused"),
        ((UID, "--cloudflare-webhook-secret", "c4n4ry"), "CLOUDFLARE_WEBHOOK_SECRET: each must have at least 16"),
        (("a/b", "--cloudflare-webhook-secret", SECRET), "argument UID: 'a/b' cannot be an id"),
        ((UID, "--state", "queued"), "argument --state: invalid choice: 'queued'"),
        ((UID, "--url", "nowhere", "--cloudflare-webhook-secret", SECRET), "--url: 'nowhere' is not an http"),
    ],
)
async def test_wrong_usage_of_trigger(cli, arguments: tuple[str, ...], complaint: str) -> None:
    ran = await cli("webhook", "trigger", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert "c4n4ry" not in ran.err


def test_the_settings_a_command_leaves_out_are_named_in_the_program() -> None:
    from orchestrator.commands.needs import NOTIFICATION_NAMES, PROVIDER_NAMES, NotificationSettings, ProviderSettings

    for needed, settings in ((PROVIDER_NAMES, ProviderSettings), (NOTIFICATION_NAMES, NotificationSettings)):
        assert set(needed) <= set(Settings.model_fields)
        missing = {name for name, field in settings.model_fields.items() if field.is_required()}
        assert missing <= set(needed)
