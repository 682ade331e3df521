"""Addresses that must lead nowhere: every way of writing a machine inside, and every trick to look like one outside."""

from __future__ import annotations

import ipaddress

METADATA = "169.254.169.254"


def notations(address: str) -> list[str]:
    """One IPv4 address in every spelling that some parser takes for it."""
    whole = int(ipaddress.IPv4Address(address))
    a, b, c, d = (int(part) for part in address.split("."))
    return [
        address,
        str(whole),
        f"{whole:#x}",
        f"0{whole:o}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.{(b << 16) + (c << 8) + d}",
        f"{a}.{b}.{(c << 8) + d}",
        f"{a:03}.{b:03}.{c:03}.{d:03}",
        f"{address}.",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[::ffff:{a << 8 | b:x}:{c << 8 | d:x}]",
        f"[2002:{a << 8 | b:x}:{c << 8 | d:x}::]",
        "".join(chr(0x2460 + int(n) - 1) if n in "123456789" else "\u24ea" if n == "0" else n for n in address),
        address.replace(".", "\u3002"),
        address.replace(".", "%2e"),
    ]


def inside(port: int) -> list[str]:
    """Addresses of machines inside, *port* being that of the canary on this one."""
    plain = [f"{scheme}://{host}/x.mp4" for scheme in ("http", "https") for host in notations(METADATA)]
    loopback = [f"http://{host}:{port}/x.mp4" for host in notations("127.0.0.1")]
    hosts = [
        "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "127.1", "127.0.1", "0",
        "0.0.0.0", "127.127.127.127", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]",  # noqa: S104  (not bound)
        "[fe80::1]", "[fd00::1]", "[ff02::1]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1",
        "192.0.0.1", "224.0.0.1", "255.255.255.255", "metadata.google.internal", "localtest.me", "127.0.0.1.nip.io",
    ]  # fmt: skip
    return [*plain, *loopback, *(f"https://{host}:{port}/x.mp4" for host in hosts), *tricks(port)]


def tricks(port: int) -> list[str]:
    """Addresses that look allowed to one parser and lead to the canary for another."""
    here, good = f"127.0.0.1:{port}", "customer-x.cloudflarestream.com"
    return [
        f"https://{good}@{here}/x.mp4",
        f"https://{good}:x@{here}/x.mp4",
        f"https://{here}@{good}/x.mp4",
        f"https://{good}%40{here}/x.mp4",
        f"https://{good}\\@{here}/x.mp4",
        f"https://{here}\\@{good}/x.mp4",
        f"https://{here}#@{good}/x.mp4",
        f"https://{here}?@{good}/x.mp4",
        f"https://{here}/{good}/x.mp4",
        f"https://{here}&@{good}/x.mp4",
        f"https://{good}.{here}/x.mp4",
        f"https://{good}:{port}/x.mp4",
        f"http://{good}/x.mp4",
        f"http://{good}:443/x.mp4",
        "https://cloudflarestream.com.evil.example/x.mp4",
        "https://evilcloudflarestream.com/x.mp4",
        "https://cloudflarestream.com%2eevil.example/x.mp4",
        "https://cloudflarestream.com%00.evil.example/x.mp4",
        "https://cloudflarestream\u3002com.evil.example/x.mp4",
        "https://cloudflarestre\u0430m.com/x.mp4",
        "https://cloudflarestream.com\u2024evil.example/x.mp4",
        f"https://{good}\r\nHost: {here}\r\n/x.mp4",
        f"https://{good}\t@{here}/x.mp4",
        f"https:/{here}/x.mp4",
        f"https:{here}/x.mp4",
        f"https:///{here}/x.mp4",
        f"//{here}/x.mp4",
        f"{here}/x.mp4",
        f" https://{here}/x.mp4",
        f"file://{here}/etc/passwd",
        "file:///etc/passwd",
        f"ftp://{here}/x.mp4",
        f"gopher://{here}/_GET%20/",
        f"dict://{here}/info",
        f"ldap://{here}/x",
        f"unix:/var/run/docker.sock:{here}",
        f"ws://{here}/x.mp4",
        f"jar:http://{here}!/x.mp4",
        "data:video/mp4;base64,AAAA",
        "javascript:alert(1)",
        "",
        "https://",
        "https://[",
        "https://[::1",
        "https://:443/x.mp4",
        f"https://{good}:99999/x.mp4",
        f"https://{good}:-1/x.mp4",
        "https://" + "a." * 200 + "cloudflarestream.com/x.mp4",
        f"https://{good}/" + "x" * 9000,
    ]


# Names on the list, and what a hostile name server says of them: never a machine outside alone.
RESOLVED_INSIDE: dict[str, list[str]] = {
    "loopback.cloudflarestream.com": ["127.0.0.1"],
    "six.cloudflarestream.com": ["::1"],
    "mapped.cloudflarestream.com": ["::ffff:127.0.0.1"],
    "nat64.cloudflarestream.com": ["64:ff9b::7f00:1"],
    "sixtofour.cloudflarestream.com": ["2002:7f00:1::"],
    "teredo.cloudflarestream.com": ["2001:0:4136:e378:8000:63bf:80ff:fffe"],
    "link.cloudflarestream.com": [METADATA],
    "linklocal.cloudflarestream.com": ["fe80::1%lo"],
    "private.videodelivery.net": ["10.0.0.1"],
    "shared.videodelivery.net": ["100.64.0.1"],
    "unique.videodelivery.net": ["fd00::1"],
    "multicast.videodelivery.net": ["224.0.0.1"],
    "any.videodelivery.net": ["0.0.0.0"],  # noqa: S104  (an address that is refused, not bound)
    "broadcast.videodelivery.net": ["255.255.255.255"],
    "both.cloudflarestream.com": ["104.16.0.1", "127.0.0.1"],
    "bothways.cloudflarestream.com": ["127.0.0.1", "104.16.0.1"],
    "documentation.cloudflarestream.com": ["192.0.2.1"],
    "nonsense.cloudflarestream.com": ["not-an-address"],
}
