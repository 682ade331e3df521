"""Sealed answers: opened by their secret alone, unreadable and untouchable otherwise."""

from __future__ import annotations

from orchestrator.web.sealing import seal, unseal


def test_what_was_sealed_is_opened_by_its_secret_alone():
    for plain in (b"", b"x", b"upload-address" * 1000):
        sealed = seal(b"secret", plain)
        assert unseal(b"secret", sealed) == plain
        assert unseal(b"other", sealed) is None
        assert len(plain) < 8 or plain not in sealed


def test_twice_the_same_gives_two_texts():
    assert seal(b"secret", b"plain") != seal(b"secret", b"plain")


def test_a_changed_text_does_not_open():
    sealed = seal(b"secret", b"plain")
    for place in range(len(sealed)):
        touched = bytearray(sealed)
        touched[place] ^= 1
        assert unseal(b"secret", bytes(touched)) is None
    assert unseal(b"secret", b"") is None
    assert unseal(b"secret", sealed[:-1]) is None
