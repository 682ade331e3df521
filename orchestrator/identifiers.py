"""Clip ids: sortable by time, hard to guess, and able to tell whether they were ever issued.

24 characters of Crockford's base 32: ten for the millisecond, thirteen random, one check character.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_TIME_CHARACTERS, _RANDOM_CHARACTERS = 10, 13


def mint_clip_id(now: datetime) -> str:
    """A new id whose text order is its time order."""
    body = _encode(int(now.timestamp() * 1000), _TIME_CHARACTERS) + _encode(
        secrets.randbits(5 * _RANDOM_CHARACTERS), _RANDOM_CHARACTERS
    )
    return body + _check_character(body)


def minted_at(clip_id: str) -> datetime | None:
    """When an id of ours was made; None for a text that was never one."""
    if clip_id.startswith("job_"):
        return _job_minted_at(clip_id)
    if len(clip_id) != _TIME_CHARACTERS + _RANDOM_CHARACTERS + 1 or any(letter not in _VALUE for letter in clip_id):
        return None
    if _check_character(clip_id[:-1]) != clip_id[-1]:
        return None
    milliseconds = 0
    for letter in clip_id[:_TIME_CHARACTERS]:
        milliseconds = milliseconds * 32 + _VALUE[letter]
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _encode(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> 5 * place) & 31] for place in reversed(range(length)))


def _check_character(body: str) -> str:
    # Weights that are odd are units modulo 32, so any single wrong character shows.
    return _ALPHABET[sum((2 * place + 1) * _VALUE[letter] for place, letter in enumerate(body)) % 32]


_JOB_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_JOB_ID = re.compile(r"job_([0-9]{13})_([0-9a-z]{7})([0-9a-z])")


def mint_job_id(now: datetime) -> str:
    """A new id in the form that clients of the cut pipeline know: ``job_`` + milliseconds + ``_`` + eight characters.

    Seven of them are random, the last one is a check.
    """
    milliseconds = f"{int(now.timestamp() * 1000):013d}"
    body = "".join(secrets.choice(_JOB_ALPHABET) for _ in range(7))
    return f"job_{milliseconds}_{body}{_job_check(milliseconds + body)}"


def _job_minted_at(job_id: str) -> datetime | None:
    parts = _JOB_ID.fullmatch(job_id)
    if parts is None or _job_check(parts[1] + parts[2]) != parts[3]:
        return None
    return datetime.fromtimestamp(int(parts[1]) / 1000, UTC)


def _job_check(body: str) -> str:
    # 37 is a prime: any single wrong character shows, but for one of 37 sums that shares a letter.
    total = sum((place + 1) * _JOB_ALPHABET.index(letter) for place, letter in enumerate(body)) % 37
    return _JOB_ALPHABET[total % 36]
