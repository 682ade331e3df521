"""`webhook register`: one address per account, so look first, and take it from nobody without being told to."""

from __future__ import annotations

from urllib.parse import urlsplit

from orchestrator.assembly import open_pool, open_stream
from orchestrator.commands.database import ROLE, translated
from orchestrator.commands.failures import CommandFailed
from orchestrator.commands.parsing import wrong
from orchestrator.commands.printing import complain, plain, say
from orchestrator.drivers.cloudflare_models import WebhookRegistration
from orchestrator.drivers.errors import DriverError
from orchestrator.settings import LOOPBACK_HOSTS, Settings

# No receiver of ours has a longer one.
_URL_MAX_CHARACTERS = 2048


async def register(settings: Settings, url: str, *, yes: bool, show_secret: bool) -> int:
    """Have notifications sent to *url*, and tell what the receiver needs to know."""
    _check_url(url, at_stand_in=urlsplit(settings.cloudflare_api_url).hostname in LOOPBACK_HOSTS)
    with translated(settings.database_url.get_secret_value()):
        try:
            registration, is_new = await _register(settings, url, yes=yes)
        except DriverError as problem:
            raise CommandFailed(f"{problem.text} ({problem.code})") from None
    say(f"Notifications go to {shown_url(registration.url)}{'' if is_new else ', as they did before'}.")
    _tell_secret(settings, registration, show_secret=show_secret)
    return 0


async def _register(settings: Settings, url: str, *, yes: bool) -> tuple[WebhookRegistration, bool]:
    """The registration of *url*, and whether it is new."""
    async with (
        open_pool(settings, ROLE, "clip-orchestrator command line") as (pool, _),
        open_stream(settings, pool) as stream,
    ):
        current = await stream.get_webhook()
        if current is not None and current.url == url:
            return current, False
        if current is not None and not yes:
            raise wrong(
                f"this account's notifications go to {shown_url(current.url)}, and there is one address per account:"
                " a change takes them from whoever has them there and ends their secret; --yes does it"
            )
        return await stream.put_webhook(url), True


def _check_url(url: str, *, at_stand_in: bool) -> None:
    """Refuse what the provider would refuse, or what would lay a secret open."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or len(url) > _URL_MAX_CHARACTERS or not url.isprintable() or " " in url or parts.username:
        raise wrong(f"{shown_url(url)!r} is not an http or https address without user name; give the receiver's")
    if parts.hostname in LOOPBACK_HOSTS and not at_stand_in:
        raise wrong(f"{shown_url(url)} is this machine, which the provider cannot reach; give a public address")


def shown_url(url: str) -> str:
    """An address without what may be secret in it: user name and query. Another receiver's may have either."""
    try:
        parts = urlsplit(plain(url))
        host = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}" if parts.hostname else plain(url)[:100]


def _tell_secret(settings: Settings, registration: WebhookRegistration, *, show_secret: bool) -> None:
    known = {secret.get_secret_value() for secret in settings.cloudflare_webhook_secret}
    if show_secret:
        say(f"CLOUDFLARE_WEBHOOK_SECRET={plain(registration.secret)}")
    if registration.secret in known:
        say("CLOUDFLARE_WEBHOOK_SECRET has the secret that signs them.")
    elif known:
        complain(
            "CLOUDFLARE_WEBHOOK_SECRET has another secret: put the new one before it, with a comma, until notifications"
            " signed with the old one have ended" + ("" if show_secret else "; --show-secret prints the new one")
        )
    elif not show_secret:
        complain("CLOUDFLARE_WEBHOOK_SECRET is not set: every notification is refused; --show-secret prints its line")
