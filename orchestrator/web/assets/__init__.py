"""The files that browsers load: read once, served under an address that changes whenever one of them does."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aiohttp import web

from orchestrator.web.bundles import BUILT
from orchestrator.web.problems import Problem, shorten
from orchestrator.web.views import matches_etag

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# A worker lives under the policy of its own file: it may load our modules and call this service, and nothing else.
_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is served."""

    body: bytes
    content_type: str
    tag: str
    # None where packing gains nothing.
    packed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Assets:
    """All files, and the version that stands in their addresses; modules find each other by relative names."""

    files: dict[str, Asset]
    version: str

    def address(self, name: str) -> str:
        """Where the file *name* is served."""
        if name not in self.files:
            raise KeyError(name)
        return f"/assets/{self.version}/{name}"

    def find(self, name: str) -> str | None:
        """Where the file *name* is served, None when this installation was made without it."""
        return self.address(name) if name in self.files else None


ASSETS: web.AppKey[Assets] = web.AppKey("assets", Assets)


def read_assets(bundles: Path = BUILT) -> Assets:
    """The files beside this one, and the bundles of others, if they were made."""
    files = {}
    theirs = bundles.iterdir() if bundles.is_dir() else ()
    for path in sorted([*theirs, *Path(__file__).parent.iterdir()], key=lambda path: path.name):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            files[path.name] = Asset(body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16], _packed(body))
    version = hashlib.sha256("".join(name + each.tag for name, each in files.items()).encode()).hexdigest()[:12]
    return Assets(files, version)


@lru_cache(maxsize=128)
def _packed(body: bytes) -> bytes | None:
    """*body* by gzip, always the same bytes; hls.js is a third of itself then."""
    packed = gzip.compress(body, 9, mtime=0)
    return packed if len(packed) < len(body) else None


async def show_asset(request: web.Request) -> web.Response:
    """One file. Under its present version it may be kept for ever; under another one it is asked for again."""
    assets = request.app[ASSETS]
    name = request.match_info.get("name", "favicon.svg")
    asset = assets.files.get(name)
    if asset is None:
        raise Problem("not-found", f"There is no file {shorten(name)}")
    is_present = request.match_info.get("version") == assets.version
    is_packed = asset.packed is not None and takes_gzip(request.headers.get("Accept-Encoding", ""))
    tag = f"{asset.tag}-gzip" if is_packed else asset.tag
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": _FOR_EVER if is_present else "no-cache",
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": _POLICY,
    }
    if matches_etag(request.headers.get("If-None-Match", ""), tag):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = asset.content_type
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=asset.packed if is_packed else asset.body, headers=headers)


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header lets gzip in; q=0 means that it does not."""
    for each in accepted.lower().split(","):
        name, _, quality = each.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", quality)
    return False
