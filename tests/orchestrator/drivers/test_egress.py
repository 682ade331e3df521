"""Addresses that may be read, and every trick to reach another one."""

from __future__ import annotations

import socket

import pytest
from aiohttp import ClientConnectorError, ClientTimeout
from aiohttp.abc import AbstractResolver

from orchestrator.drivers.egress import (
    EgressPolicy,
    GuardedResolver,
    PrivateAddressError,
    check_source_address,
    is_public_address,
    open_session,
)
from orchestrator.drivers.errors import PermanentError

POLICY = EgressPolicy()
LOCAL = EgressPolicy.allowing(["http://127.0.0.1:9123", "http://LOCALHOST:9124/", "http://[::1]:9125"])

ALLOWED = [
    "https://customer-abc.cloudflarestream.com/uid/downloads/default.mp4",
    "https://videodelivery.net/uid/downloads/default.mp4?filename=a%2Fb",
    "https://VIDEODELIVERY.net/uid",
    "https://cloudflarestream.com/eyJhbGciOi.JIUzI1NiJ9-_~/downloads/default.mp4",
    "https://a.b.c.cloudflarestream.com/",
]

REFUSED = [
    "http://customer-abc.cloudflarestream.com/x",
    "https://customer-abc.cloudflarestream.com:8443/x",
    "https://customer-abc.cloudflarestream.com:80/x",
    "https://evilcloudflarestream.com/x",
    "https://cloudflarestream.com.evil.com/x",
    "https://evil.com/cloudflarestream.com",
    "https://evil.com/?cloudflarestream.com",
    "https://evil.com/#.cloudflarestream.com",
    "https://evil.com\\.cloudflarestream.com/",
    "https://evil.com%2f.cloudflarestream.com/",
    "https://evil.com%00.cloudflarestream.com/",
    "https://cloudflarestream.com@evil.com/",
    "https://cloudflarestream.com:443@evil.com/",
    "https://user@cloudflarestream.com/",
    "https://user:word@cloudflarestream.com/",
    "https://@cloudflarestream.com/",
    "https://:@cloudflarestream.com/",
    "https://cloudflarestream.com./",
    "https://.cloudflarestream.com/",
    "https://-x.cloudflarestream.com/",
    "https://x_y.cloudflarestream.com/",
    "https://x..cloudflarestream.com/",
    "https://clo\u0075dflarestream\u3002com/",
    "https://\uff43loudflarestream.com/",
    "https://cloudflarestr\u00e9am.com/",
    "https://cloudflarestream.com/\u00e9",
    "https://cloudflarestream.com/a b",
    "https://cloudflarestream.com/a\nb",
    "https://cloudflarestream.com/a\tb",
    "https://cloudflarestream.com/\x00",
    " https://cloudflarestream.com/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[fe80::1%25eth0]/",
    "https://[64:ff9b::7f00:1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/",
    "https://metadata.google.internal/",
    "https://localhost/",
    "https://localhost.cloudflarestream.com.local/",
    "https:///cloudflarestream.com",
    "https:cloudflarestream.com",
    "https:/cloudflarestream.com",
    "//cloudflarestream.com/x",
    "/cloudflarestream.com",
    "cloudflarestream.com/x",
    "ftp://cloudflarestream.com/x",
    "file:///etc/passwd",
    "data:video/mp4;base64,AAAA",
    "gopher://cloudflarestream.com/",
    "javascript:alert(1)",
    "unix:///run/docker.sock",
    "https://cloudflarestream.com:99999/",
    "https://cloudflarestream.com:-1/",
    "https://cloudflarestream.com:443x/",
    "https://[cloudflarestream.com]/",
    "https://[::1",
    "",
    "https://" + "a" * 64 + ".cloudflarestream.com/",
    "https://cloudflarestream.com/" + "a" * 9000,
]


@pytest.mark.parametrize("address", ALLOWED)
def test_addresses_of_the_provider_pass_unchanged(address):
    assert str(check_source_address(address, POLICY)) == address


@pytest.mark.parametrize("policy", [POLICY, LOCAL], ids=["production", "local"])
@pytest.mark.parametrize("address", REFUSED)
def test_no_other_address_passes(address, policy):
    with pytest.raises(PermanentError) as caught:
        check_source_address(address, policy)

    assert caught.value.code == "source_address_not_allowed"


def test_a_refusal_quotes_nothing_of_the_address():
    with pytest.raises(PermanentError) as caught:
        check_source_address("https://secret-host.example/secret-token?secret=1", POLICY)

    assert "secret" not in f"{caught.value!r}{caught.value.text}{caught.value.__cause__!r}"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9123/x", "http://localhost:9124/x", "http://[::1]:9125/x"])
def test_an_origin_passes_where_it_was_named(address):
    assert str(check_source_address(address, LOCAL)) == address
    with pytest.raises(PermanentError):
        check_source_address(address, POLICY)


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1:9123/x",
        "http://127.0.0.1:9124/x",
        "http://127.0.0.1/x",
        "http://user@127.0.0.1:9123/x",
        "http://127.0.0.2:9123/x",
        "http://localhost:9123/x",
    ],
)
def test_an_origin_opens_nothing_beside_it(address):
    with pytest.raises(PermanentError):
        check_source_address(address, LOCAL)


def test_the_port_of_https_may_be_named():
    assert check_source_address("https://videodelivery.net:443/uid", POLICY).port == 443


def test_a_fragment_is_dropped():
    assert str(check_source_address("https://videodelivery.net/a#b", POLICY)) == "https://videodelivery.net/a"


INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 (an address to be refused)
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "not an address",
    "",
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_are_not_public(address):
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "104.16.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_outside_addresses_are_public(address):
    assert is_public_address(address)


class Answers(AbstractResolver):
    """A resolver that answers every name with the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {"hostname": host, "host": one, "port": port, "family": family, "proto": 0, "flags": 0}
            for one in self.addresses
        ]

    async def close(self):
        pass


@pytest.mark.parametrize("answers", [("127.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("::ffff:127.0.0.1",)])
async def test_a_name_on_the_list_may_not_lead_inside(answers):
    with pytest.raises(PrivateAddressError):
        await GuardedResolver(POLICY, Answers(*answers)).resolve("videodelivery.net", 443)


async def test_a_public_answer_and_a_named_origin_pass():
    assert len(await GuardedResolver(POLICY, Answers("1.1.1.1")).resolve("videodelivery.net", 443)) == 1
    assert len(await GuardedResolver(LOCAL, Answers("127.0.0.1")).resolve("localhost", 9124)) == 1
    with pytest.raises(PrivateAddressError):
        await GuardedResolver(LOCAL, Answers("127.0.0.1")).resolve("localhost", 9125)


async def test_a_session_asks_the_guard_and_not_the_environment(monkeypatch):
    """A real session, a real name that resolves to loopback, a proxy in the environment: nothing is reached."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with open_session(POLICY, ClientTimeout(total=5), connections=1) as session:
        assert not session.trust_env
        with pytest.raises(ClientConnectorError) as caught:
            await session.get("http://localhost:9/")

    assert isinstance(caught.value.os_error, PrivateAddressError)
