"""How far clocks may be apart, judged by what a wrong one breaks."""

from __future__ import annotations

from orchestrator.commands.doctor.findings import Finding, fail, ok, warn
from orchestrator.explaining import spell_seconds

# Clocks that are kept by NTP differ by milliseconds; some seconds are a clock nobody keeps.
WARN_SECONDS = 5.0
# Signatures are good for 300 s either way: a fifth of it is gone, and it gets worse by the day.
FAIL_SECONDS = 60.0


def judge_skew(what: str, other: str, skew_seconds: float, doubt_seconds: float) -> Finding:
    """What it means that the clock of *other* is *skew_seconds* ahead of ours; known to *doubt_seconds* either way."""
    apart = max(0.0, abs(skew_seconds) - doubt_seconds)
    if apart <= WARN_SECONDS:
        return ok(what, f"this machine and {other} agree within {max(1.0, apart + doubt_seconds):.0f} s")
    text = (
        f"this machine's clock is {spell_seconds(apart)} {'behind' if skew_seconds > 0 else 'ahead of'} that of {other}"
    )
    remedy = "have NTP keep the clock of this machine (and of the database's)"
    return (fail if apart > FAIL_SECONDS else warn)(what, text, remedy)
