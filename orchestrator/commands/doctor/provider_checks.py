"""The provider: is the token good, where do notifications go, what time is it there. Two calls of the shared budget."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

from orchestrator.assembly import open_pool
from orchestrator.commands.database import ROLE
from orchestrator.commands.doctor.clocks import judge_skew
from orchestrator.commands.doctor.findings import Finding, fail, ok, warn
from orchestrator.commands.webhook.registering import shown_url
from orchestrator.drivers.budget import BudgetSettings, CallClass, SharedCallBudget
from orchestrator.drivers.cloudflare import CloudflareSettings
from orchestrator.drivers.cloudflare_answers import Answer, Operation
from orchestrator.drivers.cloudflare_calls import CloudflareCalls
from orchestrator.drivers.cloudflare_models import WebhookRegistration, parse_webhook
from orchestrator.drivers.errors import DriverError, TransientError
from orchestrator.settings import Settings

# Sent once each: whoever asks the doctor can ask again.
_LIST_ONE = Operation("list", "GET")
_GET_WEBHOOK = Operation("get_webhook", "GET", missing_is_answer=True)
_CALL_SECONDS = 8.0
_RECEIVER_PATH = "/webhooks/cloudflare"

_NETWORK = "look at CLOUDFLARE_API_URL and the network from here; then https://www.cloudflarestatus.com"
_REMEDIES = {
    "provider_refused_token": "make a token that may edit Stream in this account, and set CLOUDFLARE_API_TOKEN",
    "provider_address_wrong": "mend CLOUDFLARE_ACCOUNT_ID, or CLOUDFLARE_API_URL",
    "not_found": "mend CLOUDFLARE_ACCOUNT_ID, or CLOUDFLARE_API_URL",
    "provider_refused": "mend CLOUDFLARE_ACCOUNT_ID, or CLOUDFLARE_API_URL",
    "provider_rate_limit": "wait: every call of this account is refused for some minutes",
    "call_budget": "wait: other processes use up the calls there are; CLOUDFLARE_CALLS says how many that is",
}


async def check_provider(settings: Settings) -> Sequence[Finding]:
    """Token, clock and notifications."""
    try:
        async with _calls(settings) as calls:
            asked_at = time.time()
            answer = await calls.call(_LIST_ONE, "/stream", CallClass.PERSON, query={"limit": "1"})
            findings = [
                ok("provider", f"account {settings.cloudflare_account_id} answers, and the token is good"),
                *_clock(answer.headers or {}, asked_at, time.time()),
            ]
            try:
                webhook = await calls.call(_GET_WEBHOOK, "/stream/webhook", CallClass.PERSON)
            except DriverError as problem:
                return [*findings, _failed("webhook", problem)]
            return [*findings, _webhook(settings, webhook)]
    except DriverError as problem:
        return [_failed("provider", problem)]
    except ValueError as problem:
        # Of the driver's own settings: fixed sentences, which quote nothing.
        return [
            fail("provider", str(problem), "mend CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN or CLOUDFLARE_API_URL")
        ]


@asynccontextmanager
async def _calls(settings: Settings) -> AsyncIterator[CloudflareCalls]:
    """The way to the API, each answer with its headers; slow answers are not waited for as long as the driver does."""
    account = settings.cloudflare_account_id
    limits = BudgetSettings(settings.cloudflare_calls, settings.cloudflare_calls_window_seconds, max_wait_seconds=2)
    token = settings.cloudflare_api_token.get_secret_value()
    where = CloudflareSettings(account, token, settings.cloudflare_api_url, total_timeout_seconds=_CALL_SECONDS)
    async with open_pool(settings, ROLE, "clip-orchestrator doctor") as (pool, _):
        calls = CloudflareCalls(where, SharedCallBudget(pool, limits, account))
        try:
            yield calls
        finally:
            await calls.close()


def _failed(what: str, problem: DriverError) -> Finding:
    wait = problem.retry_after if isinstance(problem, TransientError) else None
    text = problem.text.rstrip(".") + (f"; calls may be made again in {wait:.0f} s" if wait else "")
    return fail(what, f"{text} ({problem.code})", _REMEDIES.get(problem.code, _NETWORK))


def _clock(headers: Mapping[str, str], asked_at: float, answered_at: float) -> list[Finding]:
    try:
        theirs = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return []
    # The header has whole seconds, cut off; the answer was made at some time between asking and reading.
    doubt = (answered_at - asked_at) / 2 + 0.5
    return [judge_skew("clock", "the provider", theirs + 0.5 - (asked_at + answered_at) / 2, doubt)]


def _webhook(settings: Settings, answer: Answer) -> Finding:
    """Where notifications go, and whether they would be believed."""
    registration = parse_webhook(answer.result)
    return judge_webhook(
        registration, [each.get_secret_value() for each in settings.cloudflare_webhook_secret], settings.public_base_url
    )


def judge_webhook(registration: WebhookRegistration | None, secrets: Sequence[str], base_url: str | None) -> Finding:
    """What the *registration* means for a receiver at *base_url* that knows *secrets*."""
    register = "`orchestrator webhook register URL`"
    if registration is None:
        return warn("webhook", "no notifications are sent; clips are found by looking, which is slower", register)
    place = shown_url(registration.url)
    if not secrets:
        text = f"notifications go to {place}, and CLOUDFLARE_WEBHOOK_SECRET is not set: each is refused"
        return fail("webhook", text, f"set it; {register} with --show-secret prints the line")
    if registration.secret not in secrets:
        text = f"notifications go to {place}, signed with a secret that CLOUDFLARE_WEBHOOK_SECRET does not have"
        return fail("webhook", text, f"add it with a comma; {register} with --show-secret prints it")
    if base_url is not None and registration.url != f"{base_url}{_RECEIVER_PATH}":
        text = f"notifications go to {place}, which is not {base_url}{_RECEIVER_PATH}"
        return warn("webhook", text, f"{register}, or mend PUBLIC_BASE_URL")
    return ok("webhook", f"notifications go to {place}, and their secret is known")
