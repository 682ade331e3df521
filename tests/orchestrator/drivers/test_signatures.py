"""A notification is believed only with one of our signatures, whole and of this moment."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.drivers.signatures import BadSignature, sign, verify, was_signed

SECRET = "85011ed3a913c6ad5f9cf6c5573cc0a7"
BODY = b'{"uid":"6b9e68b07dfee8cc2d116e4c51d6a957","readyToStream":true}'
SIGNED_AT = 1230811200
SIGNATURE = "baf8b35ee3c62e48ad7217a648ab1dbaa8ff5d589bd99b023bf821f86cf27f24"
HEADER = f"time={SIGNED_AT},sig1={SIGNATURE}"

secrets_ = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
moments = st.integers(min_value=0, max_value=10**12 - 1)


def refusal(body: bytes, headers: list[str], secrets: list[str], now: float) -> str:
    """The reason for which the notification is refused."""
    with pytest.raises(BadSignature) as refused:
        verify(body, headers, secrets, now)
    return refused.value.reason


def test_the_published_example_is_accepted() -> None:
    verify(BODY, [HEADER], [SECRET], SIGNED_AT)


def test_signing_gives_the_published_example() -> None:
    assert sign(BODY, SECRET, SIGNED_AT + 0.9) == HEADER


@pytest.mark.parametrize("offset", [-300, -299.5, 0, 299.5, 300])
def test_the_window_includes_its_ends(offset: float) -> None:
    verify(BODY, [HEADER], [SECRET], SIGNED_AT + offset)


@pytest.mark.parametrize(
    ("offset", "reason"), [(300.5, "stale"), (301, "stale"), (86_400, "stale"), (-300.5, "early"), (-301, "early")]
)
def test_outside_the_window_it_is_refused(offset: float, reason: str) -> None:
    assert refusal(BODY, [HEADER], [SECRET], SIGNED_AT + offset) == reason


@pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf")])
def test_a_broken_clock_refuses(now: float) -> None:
    assert refusal(BODY, [HEADER], [SECRET], now) in {"stale", "early"}


def test_the_window_can_be_made_narrower() -> None:
    with pytest.raises(BadSignature, match="stale"):
        verify(BODY, [HEADER], [SECRET], SIGNED_AT + 11, tolerance_seconds=10)


@pytest.mark.parametrize("secrets", [[SECRET, "new"], ["new", SECRET], ["", SECRET, ""]])
def test_during_a_rotation_either_secret_counts(secrets: list[str]) -> None:
    verify(BODY, [HEADER], secrets, SIGNED_AT)


@pytest.mark.parametrize("secrets", [[], [""], ["", ""]])
def test_without_a_secret_everything_is_refused(secrets: list[str]) -> None:
    assert refusal(BODY, [HEADER], secrets, SIGNED_AT) == "no_secret"


def test_a_signature_made_with_the_empty_secret_is_refused() -> None:
    forged = hmac.new(b"", f"{SIGNED_AT}.".encode() + BODY, hashlib.sha256).hexdigest()
    header = f"time={SIGNED_AT},sig1={forged}"
    assert refusal(BODY, [header], [""], SIGNED_AT) == "no_secret"
    assert refusal(BODY, [header], ["", SECRET], SIGNED_AT) == "mismatch"
    with pytest.raises(ValueError, match="empty secret"):
        sign(BODY, "", SIGNED_AT)


def test_the_secret_is_text_and_not_hex() -> None:
    forged = hmac.new(bytes.fromhex(SECRET), f"{SIGNED_AT}.".encode() + BODY, hashlib.sha256).hexdigest()
    assert refusal(BODY, [f"time={SIGNED_AT},sig1={forged}"], [SECRET], SIGNED_AT) == "mismatch"


def test_unknown_fields_are_passed_over() -> None:
    verify(BODY, [f"{HEADER},sig2={'0' * 64},v=1"], [SECRET], SIGNED_AT)


def test_a_field_in_any_place_counts() -> None:
    verify(BODY, [f"sig1={SIGNATURE},time={SIGNED_AT}"], [SECRET], SIGNED_AT)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], "missing", id="none"),
        pytest.param([HEADER, HEADER], "duplicate_header", id="the same header twice"),
        pytest.param([HEADER, ""], "duplicate_header", id="a second, empty header"),
        pytest.param([""], "malformed", id="empty"),
        pytest.param([","], "malformed", id="a comma"),
        pytest.param([f"{HEADER},"], "malformed", id="a comma at the end"),
        pytest.param([f"{HEADER},=x"], "malformed", id="a field without a name"),
        pytest.param([f"{HEADER},flag"], "malformed", id="a field without a value"),
        pytest.param([f"{HEADER}, {HEADER}"], "duplicate_field", id="two headers joined by a proxy, with a space"),
        pytest.param([f"{HEADER},{HEADER}"], "duplicate_field", id="two headers joined by a proxy"),
        pytest.param([f"{HEADER},sig1={'0' * 64}"], "duplicate_field", id="two signatures"),
        pytest.param([f"time=1,{HEADER}"], "duplicate_field", id="two times"),
        pytest.param([f"{HEADER},a=1,a=1"], "duplicate_field", id="an unknown field twice"),
        pytest.param([f"time={SIGNED_AT}"], "malformed", id="no signature"),
        pytest.param([f"sig1={SIGNATURE}"], "malformed", id="no time"),
        pytest.param([f"time=,sig1={SIGNATURE}"], "malformed", id="an empty time"),
        pytest.param([f"time=-1,sig1={SIGNATURE}"], "malformed", id="a negative time"),
        pytest.param([f"time=+{SIGNED_AT},sig1={SIGNATURE}"], "malformed", id="a plus sign"),
        pytest.param([f"time={SIGNED_AT}.0,sig1={SIGNATURE}"], "malformed", id="a fraction"),
        pytest.param([f"time=1_230_811_200,sig1={SIGNATURE}"], "malformed", id="underscores"),
        pytest.param([f"time= {SIGNED_AT},sig1={SIGNATURE}"], "malformed", id="a space"),
        pytest.param([f"time=١٢٣,sig1={SIGNATURE}"], "malformed", id="digits of another script"),
        pytest.param([f"time=1e9,sig1={SIGNATURE}"], "malformed", id="an exponent"),
        pytest.param([f"time={'9' * 5000},sig1={SIGNATURE}"], "malformed", id="a number without end"),
        pytest.param([f"time={'9' * 13},sig1={SIGNATURE}"], "malformed", id="a far future"),
        pytest.param([f"time={SIGNED_AT},sig1={SIGNATURE.upper()}"], "malformed", id="upper-case hex"),
        pytest.param([f"time={SIGNED_AT},sig1={SIGNATURE[:-1]}"], "malformed", id="63 digits"),
        pytest.param([f"time={SIGNED_AT},sig1={SIGNATURE}0"], "malformed", id="65 digits"),
        pytest.param([f"time={SIGNED_AT},sig1={SIGNATURE}\n"], "malformed", id="a line end"),
        pytest.param([f"time={SIGNED_AT},sig1={SIGNATURE[:-1]}g"], "malformed", id="not hex"),
        pytest.param([f"Time={SIGNED_AT},Sig1={SIGNATURE}"], "malformed", id="other case"),
        pytest.param([f"{HEADER},v={'x' * 2000}"], "malformed", id="a header without end"),
        pytest.param([f"time={SIGNED_AT},sig1={'0' * 64}"], "mismatch", id="another signature"),
        pytest.param([f"time={SIGNED_AT + 1},sig1={SIGNATURE}"], "mismatch", id="another time"),
        pytest.param([f"time=0{SIGNED_AT},sig1={SIGNATURE}"], "mismatch", id="the same time, written otherwise"),
    ],
)
def test_a_header_of_any_other_form_is_refused(headers: list[str], reason: str) -> None:
    assert refusal(BODY, headers, [SECRET], SIGNED_AT) == reason


def test_the_refusal_tells_neither_secret_nor_signature() -> None:
    with pytest.raises(BadSignature) as refused:
        verify(b"other", [HEADER], [SECRET], SIGNED_AT)
    assert SECRET not in repr(refused.value)
    assert SIGNATURE not in repr(refused.value)


# No deadline for one example: a busy machine is not a fault.
@settings(deadline=None)
@given(body=st.binary(max_size=200), secret=secrets_, at=moments, offset=st.integers(-300, 300))
def test_what_was_signed_is_accepted_within_the_window(body: bytes, secret: str, at: int, offset: int) -> None:
    verify(body, [sign(body, secret, at)], [secret], at + offset)


@settings(deadline=None)
@given(body=st.binary(min_size=1, max_size=200), at=moments, data=st.data())
def test_one_changed_byte_is_noticed(body: bytes, at: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(1, 255))
    changed = body[:place] + bytes([body[place] ^ other]) + body[place + 1 :]
    assert refusal(changed, [sign(body, SECRET, at)], [SECRET], at) == "mismatch"


@settings(deadline=None)
@given(body=st.binary(max_size=50), secret=secrets_, other=secrets_)
def test_another_secret_does_not_fit(body: bytes, secret: str, other: str) -> None:
    # HMAC pads a key with zero bytes, so these two would be the same key.
    if secret.encode().rstrip(b"\0") == other.encode().rstrip(b"\0"):
        return
    assert refusal(body, [sign(body, secret, SIGNED_AT)], [other], SIGNED_AT) == "mismatch"


@settings(deadline=None)
@given(headers=st.lists(st.text(max_size=120), max_size=3), now=st.floats())
def test_no_header_gets_through_by_chance_or_breaks_anything(headers: list[str], now: float) -> None:
    with pytest.raises(BadSignature):
        verify(BODY, headers, [SECRET], now)


@pytest.mark.parametrize("age_seconds", [0, 301, 10**8, -(10**8)])
def test_what_was_really_signed_is_told_from_a_forgery_however_old_it_is(age_seconds: int) -> None:
    now = 1_800_000_000
    header = sign(b"body", "the-secret-of-the-account", now - age_seconds)
    secrets = ["another-secret-in-force", "the-secret-of-the-account"]
    assert was_signed(b"body", [header], secrets)
    assert not was_signed(b"other", [header], secrets)
    assert not was_signed(b"body", [header], ["another-secret-in-force"])
    assert not was_signed(b"body", [header, header], secrets)
    assert not was_signed(b"body", [header], ["", ""])
    assert not was_signed(b"body", [], secrets)
