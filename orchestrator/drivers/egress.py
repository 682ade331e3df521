"""Where outgoing reads may go: one check of the address, one check of what it resolves to.

The addresses of finished files come from a provider's answer and from redirects, so they are
input like any other. Two walls, because each alone has a hole: a resolver never sees an IP
literal, and a host name on the list may still resolve to a machine inside.

The address that was checked is the very object that is fetched; no second parser reads the text.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from orchestrator.drivers.errors import PermanentError

#: Hosts that deliver finished files today, and the name they had before.
DEFAULT_SUFFIXES = ("cloudflarestream.com", "videodelivery.net")

#: The documentation's own download examples follow redirects without naming a number; five is
#: enough for a rename and a region, and ends a loop.
MAX_REDIRECTS = 5

#: A signed token in the path is under 2 KiB; what is longer is not an address of ours.
_MAX_ADDRESS_CHARACTERS = 8192

# Plain ASCII host names with at least one dot. Brackets, digits-only names, percent signs, trailing dots and
# letters that some resolvers fold all fail here.
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_PRINTABLE_ASCII = re.compile(r"[!-\[\]-~]+\Z")  # no blanks, no control characters, no backslash

# Prefixes that carry an IPv4 address inside an IPv6 one.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Which addresses may be read: https hosts under *suffixes*, and *origins* named in full.

    An origin (`http://127.0.0.1:9123`) is the operator's own word, so nothing else of it is
    checked; it exists for the local stand-in.
    """

    suffixes: tuple[str, ...] = DEFAULT_SUFFIXES
    origins: frozenset[str] = frozenset()

    @classmethod
    def allowing(cls, origins: Iterable[str], suffixes: Iterable[str] = DEFAULT_SUFFIXES) -> EgressPolicy:
        """A policy with *origins* written the one way in which they are compared."""
        return cls(tuple(suffixes), frozenset(_origin_of(URL(origin)) for origin in origins))


class PrivateAddressError(OSError):
    """A host on the list resolved to an address that is not on the public internet."""


def check_source_address(address: str | URL, policy: EgressPolicy) -> URL:
    """The parsed address, allowed by *policy*, or a refusal that never quotes it.

    Raises:
        PermanentError: `source_address_not_allowed`. The text names the rule and no part of the
            address beyond its host, since paths carry tokens.
    """
    text = str(address)
    if len(text) > _MAX_ADDRESS_CHARACTERS or not _PRINTABLE_ASCII.match(text):
        raise _refused("holds characters or a length that no address of ours has")
    try:
        # Kept as written: a re-quoted path or query would break a signature.
        parsed = URL(text, encoded=True)
        port, host = parsed.explicit_port, parsed.raw_host
    except ValueError:
        raise _refused("cannot be read as an address") from None
    if not parsed.absolute or not host:
        raise _refused("names no host")
    if parsed.raw_user is not None or parsed.raw_password is not None or "@" in parsed.raw_authority:
        raise _refused("carries a user name or password")
    parsed = parsed.with_fragment(None)
    if _origin_of(parsed) in policy.origins:
        return parsed
    if parsed.scheme != "https":
        raise _refused("is not https")
    if port not in (None, 443):
        raise _refused("names a port of its own")
    if not _HOST_NAME.match(host.lower()) or not _is_under(host.lower(), policy.suffixes):
        raise _refused("names a host that is not on the list")
    return parsed


def open_session(policy: EgressPolicy, timeout: ClientTimeout, connections: int) -> ClientSession:
    """A session that connects to public addresses only and takes nothing from the environment.

    Bodies are left as they come: a decoded body has another length than the one declared.
    Redirects are the caller's to follow, each through `check_source_address`.
    """
    connector = TCPConnector(resolver=GuardedResolver(policy), limit=connections)
    return ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


class GuardedResolver(AbstractResolver):
    """Resolves names like the system does, and refuses an answer that holds any inside address.

    One inside address among public ones is the mark of rebinding, so the whole answer goes.
    """

    def __init__(self, policy: EgressPolicy, inner: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._inner = inner or DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if {f"http://{host.lower()}:{port}", f"https://{host.lower()}:{port}"} & self._policy.origins:
            return found
        if not all(is_public_address(one["host"]) for one in found):
            raise PrivateAddressError(f"{host} resolves to an address that is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()


def is_public_address(text: str) -> bool:
    """Whether *text* is an IP address on the public internet, looking inside IPv6 wrappings too."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
        elif address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _origin_of(address: URL) -> str:
    return f"{address.scheme}://{(address.raw_host or '').lower()}:{address.port}"


def _is_under(host: str, suffixes: tuple[str, ...]) -> bool:
    return any(host == suffix or host.endswith("." + suffix) for suffix in suffixes)


def _refused(rule: str) -> PermanentError:
    return PermanentError("source_address_not_allowed", f"The file's address {rule}.")
