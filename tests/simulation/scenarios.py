"""What happens in one run: which clips, which processes, what goes wrong and when; all drawn from the seed.

Each run has a few kinds of trouble and lacks the others, so that each kind is met alone, in pairs and in crowds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from simulation.videos import Fate

#: Kinds of trouble a run may have; see `chaos` for what each one does.
TROUBLES = (
    "database calls",
    "database outages",
    "database notices",
    "api calls",
    "api blocks",
    "delivery calls",
    "bucket calls",
    "connections",
    "kills",
    "pauses",
    "stops",
    "clocks",
    "webhooks",
    "forgeries",
    "stale signals",
    "people",
)
# A full hour of it costs thirty times an ordinary run, so few have it.
_HOURS = 0.004


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """One clip: where it comes from, when, and what becomes of its video."""

    number: int
    origin: str
    at_seconds: float
    fate: Fate
    #: When the last byte is there after the address was given; None: never.
    upload_seconds: float | None = 2.0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that befalls the world at one moment: a kind, and a number that says whom or how much."""

    at_seconds: float
    kind: str
    share: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. In the first *trouble_seconds* things go wrong; afterwards nothing does, and all must come to an end."""

    seed: int
    monitors: int
    clips: tuple[ClipPlan, ...]
    troubles: frozenset[str]
    trouble_seconds: float
    #: The share of calls that meet something.
    rate: float
    happenings: tuple[Happening, ...] = ()
    #: Clock rates of the monitors in the first phase.
    rates: tuple[float, ...] = (1.0,)
    #: The provider refuses or fails every call for an hour.
    is_away_for_an_hour: bool = False
    #: The provider's limit, and ours with it: small ones are reached.
    calls: int = 1200
    window_seconds: float = 300.0
    upload_expiry_seconds: int = 21600
    #: How long the provider refuses everything after one call too many; in life it is five minutes.
    block_seconds: float = 300.0
    quality_wait_seconds: float = 20.0
    max_transfers: int = 5
    #: A process that ended is started again after this.
    restart_seconds: float = 1.0


def draw_scenario(seed: int) -> Scenario:
    """The run of *seed*."""
    draw = Random(f"{seed}/scenario")  # noqa: S311 - chance to be repeated, no secret
    troubles = frozenset(kind for kind in TROUBLES if draw.random() < draw.choice((0.15, 0.35, 0.6)))
    seconds = draw.choice((25.0, 40.0, 70.0))
    scenario = Scenario(
        seed=seed,
        monitors=draw.choice((2, 2, 3)),
        clips=tuple(_draw_clip(draw, number, seconds) for number in range(draw.choice((3, 3, 4, 5, 7, 10)))),
        troubles=troubles,
        trouble_seconds=seconds,
        rate=draw.choice((0.01, 0.03, 0.1)),
        quality_wait_seconds=draw.choice((0.0, 10.0, 20.0)),
        max_transfers=draw.choice((1, 2, 5)),
        block_seconds=draw.choice((15.0, 30.0, 30.0, 30.0, 300.0)),
    )
    if "clocks" in troubles:
        scenario = replace(scenario, rates=tuple(draw.choice((0.5, 0.9, 1.0, 1.1, 2.0)) for _ in range(3)))
    if draw.random() < 0.1:
        scenario = replace(scenario, calls=draw.choice((30, 60)), window_seconds=30.0)
    if draw.random() < _HOURS:
        scenario = replace(scenario, is_away_for_an_hour=True, trouble_seconds=3600.0)
    if any(clip.upload_seconds is None for clip in scenario.clips):
        scenario = replace(scenario, upload_expiry_seconds=120)
    return replace(scenario, happenings=_draw_happenings(draw, scenario, seconds))


def _draw_clip(draw: Random, number: int, seconds: float) -> ClipPlan:
    return ClipPlan(
        number=number,
        origin=draw.choice(("upload", "upload", "url", "adopted")),
        at_seconds=draw.uniform(0.0, 0.4 * seconds),
        fate=_draw_fate(draw),
        upload_seconds=None if draw.random() < 0.01 else draw.uniform(0.0, 4.0),
    )


def _draw_fate(draw: Random) -> Fate:
    """Quick ones: time that passes without a decision proves nothing."""
    is_early = draw.random() < 0.3
    # A video that was ready and is not any more: a stage of its own, which an MP4 that fails would prolong by hours.
    breaks = draw.random() < 0.02
    return Fate(
        downloading_seconds=draw.uniform(0.2, 3.0),
        queued_seconds=draw.choice((0.0, draw.uniform(0.0, 3.0))),
        encoding_seconds=draw.uniform(0.2, 6.0),
        playable_share=draw.uniform(0.1, 1.0),
        ready_percent=round(draw.uniform(1, 99), 1) if is_early else 100.0,
        full_after_seconds=draw.uniform(1, 15) if is_early else 0.0,
        error=("ERR_NON_VIDEO", "The file was not recognized as a valid video file.") if draw.random() < 0.04 else None,
        breaks_after_seconds=draw.uniform(0.0, 10.0) if breaks else None,
        mp4_seconds=draw.uniform(0.2, 6.0),
        mp4_failures=0 if breaks else draw.choices((0, 1, 2, 3), (0.9, 0.04, 0.03, 0.03))[0],
        file_lag_seconds=draw.choice((0.0, 0.0, draw.uniform(0.0, 3.0))),
        size_bytes=draw.choice((200, 999, 1000, 1001, 2000, 2500, 3000, 4321)),
        duration_seconds=round(draw.uniform(0.5, 4000), 2),
        is_private=draw.random() < 0.15,
    )


# How many of each happening a run has that has it at all.
_COUNTS = {
    "database outages": ("database restart", 1, 3),
    "api blocks": ("api block", 1, 2),
    "connections": ("cut connections", 2, 6),
    "kills": ("kill", 1, 6),
    "pauses": ("pause", 1, 4),
    "stops": ("stop", 1, 3),
    "clocks": ("clock jump", 1, 4),
    "forgeries": ("forged webhook", 2, 8),
    "stale signals": ("stale signal", 2, 8),
    "people": ("person", 1, 6),
}


def _draw_happenings(draw: Random, scenario: Scenario, seconds: float) -> tuple[Happening, ...]:
    found = []
    for trouble, (kind, least, most) in _COUNTS.items():
        if trouble not in scenario.troubles:
            continue
        for _ in range(draw.randint(least, most)):
            # As long as a moment, or longer than a lease.
            lasting = draw.choice((draw.uniform(0.0, 3.0), draw.uniform(0.0, 3.0), draw.uniform(8.0, 25.0)))
            found.append(Happening(draw.uniform(0.0, seconds), kind, draw.random(), lasting))
    return tuple(sorted(found, key=lambda one: one.at_seconds))
