"""Answers kept under an Idempotency-Key, readable only to whoever sends that key again.

An answer may hold a one-time upload address, which must not lie about in a database or its backups. So it is
sealed under a secret made from the caller's token and key, neither of which is stored. Encrypt, then
authenticate: the key stream is SHAKE-256 over secret and nonce, the tag HMAC-SHA256 over nonce and text. Both are
standard constructions, and the standard library has nothing nearer; a library for one field is not worth it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_NONCE_BYTES, _TAG_BYTES = 16, 32


def seal(secret: bytes, plain: bytes) -> bytes:
    """*plain* so that only *secret* opens it; twice the same gives two texts."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    hidden = _xor(plain, secret, nonce)
    return nonce + _tag(secret, nonce + hidden) + hidden


def unseal(secret: bytes, sealed: bytes) -> bytes | None:
    """What was sealed under *secret*; None when it was another one, or the text was changed."""
    nonce, tag = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES : _NONCE_BYTES + _TAG_BYTES]
    hidden = sealed[_NONCE_BYTES + _TAG_BYTES :]
    if not hmac.compare_digest(tag, _tag(secret, nonce + hidden)):
        return None
    return _xor(hidden, secret, nonce)


def _xor(text: bytes, secret: bytes, nonce: bytes) -> bytes:
    stream = hashlib.shake_256(b"stream:" + secret + nonce).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, stream, strict=True))


def _tag(secret: bytes, text: bytes) -> bytes:
    return hmac.new(hashlib.sha256(b"tag:" + secret).digest(), text, hashlib.sha256).digest()
