"""What is kept of a notification's body: readable, enough to replay it, and without anything that opens a door."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from orchestrator.drivers.cloudflare_models import Video

# The provider's have about 1,500 bytes. A larger one costs more than it tells, and is cut to the fields that count.
WHOLE_MAX_BYTES = 12_000
KEPT_MAX_BYTES = 16_384
_REASON_MAX_CHARACTERS = 500

# A word is looked at once, whatever its length: anything that tries again at each letter takes seconds for some texts.
_WORD = re.compile(r"\S+")
_AUTHORITY = re.compile(r"[^/?#\\]*")
_HOST = re.compile(r"(?:[\w.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SCHEME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
_SECRET_NAME = re.compile(r"secret|token|passw|authori[sz]ation|signature|credential|uploadurl|api.?key", re.IGNORECASE)
# Signatures and tokens of addresses in whatever disguise: without their scheme, or written as part of another address.
_SIGNED = re.compile(
    r"((?:x-(?:amz|goog)-[a-z-]{1,40}|sig(?:nature)?|token|key-pair-id|policy|credential)(?:=|%3d))[^&\s\"'<>]+",
    re.IGNORECASE,
)
_LEFT_OUT = "(left out)"
# Where the video is played from: these may be seen with their path, for the page links to them anyway.
_PLAYED_FROM = frozenset({("thumbnail",), ("preview",), ("playback", "hls"), ("playback", "dash")})
# The provider's names have 32 characters; what is longer may be a token in the place of one.
_SEGMENT_MAX_CHARACTERS = 64


def body_to_keep(raw: bytes, video: Video) -> str:
    """The body *raw*, which was parsed as *video*, as JSON text of at most `KEPT_MAX_BYTES` bytes."""
    if len(raw) <= WHOLE_MAX_BYTES:
        text = _as_text(_without_secrets(json.loads(raw), ()))
        if len(text.encode()) <= KEPT_MAX_BYTES:
            return text
    return _as_text(
        {
            "uid": video.uid,
            "readyToStream": video.ready_to_stream,
            "status": {
                "state": without_addresses(video.state_raw[:100]),
                "errorReasonCode": without_addresses((video.error_code or "")[:100]),
                "errorReasonText": without_addresses((video.error_text or "")[:_REASON_MAX_CHARACTERS]),
            },
        }
    )


def _as_text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _without_secrets(value: Any, path: tuple[str, ...]) -> Any:
    """*value*, whose depth was bounded when it was parsed."""
    if isinstance(value, dict):
        return {
            without_addresses(name): _LEFT_OUT if _is_secret(name, each) else _without_secrets(each, (*path, name))
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(each, (*path, "[]")) for each in value]
    if isinstance(value, str):
        return _played_from(value) if path in _PLAYED_FROM else without_addresses(value)
    return value


def _is_secret(name: str, value: Any) -> bool:
    # A flag like requireSignedURLs is none, whatever it is called.
    return not isinstance(value, bool | None) and _SECRET_NAME.search(name) is not None


def without_addresses(text: str) -> str:
    """*text* with each address in it cut to its host, and without what signs one."""
    cut = _WORD.sub(lambda found: _host_alone(found.group()), text) if "://" in text else text
    return _SIGNED.sub(r"\1…", cut)


def _host_alone(word: str) -> str:
    before, is_address, after = word.partition("://")
    if not is_address:
        return word
    start = len(before)
    while start and before[start - 1] in _SCHEME_LETTERS:
        start -= 1
    found = _AUTHORITY.match(after)
    host = (found.group() if found else "").rpartition("@")[2]
    # What is no host may be a part of a password.
    return f"{before[start:]}://{host}/…" if _HOST.fullmatch(host) else f"{before[start:]}://…"


def _played_from(address: str) -> str:
    try:
        parts = urlsplit(address)
        whole = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return _LEFT_OUT
    is_plain = all(len(segment) <= _SEGMENT_MAX_CHARACTERS for segment in parts.path.split("/"))
    return whole if parts.hostname and is_plain and "://" not in parts.path else without_addresses(address)
