"""Every lane: what it proves, whether it needs the machine for itself, and when it counts as hung."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lane:
    """One long proof. Its tests are in ``test_<name>.py`` beside this file.

    A lane that is not *alone* shares the machine with others of its sort: nothing in it depends on real time.
    *limit_minutes* and *long_limit_minutes* end a lane that hangs; each is at least three times what it takes on
    two cores.
    """

    name: str
    proves: str
    is_alone: bool
    limit_minutes: float
    long_limit_minutes: float
    only_long: bool = False


LANES = (
    Lane("gigabyte", "a killed transfer of 1 GiB reads at most one part twice, in bounded memory", True, 6, 6),
    Lane(
        "three_hundred",
        "300 clips complete at a provider that blocks whoever calls too often, without one 429",
        True,
        6,
        6,
    ),
    Lane(
        "model",
        "leadership and judging keep their promises in every interleaving, and not without any one of their guards",
        False,
        10,
        60,
    ),
    Lane(
        "provider",
        "every call to the provider meets every answer it may give: clips complete, or end and say why; nothing twice",
        False,
        15,
        90,
    ),
    Lane(
        "poison",
        "a clip that always fails, in every place and with every exception, delays no other and ends",
        True,
        5,
        40,
    ),
)


def lane(name: str) -> Lane:
    """The lane of that name.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in LANES}[name]
