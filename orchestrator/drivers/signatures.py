"""The signature of the provider's notifications: checking one, and making one.

    Webhook-Signature: time=<unix seconds>,sig1=<64 lower-case hex digits>

sig1 is the HMAC-SHA256 of `time`, a dot and the raw body; the key is the text of the secret as it stands.
There is no id and no counter in it: inside the window a notification can be replayed, so one must be
harmless when it comes twice.

Source: https://developers.cloudflare.com/stream/manage-video-library/using-webhooks/
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

HEADER = "Webhook-Signature"
# The usual window for signed notifications; the provider leaves it to the receiver.
TOLERANCE_SECONDS = 300
# The provider's header has 86 characters. Unknown fields are let in, a header without end is not.
_HEADER_MAX_CHARACTERS = 1024

# Twelve digits reach past the year 30000, and keep the number exact as a float.
_TIME = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


class BadSignature(Exception):
    """The notification is not to be believed; *reason* is a stable word for logs and counters.

    no_secret           nobody told us a secret: every notification is refused
    missing             there is no signature header
    duplicate_header    there are several
    malformed           not the form above
    duplicate_field     `time` or `sig1` (or any other field) stands there twice
    stale               signed too long ago
    early               signed in the future
    mismatch            signed with another secret, or another body
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the signature was refused: {reason}")
        self.reason = reason


def verify(
    raw_body: bytes,
    header_values: Sequence[str],
    secrets: Sequence[str],
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Return only if one of *secrets* signed *raw_body* within *tolerance_seconds* of *now*, either way.

    *header_values* are all values of the header as they came. Several secrets are in force while one is
    rotated; which of them fitted cannot be told from the time this takes.

    Raises:
        BadSignature: in every other case.
    """
    # An empty secret is no secret: everybody can sign with it.
    keys = [secret for secret in secrets if secret]
    if not keys:
        raise BadSignature("no_secret")
    signed_at, signature = _parse(header_values)
    age_seconds = now - int(signed_at)
    # Written so that a clock which is not a number refuses, too.
    if not age_seconds <= tolerance_seconds:
        raise BadSignature("stale")
    if not age_seconds >= -tolerance_seconds:
        raise BadSignature("early")
    matches = [hmac.compare_digest(_digest(raw_body, key, signed_at), signature) for key in keys]
    if not any(matches):
        raise BadSignature("mismatch")


def was_signed(raw_body: bytes, header_values: Sequence[str], secrets: Sequence[str]) -> bool:
    """Whether one of *secrets* signed *raw_body* at the time the header names, however long ago that was.

    Tells one that came too late from a forgery; only `verify` tells whether it may be believed.
    """
    try:
        signed_at, _ = _parse(header_values)
        verify(raw_body, header_values, secrets, int(signed_at))
    except BadSignature:
        return False
    return True


def sign(raw_body: bytes, secret: str, at: float) -> str:
    """The header value with which the provider would send *raw_body* at the moment *at* (unix seconds)."""
    if not secret:
        raise ValueError("an empty secret signs nothing")
    signed_at = str(int(at))
    return f"time={signed_at},sig1={_digest(raw_body, secret, signed_at)}"


def _digest(raw_body: bytes, secret: str, signed_at: str) -> str:
    """The signature of the body at that time; the time goes in letter by letter, as it was sent."""
    mac = hmac.new(secret.encode("utf-8", "surrogateescape"), signed_at.encode("ascii"), hashlib.sha256)
    mac.update(b".")
    mac.update(raw_body)
    return mac.hexdigest()


def _parse(header_values: Sequence[str]) -> tuple[str, str]:
    """The time and the signature, both in the one form they may have."""
    if not header_values:
        raise BadSignature("missing")
    if len(header_values) > 1:
        raise BadSignature("duplicate_header")
    header = header_values[0]
    if len(header) > _HEADER_MAX_CHARACTERS:
        raise BadSignature("malformed")
    fields: dict[str, str] = {}
    for part in header.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise BadSignature("malformed")
        if name in fields:
            raise BadSignature("duplicate_field")
        fields[name] = value
    signed_at, signature = fields.get("time", ""), fields.get("sig1", "")
    if not _TIME.fullmatch(signed_at) or not _SIGNATURE.fullmatch(signature):
        raise BadSignature("malformed")
    return signed_at, signature
