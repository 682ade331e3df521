"""`doctor`: each thing that can be wrong is found, named with its remedy, and told without a secret."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from aiohttp import web

from orchestrator.commands.database import place_of
from orchestrator.commands.doctor import examining
from orchestrator.commands.doctor.clocks import judge_skew
from orchestrator.commands.doctor.database_checks import judge_leadership, judge_workers
from orchestrator.commands.doctor.findings import within
from orchestrator.commands.doctor.provider_checks import judge_webhook
from orchestrator.drivers.cloudflare_models import WebhookRegistration
from orchestrator.explaining import Leadership
from orchestrator.local.bucket import BucketOptions, EmbeddedBucket
from orchestrator.storage.heavy_steps import WorkerAtWork

NOW = datetime(2026, 11, 21, 14, 12, tzinfo=UTC)
CANARIES = ("c4n4ry-access", "c4n4ry-store-secret", "c4n4ry-webhook-secret", "c4n4ry-token", "c4n4ry-password")


@pytest.fixture
async def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedBucket]:
    """A bucket, and the settings that lead to it."""
    options = BucketOptions("c4n4ry-access", "c4n4ry-store-secret", "clips")
    async with EmbeddedBucket(tmp_path / "bucket", options) as served:
        monkeypatch.setenv("R2_ENDPOINT_URL", served.endpoint_url)
        monkeypatch.setenv("R2_PUBLIC_URL", served.public_url)
        monkeypatch.setenv("R2_ACCESS_KEY_ID", "c4n4ry-access")
        monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "c4n4ry-store-secret")
        monkeypatch.setenv("R2_BUCKET_NAME", "clips")
        yield served


@pytest.fixture
def no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that lead to no bucket, at once."""
    monkeypatch.setenv("R2_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("R2_ACCESS_KEY_ID", "c4n4ry-access")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "c4n4ry-store-secret")
    monkeypatch.setenv("R2_BUCKET_NAME", "clips")


def found(ran) -> dict[str, tuple[str, str, str | None]]:
    assert all(secret not in ran.all for secret in CANARIES)
    return {each["what"]: (each["verdict"], each["text"], each["remedy"]) for each in ran.document["findings"]}


async def test_a_whole_installation_is_as_it_should_be(
    cli, ground, stand_in, provider_environment, bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.parts.webhooks.settings.register("https://clips.example/webhooks/cloudflare")
    secret = stand_in.parts.webhooks.settings.current.secret
    monkeypatch.setenv("CLOUDFLARE_WEBHOOK_SECRET", f"c4n4ry-webhook-secret,{secret}")
    await ground.lead()
    ran = await cli("doctor", "--json", "--write")
    findings = ran.document["findings"]
    assert [each for each in findings if each["verdict"] != "ok"] == []
    assert (ran.code, ran.document["ok"], ran.err) == (0, True, "")
    assert [each["what"] for each in findings] == [
        "settings",
        "database",
        "clock",
        "migrations",
        "role api",
        "role monitor",
        "monitor",
        "workers",
        "notifications",
        "provider",
        "clock",
        "webhook",
        "bucket",
        "bucket write",
        "bucket public",
    ]
    found(ran)
    assert secret not in ran.all
    assert stand_in.api_token not in ran.all
    kept = [path for path in Path("bucket/objects/clips").rglob("*") if path.is_file()]
    assert kept == []


async def test_people_get_a_table_that_ends_with_a_sum(cli, ground, no_bucket, monkeypatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "a")
    ran = await cli("doctor")
    lines = ran.out.splitlines()
    assert ran.code == 1
    assert lines[0].split(maxsplit=2) == ["fail", "CLOUDFLARE_API_TOKEN", "is not set"]
    assert lines[1].strip() == ("-> set CLOUDFLARE_API_TOKEN in the environment or .env, or --cloudflare-api-token")
    assert lines[2].startswith("ok    database  ")
    assert lines[-1] == "1 to mend, 3 to know of, 7 as they should be."


async def test_every_fault_of_the_settings_is_found_and_the_database_looked_at(cli, ground) -> None:
    ran = await cli("doctor", "--json", "--port", "x")
    findings = found(ran)
    assert ran.code == 1
    for name in ("CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_API_TOKEN", "R2_ENDPOINT_URL", "R2_BUCKET_NAME", "PORT"):
        assert findings[name][0] == "fail"
    assert findings["database"][0] == "ok"
    assert findings["provider"] == ("warn", "not checked", "mend the settings first")
    assert findings["bucket"] == ("warn", "not checked", "mend the settings first")


@pytest.mark.parametrize(
    ("address", "text", "remedy"),
    [
        ("postgresql://u:c4n4ry-password@127.0.0.1:1/db", "127.0.0.1:1/db does not answer", "mend DATABASE_URL"),
        ("postgresql://u:x/c4n4ry-password@h/db", "DATABASE_URL cannot be read", "percent-encode"),
        (
            "postgresql://u:c4n4ry-password@h/db?sslmode=c4n4ry-password",
            "DATABASE_URL cannot be read",
            "percent-encode",
        ),
    ],
)
async def test_a_database_that_is_away(
    cli, stand_in, provider_environment, no_bucket, monkeypatch, address: str, text: str, remedy: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", address)
    ran = await cli("doctor", "--json")
    findings = found(ran)
    assert ran.code == 1
    assert findings["database"][0] == "fail"
    assert text in findings["database"][1]
    assert remedy in findings["database"][2]
    assert findings["provider"] == ("warn", "not checked", "mend the database first, which counts the calls")
    assert stand_in.calls.total == 0


async def database_findings(cli, monkeypatch, database: str | None = None):
    if database is not None:
        monkeypatch.setenv("DATABASE_URL", database)
    return found(await cli("doctor", "--json"))


async def test_migrations_that_are_missing(cli, empty_database: str, monkeypatch) -> None:
    findings = await database_findings(cli, monkeypatch, empty_database)
    verdict, text, remedy = findings["migrations"]
    assert (verdict, remedy) == ("fail", "run `orchestrator migrate`")
    assert "0001_create_clips.sql" in text
    assert "monitor" not in findings


async def test_migrations_that_were_edited(cli, ground, monkeypatch) -> None:
    await ground.owner.execute("UPDATE schema_migrations SET sha256 = 'x' WHERE name = '0001_create_clips.sql'")
    verdict, text, remedy = (await database_findings(cli, monkeypatch))["migrations"]
    assert (verdict, text) == ("fail", "0001_create_clips.sql was edited after it had been applied here")
    assert remedy == "restore the file and put the change into a new migration"


async def test_a_newer_database(cli, ground, monkeypatch) -> None:
    await ground.owner.execute("INSERT INTO schema_migrations (name, sha256) VALUES ('9999_future.sql', 'x')")
    verdict, text, remedy = (await database_findings(cli, monkeypatch))["migrations"]
    assert (verdict, remedy) == ("fail", "install a newer version")
    assert "9999_future.sql" in text


async def test_a_login_that_may_not_act_in_its_roles(cli, ground, database: str, postgres_server, monkeypatch) -> None:
    login = f"{postgres_server.prefix}_plain"
    await ground.owner.execute(f'CREATE ROLE "{login}" LOGIN PASSWORD $$c4n4ry-password$$')
    try:
        await ground.owner.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{login}"')
        parts = urlsplit(database)
        place = parts.netloc.rpartition("@")[2]
        address = urlunsplit(parts._replace(netloc=f"{login}:c4n4ry-password@{place}"))
        findings = await database_findings(cli, monkeypatch, address)
    finally:
        await ground.owner.execute(f'DROP OWNED BY "{login}"; DROP ROLE "{login}"')
    verdict, text, remedy = findings["role api"]
    assert (verdict, remedy) == ("warn", "GRANT orchestrator_api TO the user in DATABASE_URL")
    assert text == "this login may not act as orchestrator_api; the trigger guards the clips alone"


async def test_a_role_that_may_do_too_much(cli, ground, monkeypatch) -> None:
    await ground.owner.execute("GRANT UPDATE (status) ON clips TO orchestrator_api")
    verdict, text, _ = (await database_findings(cli, monkeypatch))["role api"]
    assert (verdict, text) == ("warn", "orchestrator_api may move clips; only the trigger keeps it to the rules")


async def test_a_pooler_through_which_nothing_is_heard(
    cli, ground, database: str, empty_database: str, monkeypatch
) -> None:
    assert found(await cli("doctor", "--json"))["notifications"][0] == "ok"
    true_pid = asyncpg.Connection.get_server_pid
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", lambda _: 1)
    finding = found(await cli("doctor", "--json"))["notifications"]
    assert (finding[0], finding[2]) == ("warn", "set DATABASE_DIRECT_URL to the server's own address")
    assert finding[1].startswith("a connection pooler stands at DATABASE_URL: none is heard")
    monkeypatch.setenv("DATABASE_DIRECT_URL", database)
    assert found(await cli("doctor", "--json"))["notifications"][1].startswith("a connection pooler stands at ")
    monkeypatch.setattr(asyncpg.Connection, "get_server_pid", true_pid)
    assert found(await cli("doctor", "--json"))["notifications"][:2] == (
        "ok",
        f"they are heard at {place_of(database)}",
    )
    monkeypatch.setenv("DATABASE_DIRECT_URL", empty_database)
    finding = found(await cli("doctor", "--json"))["notifications"]
    assert (finding[0], finding[2]) == ("fail", "mend DATABASE_DIRECT_URL")
    monkeypatch.setenv("DATABASE_DIRECT_URL", "postgresql://u:c4n4ry-password@127.0.0.1:1/db")
    finding = found(await cli("doctor", "--json"))["notifications"]
    assert finding[1] == "the server itself does not answer at 127.0.0.1:1/db (connection refused)"


async def test_clips_that_nobody_looks_at_in_time(cli, ground, monkeypatch) -> None:
    await ground.lead()
    await ground.insert("c1")
    await ground.owner.execute("UPDATE clips SET look_at = clock_timestamp() - interval '61 s'")
    verdict, text, _ = (await database_findings(cli, monkeypatch))["monitor"]
    assert (verdict, text) == ("warn", "1 clips wait for a look for more than 60 s")


@pytest.mark.parametrize(
    ("leadership", "overdue", "verdict", "text"),
    [
        (Leadership(NOW, False), 0, "warn", "none leads, so no clip moves"),
        (Leadership(NOW, False, NOW), 9, "warn", "none leads since 2026-11-21 14:12:00 UTC, so no clip moves"),
        (Leadership(NOW, True, NOW, 31.0), 0, "fail", "the one that leads has not come round for 31 s"),
        (Leadership(NOW, True, NOW, 1.0), 1000, "warn", "1000 or more clips wait for a look for more than 60 s"),
        (Leadership(NOW, True, NOW, 1.0), 0, "ok", "one leads since 2026-11-21 14:12:00 UTC and keeps up"),
        (Leadership(NOW, True), 0, "ok", "one leads and keeps up"),
    ],
)
def test_what_the_lease_means(leadership: Leadership, overdue: int, verdict: str, text: str) -> None:
    finding = judge_leadership(leadership, overdue)
    assert (finding.verdict, finding.text) == (verdict, text)


@pytest.mark.parametrize(
    ("skew_seconds", "doubt_seconds", "verdict", "text"),
    [
        (0.2, 0.1, "ok", "this machine and X agree within 1 s"),
        (-5.4, 0.5, "ok", "this machine and X agree within 5 s"),
        (12, 0.5, "warn", "this machine's clock is 12 s behind that of X"),
        (-12, 0.5, "warn", "this machine's clock is 12 s ahead of that of X"),
        (7200, 1, "fail", "this machine's clock is 1 h 59 min behind that of X"),
    ],
)
def test_what_a_clock_apart_means(skew_seconds: float, doubt_seconds: float, verdict: str, text: str) -> None:
    finding = judge_skew("clock", "X", skew_seconds, doubt_seconds)
    assert (finding.verdict, finding.text) == (verdict, text)


REGISTERED = WebhookRegistration("https://clips.example/webhooks/cloudflare?k=c4n4ry-token", "known secret")


@pytest.mark.parametrize(
    ("registration", "secrets", "base_url", "verdict", "text"),
    [
        (None, ["known secret"], None, "warn", "no notifications are sent; clips are found by looking"),
        (REGISTERED, [], None, "fail", "CLOUDFLARE_WEBHOOK_SECRET is not set: each is refused"),
        (REGISTERED, ["another"], None, "fail", "signed with a secret that CLOUDFLARE_WEBHOOK_SECRET does not have"),
        (REGISTERED, ["another", "known secret"], None, "ok", "and their secret is known"),
        (REGISTERED, ["known secret"], "https://other.example", "warn", "is not https://other.example/webhooks/cloud"),
    ],
)
def test_what_a_registration_means(registration, secrets, base_url, verdict: str, text: str) -> None:
    finding = judge_webhook(registration, secrets, base_url)
    assert finding.verdict == verdict
    assert text in finding.text
    assert "c4n4ry" not in finding.text
    assert "secret" not in finding.text.replace("their secret", "").replace("a secret that", "")


def envelope(status: int, code: int, message: str) -> web.Response:
    document = {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}
    return web.json_response(document, status=status)


@pytest.mark.parametrize(
    ("status", "code", "text", "remedy"),
    [
        (401, 10000, "(provider_refused_token)", "set CLOUDFLARE_API_TOKEN"),
        (403, 9109, "(provider_refused_token)", "set CLOUDFLARE_API_TOKEN"),
        (404, 7003, "(provider_address_wrong)", "mend CLOUDFLARE_ACCOUNT_ID"),
        (429, 971, "calls may be made again in 300 s (provider_rate_limit)", "wait: every call of this account"),
        (500, 1, "(provider_unavailable)", "look at CLOUDFLARE_API_URL"),
    ],
)
async def test_what_the_provider_refuses(
    cli, ground, serve, no_bucket, monkeypatch, status: int, code: int, text: str, remedy: str
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return envelope(status, code, f"no, c4n4ry-token at https://x/?{request.headers['Authorization']}")

    await use_provider(monkeypatch, await serve(refuse))
    verdict, said, mend = found(await cli("doctor", "--json"))["provider"]
    assert verdict == "fail"
    assert text in said
    assert remedy in mend


async def use_provider(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_URL", url)
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "a")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "c4n4ry-token")


async def test_a_clock_apart_from_the_providers(cli, ground, serve, no_bucket, monkeypatch) -> None:
    async def answer(request: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
        return web.json_response({"success": True, "result": []}, headers={"Date": date})

    await use_provider(monkeypatch, await serve(answer))
    ran = await cli("doctor", "--json")
    ours, theirs = [each for each in ran.document["findings"] if each["what"] == "clock"]
    assert (ours["verdict"], ours["text"]) == ("ok", "this machine and the database agree within 1 s")
    assert theirs["verdict"] == "fail"
    # The header's second is cut off, so it is ten minutes or just under.
    assert re.fullmatch(r"this machine's clock is (9|10) min behind that of the provider", theirs["text"])


async def test_a_token_no_header_carries(cli, ground, no_bucket, monkeypatch) -> None:
    await use_provider(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "c4n4ry-token\nx")
    ran = await cli("doctor", "--json")
    texts = [f"{each}" for each in ran.document["findings"] if each["verdict"] == "fail"]
    assert any("CLOUDFLARE_API_TOKEN" in text and "a line end" in text for text in texts), texts
    assert "c4n4ry" not in ran.out


async def test_a_block_is_obeyed(cli, ground, stand_in, provider_environment, no_bucket) -> None:
    await ground.owner.execute(
        "INSERT INTO call_budget (account, tokens, blocked_until) VALUES ($1, 0, clock_timestamp() + interval '1 h')",
        stand_in.account_id,
    )
    verdict, text, remedy = found(await cli("doctor", "--json"))["provider"]
    assert verdict == "fail"
    assert text.endswith("(call_budget)")
    assert remedy.startswith("wait: other processes use up the calls")


async def test_the_calls_kept_for_people_are_for_it(cli, ground, stand_in, provider_environment, no_bucket) -> None:
    await ground.owner.execute("INSERT INTO call_budget (account, tokens) VALUES ($1, 5)", stand_in.account_id)
    assert found(await cli("doctor", "--json"))["provider"][0] == "ok"


async def test_a_bucket_that_cannot_be_reached(cli, ground, stand_in, provider_environment, no_bucket) -> None:
    ran = await cli("doctor", "--json")
    verdict, text, remedy = found(ran)["bucket"]
    assert (ran.code, verdict) == (1, "fail")
    assert "(store_unreachable)" in text
    assert remedy == "look at R2_ENDPOINT_URL (or R2_ACCOUNT_ID) and the network from here"


async def test_keys_the_store_refuses(cli, ground, stand_in, provider_environment, bucket, monkeypatch) -> None:
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "c4n4ry-other")
    verdict, text, remedy = found(await cli("doctor", "--json"))["bucket"]
    assert verdict == "fail"
    assert "(store_refused)" in text
    assert remedy.startswith("mend R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY")


async def test_nothing_is_written_unless_asked_for(
    cli, ground, stand_in, provider_environment, bucket, tmp_path: Path
) -> None:
    findings = found(await cli("doctor", "--json"))
    assert findings["bucket"] == ("ok", "clips can be read", None)
    assert "bucket write" not in findings


async def test_a_public_address_that_is_another(
    cli, ground, stand_in, provider_environment, bucket, serve, monkeypatch
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=404)

    place = await serve(answer)
    monkeypatch.setenv("R2_PUBLIC_URL", place)
    findings = found(await cli("doctor", "--json", "--write"))
    assert findings["bucket write"][0] == "ok"
    assert findings["bucket public"] == (
        "warn",
        f"{place} answers 404 where the probe should be",
        "mend R2_PUBLIC_URL, or make the bucket public there",
    )


async def test_a_check_has_an_end() -> None:
    async def hang() -> list:
        await asyncio.Event().wait()
        return []

    [finding] = await within("provider", 0.05, hang)
    assert (finding.verdict, finding.text) == ("fail", "no answer within 0.05 s")


async def test_a_check_that_breaks_tells_no_secret() -> None:
    async def break_down() -> list:
        raise RuntimeError("c4n4ry-token")

    [finding] = await within("provider", 5, break_down)
    assert (finding.verdict, finding.text) == ("fail", "the check itself broke (RuntimeError)")


async def test_a_cancelled_check_is_cancelled() -> None:
    async def hang() -> list:
        await asyncio.Event().wait()
        return []

    task = asyncio.create_task(within("provider", 5, hang))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_provider_that_hangs_does_not_hold_it_up(cli, ground, serve, no_bucket, monkeypatch) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    monkeypatch.setattr(examining, "_PROVIDER_SECONDS", 0.3)
    await use_provider(monkeypatch, await serve(hang))
    verdict, text, _ = found(await cli("doctor", "--json"))["provider"]
    release.set()
    assert (verdict, text) == ("fail", "no answer within 0.3 s")


async def test_as_a_program_it_says_nothing_beside_its_findings(
    cli, ground, stand_in, provider_environment, bucket
) -> None:
    names = ("CLOUDFLARE_API_URL", "CLOUDFLARE_ACCOUNT_ID", "R2_ENDPOINT_URL", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID")
    environment = {name: os.environ[name] for name in (*names, "R2_SECRET_ACCESS_KEY", "R2_PUBLIC_URL", "PYTHONPATH")}
    ran = await cli.process("doctor", "--json", CLOUDFLARE_API_TOKEN="c4n4ry-token", **environment)
    assert (ran.code, ran.err) == (1, "")
    assert "(provider_refused_token)" in found(ran)["provider"][1]


@pytest.mark.parametrize(
    ("workers", "running", "verdict", "says"),
    [
        (0, 0, "ok", "none; the monitor does transfers itself"),
        (0, 2, "warn", "2 steps are with workers that were not heard of"),
        (2, 3, "ok", "2 live (h:1, h:2); 3 of 8 places are taken, 5 steps wait"),
    ],
    ids=["none", "gone", "at work"],
)
def test_who_does_the_heavy_steps_is_told(workers: int, running: int, verdict: str, says: str) -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    living = [WorkerAtWork(str(n), f"h:{n}", ("transfer-to-bucket",), 4, 1, then) for n in range(1, workers + 1)]
    found = judge_workers(living, 5 if workers else 0, running)
    assert (found.verdict, found.text) == (verdict, says)
