"""The headers that keep a browser from doing what no page of ours asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from orchestrator.settings import Settings

_EVERYWHERE = {
    # Instead of the library's, which tells its version.
    "Server": "clip-orchestrator",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not "no-referrer": that turns the Origin of our own forms into "null".
    "Referrer-Policy": "same-origin",
}
_DOCUMENTS = {
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


_API = _EVERYWHERE | {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}


def api_headers() -> Mapping[str, str]:
    """For answers that are no pages: nothing in them may run or be framed."""
    return _API


def page_headers(settings: Settings) -> dict[str, str]:
    """For pages: own scripts and styles, media of the provider and the bucket, and nothing else."""
    headers = _EVERYWHERE | _DOCUMENTS | {"Content-Security-Policy": _policy_of(settings)}
    if (settings.public_base_url or "").startswith("https://"):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return headers


def _policy_of(settings: Settings) -> str:
    return _policy(settings.cloudflare_delivery_hosts, settings.cloudflare_api_url, settings.bucket_public_url)


@lru_cache(maxsize=16)
def _policy(delivery_hosts: tuple[str, ...], api_url: str, bucket_url: str) -> str:
    provider = " ".join(dict.fromkeys([*_sources(delivery_hosts), *_own_stand_in(api_url)]))
    bucket = _origin(bucket_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' {provider} {bucket}",
            f"media-src 'self' blob: {provider} {bucket}",
            f"connect-src 'self' {provider}",
            f"frame-src {provider}",
            "worker-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _sources(delivery_hosts: tuple[str, ...]) -> list[str]:
    """A host stands for itself and all below it, an origin for itself alone."""
    found = []
    for host in delivery_hosts:
        found += [_origin(host)] if "://" in host else [f"https://{host}", f"https://*.{host}"]
    return found


def _own_stand_in(api_url: str) -> list[str]:
    # A stand-in takes uploads at its own address; the real interface never does.
    origin = _origin(api_url)
    return [] if origin == "https://api.cloudflare.com" else [origin]


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
