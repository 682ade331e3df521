"""Looking for secrets in whatever was written: as they are, and in every coat in which they might travel."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Media is copied byte for byte; what a program says stands in smaller files.
_READ_MAX_BYTES = 32 * 1024**2
# What only a signed address or a token of somebody's can look like.
_SIGNED = {
    "a signed address": re.compile(rb"[?&]X-Amz-Signature=[0-9a-f]{8}"),
    "a signature of the bucket": re.compile(rb"AWS4-HMAC-SHA256 Credential=[^*]"),
    "a signed token": re.compile(rb"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\."),
    "a session": re.compile(rb"orchestrator_session=[0-9]{8,}\."),
    "a bearer token": re.compile(rb"Authorization['\"]?: ?['\"]?Bearer [A-Za-z0-9]"),
}


@dataclass(frozen=True, slots=True)
class Hit:
    """Something secret, its coat, where it stands and what stands around it."""

    what: str
    coat: str
    place: str
    around: str


def coats(secret: str) -> dict[str, bytes]:
    """The forms of *secret*; of those that depend on what stands before it, each."""
    raw = secret.encode()
    forms = {
        "plain": raw,
        "percent": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "percent, capitals": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "json escapes": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "hex": raw.hex().encode(),
        "hex, capitals": raw.hex().upper().encode(),
        "html": "".join(f"&#{byte};" for byte in raw).encode(),
        "utf-16": secret.encode("utf-16-le"),
        "backwards": raw[::-1],
    }
    for shift in range(3):
        # Whole groups of three alone: the first and the last letters mix with their neighbours.
        padded = base64.b64encode(b"\0" * shift + raw)
        start, end = (4 if shift else 0), len(padded) // 4 * 4 - 4
        forms[f"base64 at {shift}"] = padded[start:end]
        forms[f"base64, url-safe, at {shift}"] = padded[start:end].translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def search(data: bytes, place: str, secrets: dict[str, str]) -> Iterator[Hit]:
    """Every secret found in *data*; one hit for each of its coats."""
    for what, secret in secrets.items():
        for coat, form in coats(secret).items():
            at = data.find(form)
            if at >= 0:
                yield Hit(what, coat, place, _around(data, at, len(form)))
    for what, pattern in _SIGNED.items():
        found = pattern.search(data)
        if found:
            yield Hit(what, "plain", place, _around(data, found.start(), 40))


def _around(data: bytes, at: int, length: int) -> str:
    """What leads to the place; the secret itself is not told again."""
    before = data[max(0, at - 120) : at].decode("utf-8", "replace")
    after = data[at + length : at + length + 40].decode("utf-8", "replace")
    return f"{before}*****{after}"


def search_files(paths: Iterable[Path], secrets: dict[str, str]) -> tuple[list[Hit], int, int]:
    """Every hit in the files, how many files there were, and how many bytes were read of them."""
    hits, files, size = [], 0, 0
    stem = common_stem(secrets)
    for path in paths:
        if not path.is_file() or path.is_symlink():
            continue
        with path.open("rb") as opened:
            data = opened.read(_READ_MAX_BYTES)
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        files, size = files + 1, size + len(data)
        looked_for = secrets if any(form in data for form in coats(stem).values()) else {}
        hits += search(data, str(path), looked_for)
    return hits, files, size


def common_stem(secrets: dict[str, str]) -> str:
    """What all of them begin with: where it is not, none of them is. Searching for it alone is quicker."""
    first, last = min(secrets.values()), max(secrets.values())
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    # Its codings lose up to four letters at each end.
    return first[:length]
