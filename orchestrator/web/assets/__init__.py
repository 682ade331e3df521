"""The files that browsers load: read once, served under an address that changes whenever one of them does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
            files[path.name] = Asset(body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
    version = hashlib.sha256("".join(name + each.tag for name, each in files.items()).encode()).hexdigest()[:12]
    return Assets(files, version)


async def show_asset(request: web.Request) -> web.Response:
    """One file. Under its present version it may be kept for ever; under another one it is asked for again."""
    assets = request.app[ASSETS]
    name = request.match_info.get("name", "favicon.svg")
    asset = assets.files.get(name)
    if asset is None:
        raise Problem("not-found", f"There is no file {shorten(name)}")
    is_present = request.match_info.get("version") == assets.version
    headers = {
        "ETag": f'"{asset.tag}"',
        "Cache-Control": _FOR_EVER if is_present else "no-cache",
        "Content-Security-Policy": _POLICY,
    }
    if matches_etag(request.headers.get("If-None-Match", ""), asset.tag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=asset.body, headers={"Content-Type": asset.content_type, **headers})
