"""Every lane: what it proves, what it asks of the machine, and when it counts as hung."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Machine(StrEnum):
    """What a lane asks of the machine, and so what may run beside it."""

    QUIET = "quiet"
    """It measures how fast the program is: nothing runs beside it."""
    TIMED = "timed"
    """Real processes keep times with room to spare: one such lane at a time, and beside it what computes."""
    SHARED = "shared"
    """Nothing in it depends on real time: as many at once as there are processors, and they give way."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One long proof. Its tests are in ``test_<name>.py`` beside this file.

    *limit_minutes* and *long_limit_minutes* end a lane that hangs; each is at least three times what it takes on
    two cores.
    """

    name: str
    proves: str
    machine: Machine
    limit_minutes: float
    long_limit_minutes: float
    only_long: bool = False
    # It judges what the others have left, so it runs behind all of them.
    is_last: bool = False


LANES = (
    Lane("gigabyte", "a killed transfer of 1 GiB reads at most one part twice, in bounded memory", Machine.TIMED, 6, 6),
    Lane(
        "three_hundred",
        "300 clips complete at a provider that blocks whoever calls too often, without one 429",
        Machine.TIMED,
        6,
        6,
    ),
    Lane(
        "model",
        "leadership and judging keep their promises in every interleaving, and not without any one of their guards",
        Machine.SHARED,
        30,
        60,
    ),
    Lane(
        "mutants",
        "each promise is claimed by a test that notices its loss: no deliberate bug survives",
        Machine.SHARED,
        40,
        120,
    ),
    Lane(
        "provider",
        "every call to the provider meets every answer it may give: clips complete, or end and say why; nothing twice",
        Machine.SHARED,
        30,
        90,
    ),
    Lane(
        "poison",
        "a clip that always fails, in every place and with every exception, delays no other and ends",
        Machine.TIMED,
        5,
        40,
    ),
    Lane(
        "sql",
        "the statements, the law and the roles hold on a real server whatever is sent; the simulated one does the same",
        Machine.TIMED,
        15,
        200,
    ),
    Lane(
        "webhooks",
        "notifications that are forged, stale, doubled, reordered or nonsense have no effect, also in a flood",
        Machine.TIMED,
        8,
        20,
    ),
    Lane(
        "web",
        "no address leads inside, no text runs, no other site acts, no call meets a fault of the web process's own",
        Machine.TIMED,
        12,
        45,
    ),
    Lane(
        "outages",
        "work resumes by itself in seconds however the database went away; nothing is lost, and a pooler does no harm",
        Machine.TIMED,
        15,
        120,
    ),
    Lane(
        "resources",
        "full disks, few file descriptors and little memory end nothing and break no promise",
        Machine.TIMED,
        6,
        60,
    ),
    Lane(
        "load",
        "500 signals a second through HTTP, signatures and a durable database, and none is lost",
        Machine.QUIET,
        5,
        40,
    ),
    Lane(
        "streams",
        "a thousand readers of events: told in time, cut when slow, forgotten when gone, and none misses a change",
        Machine.QUIET,
        8,
        30,
    ),
    Lane(
        "secrets",
        "no secret is found in what a house says while all fails, nor in what any lane has written",
        Machine.TIMED,
        8,
        10,
        is_last=True,
    ),
    Lane(
        "sometimes",
        "each kind of fault was really met in this run, in the places where it can bite",
        Machine.TIMED,
        2,
        2,
        is_last=True,
    ),
    Lane(
        "pure",
        "whatever is seen of whatever clip, something lawful follows and it ends; kept journals stay as they were",
        Machine.SHARED,
        15,
        120,
    ),
    Lane(
        "bodies",
        "no body that a delivery host may send is taken for a whole file, and each is outlived when it passes",
        Machine.SHARED,
        10,
        60,
    ),
    Lane(
        "bucket",
        "whatever the bucket answers and whoever is killed, an object is the very file, and no upload is left behind",
        Machine.SHARED,
        10,
        60,
    ),
    Lane(
        "kills",
        "monitors and web processes killed, stopped and ended at random lose nothing, and nothing ever goes back",
        Machine.TIMED,
        12,
        90,
    ),
    Lane(
        "workers",
        "three workers and two monitors on hosts of their own, each killed in turn under load: nothing lost or doubled,"
        " throughput back within 15 s",
        Machine.TIMED,
        12,
        12,
    ),
    Lane(
        "splitbrain",
        "a leader frozen, killed, robbed or cut off is replaced within 15 s, and writes nothing more when it is back",
        Machine.TIMED,
        8,
        60,
    ),
    Lane(
        "clocks",
        "whatever the clock of a monitor or of PostgreSQL says, clips complete and one leads again within 15 s",
        Machine.TIMED,
        8,
        25,
    ),
    Lane(
        "soak",
        "the whole program under a fault each minute for 45 minutes: no memory, descriptor or dead row too many",
        Machine.TIMED,
        75,
        75,
        only_long=True,
    ),
    Lane(
        "simulation",
        "real monitors, drivers and handlers keep every promise in drawn worlds where everything goes wrong",
        Machine.SHARED,
        60,
        900,
    ),
    Lane(
        "crashes",
        "a monitor killed at any step, and again while it is succeeded, leaves a clip that still ends right",
        Machine.SHARED,
        60,
        240,
    ),
    Lane("determinism", "a seed repeats its run exactly, in any process", Machine.SHARED, 10, 30),
)


def lane(name: str) -> Lane:
    """The lane of that name.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in LANES}[name]
