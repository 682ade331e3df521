"""Every call to the provider meets everything a provider may answer, once and for a while.

Each cell is a clip driven to its end through the real monitor, drivers and transfer, in virtual time. What is judged
is the outcome: complete with the very bytes that were delivered where it can heal, an end with the right reason where
it cannot; nothing asked for twice, nothing left behind, no more calls than an outage is worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from simulation.cloudflare import SimulatedStream
from simulation.faults import Call, Fault, changed_document
from simulation.provider_faults import AWAY, CATALOGUE, LIMITS, Named
from simulation.surroundings import QUICK, Secrets, Surroundings, in_surroundings
from simulation.videos import Fate

from orchestrator.drivers.cloudflare import CloudflareStream
from orchestrator.drivers.cloudflare_models import VideoState
from orchestrator.drivers.errors import DriverError

if TYPE_CHECKING:
    from lanes.conftest import Figures, Sometimes

pytest_plugins = ["simulation.lane_fixtures"]

# A clip on its way makes this many calls at most when nothing goes wrong, its repetitions included.
_CALLS_OF_A_CLIP = 60
# What an outage may cost: three tries of a look and three of an effect every ten seconds.
_CALLS_A_SECOND_OF_OUTAGE = 0.7


@dataclass(frozen=True, slots=True)
class Route:
    """How a clip comes to need one call."""

    fate: Fate = QUICK
    lists_nothing: bool = False
    is_private: bool = False
    notes_are_lost: bool = False
    is_forgotten: bool = False
    #: The reason it ends with when nothing goes wrong; None: it completes.
    ends: str | None = None


ROUTES = {
    "copy": Route(),
    "find_by_creator": Route(notes_are_lost=True),
    "list": Route(),
    "get": Route(lists_nothing=True),
    # A public video's MP4 is looked for at its address.
    "get_downloads": Route(fate=replace(QUICK, is_private=True), is_private=True, notes_are_lost=True),
    "enable_download": Route(),
    "reset_download": Route(fate=replace(QUICK, mp4_failures=1)),
    "create_token": Route(fate=replace(QUICK, is_private=True), is_private=True),
    "delete": Route(is_forgotten=True, ends="upload_expired"),
}

# What cannot heal by itself, by the fault and the calls at which it ends a clip. All others end where their route does.
_WORK = {"copy", "find_by_creator", "get_downloads", "reset_download", "create_token"}
ENDS: dict[str, tuple[set[str], str]] = {
    "400": (_WORK, "provider_refused"),
    "418": (_WORK, "provider_refused"),
    "413-size": (_WORK | {"enable_download"}, "too_large"),
}
# Odd words are met again and again by looks; of the other calls that takes the time of a release.
_LOOKS = {"list", "get", "get_downloads"}
# What is no fault when it is said for long: the provider knows no such video; or it says each time that the failed MP4
# is taken away, and goes on showing it. Whether that was done cannot be told from a success without a word.
_TAKES_NOTHING_AWAY = ("empty", "null", "list", "no-envelope", "success-missing", "success-as-text", "deep", "not-utf8")
LASTING_ENDS = {("get", name): "not_found_in_cloudflare" for name in ("404", "200-not-found")} | {
    ("reset_download", name): "mp4_failed" for name in (*_TAKES_NOTHING_AWAY, "404", "200-not-found")
}


def expected(call: str, fault: str, *, lasts: bool = False) -> str | None:
    """The reason a clip ends with; None: it completes."""
    calls, code = ENDS.get(fault, (set(), ""))
    ends = code if call in calls else ROUTES[call].ends
    return LASTING_ENDS.get((call, fault), ends) if lasts else ends


async def drive(around: Surroundings, route: Route) -> dict[str, Any]:
    """A clip on *route*, at rest."""
    around.fate = route.fate
    around.stream.lists_nothing = route.lists_nothing
    around.notes_are_lost = route.notes_are_lost
    async with around.program():
        if route.is_forgotten:
            clip_id = await around.forgotten_clip()
        else:
            clip_id = await around.copied_clip(**({"require_signed_urls": True} if route.is_private else {}))
        return await around.until_rest(clip_id)


def assert_end(row: dict[str, Any], code: str | None) -> None:
    """It is complete, or ended with that reason in words and code."""
    details = row["processing_details"]
    assert (row["status"], details.get("error_code")) == (("complete", None) if code is None else ("error", code))
    assert (row["error_message"] is None) == (code is None)


CELLS = [pytest.param(call, named, id=f"{call}-{named.name}") for call in ROUTES for named in CATALOGUE]


@pytest.mark.parametrize(("call", "named"), CELLS)
def test_once(call: str, named: Named, secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    async def cell(around: Surroundings) -> None:
        around.stream_faults.once(call, named.fault)
        row = await drive(around, ROUTES[call])
        met, calls = around.stream_faults.met[call], len(around.stream.calls)
        await around.check()
        assert met == 1, "the clip never made the call"
        assert calls <= _CALLS_OF_A_CLIP
        assert_end(row, expected(call, named.name))

    in_surroundings(cell, secrets)
    note(figures, sometimes, call, named)


@pytest.mark.parametrize(("call", "named"), CELLS)
def test_for_a_while(
    call: str,
    named: Named,
    amount: Callable[[Any, Any], Any],
    secrets: Secrets,
    figures: Figures,
    sometimes: Sometimes,
) -> None:
    if named.family == "words" and call not in _LOOKS and not amount(False, True):
        return
    # What ends a clip when it lasts does so at the third look at most, and looks are minutes apart.
    seconds = 3600 if (call, named.name) in LASTING_ENDS else amount(300, 3600)

    async def cell(around: Surroundings) -> None:
        faults = around.stream_faults
        faults.always(call, named.fault)
        faults.first_met = lambda: around.loop.after(seconds, faults.heal)
        around.mp4_may_be_asked_twice = call == "get_downloads"
        row = await drive(around, ROUTES[call])
        met, calls = faults.met[call], len(around.stream.calls)
        await around.check()
        assert met, "the clip never made the call"
        assert calls <= _CALLS_OF_A_CLIP + seconds * _CALLS_A_SECOND_OF_OUTAGE
        assert_end(row, expected(call, named.name, lasts=True))

    in_surroundings(cell, secrets)
    note(figures, sometimes, call, named, lasts=True)


def note(figures: Figures, sometimes: Sometimes, call: str, named: Named, *, lasts: bool = False) -> None:
    """Count a cell that held."""
    ends = expected(call, named.name, lasts=lasts)
    figures.add(cells=1, completed=int(ends is None), ended_with_reason=int(ends is not None))
    sometimes.saw(named.name, call)


# --- What becomes of a video, rather than of a call ----------------------------------------------------------------

FATES: dict[str, tuple[Fate, str | None]] = {
    "ready-at-39": (replace(QUICK, ready_percent=39.0, full_after_seconds=240.0), None),
    "ready-at-39-for-ever": (replace(QUICK, ready_percent=39.0, full_after_seconds=1e9), None),
    "breaks-as-soon-as-it-is-ready": (replace(QUICK, breaks_after_seconds=0.0), "provider_error"),
    "breaks-before-the-mp4-is-asked-for": (
        replace(QUICK, ready_percent=50.0, full_after_seconds=1e9, breaks_after_seconds=60.0),
        "provider_error",
    ),
    "fails": (replace(QUICK, error=("ERR_MALFORMED_VIDEO", "The video could not be decoded")), "provider_error"),
    "one-mp4-fails": (replace(QUICK, mp4_failures=1), None),
    "two-mp4s-fail": (replace(QUICK, mp4_failures=2), None),
    "served-late": (replace(QUICK, file_lag_seconds=45.0), None),
    "everything-at-once": (
        replace(QUICK, downloading_seconds=0, queued_seconds=0, encoding_seconds=0.01, mp4_seconds=0.01),
        None,
    ),
    "an-hour-each": (
        replace(QUICK, downloading_seconds=3600, queued_seconds=3600, encoding_seconds=3600, mp4_seconds=3600),
        None,
    ),
}


@pytest.mark.parametrize("name", FATES)
def test_fate(name: str, secrets: Secrets, figures: Figures, sometimes: Sometimes) -> None:
    fate, code = FATES[name]

    async def cell(around: Surroundings) -> None:
        row = await drive(around, Route(fate))
        await around.check()
        assert_end(row, code)

    in_surroundings(cell, secrets)
    figures.add(cells=1, completed=int(code is None), ended_with_reason=int(code is not None))
    sometimes.saw(name, "video")


@pytest.mark.parametrize("after_seconds", [0.5, 2, 4, 5.9, 6.1, 7, 10])
def test_a_video_that_breaks_later_is_complete_or_says_why(
    after_seconds: float, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """The MP4 that was being made may still come, or not; what is complete is whole either way."""

    async def cell(around: Surroundings) -> str:
        row = await drive(around, Route(replace(QUICK, breaks_after_seconds=after_seconds)))
        await around.check()
        assert row["status"] == "complete" or row["processing_details"]["error_code"]
        return str(row["status"])

    ended = in_surroundings(cell, secrets)
    figures.add(cells=1, completed=int(ended == "complete"), ended_with_reason=int(ended != "complete"))
    sometimes.saw("breaks later", "video")


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example.com/{uid}/downloads/default.mp4",
        "http://169.254.169.254/{uid}/downloads/default.mp4",
        "https://cloudflarestream.com.evil.example/{uid}/downloads/default.mp4",
        "https://u:p@customer-x.cloudflarestream.com/{uid}/downloads/default.mp4",
        "https://customer-x.cloudflarestream.com:8443/{uid}/downloads/default.mp4",
        "http://customer-x.cloudflarestream.com/{uid}/downloads/default.mp4",
        "https://[::ffff:127.0.0.1]/{uid}/downloads/default.mp4",
        "file:///etc/passwd",
    ],
)
@pytest.mark.parametrize("call", ["get_downloads", "enable_download"])
def test_an_address_of_another_host_is_never_read(
    address: str, call: str, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """As long as the provider names it the clip ends and says so, or waits; once it is right again a clip completes."""

    def point_elsewhere(document: Any) -> Any:
        for one in [document["result"].get("default")]:
            if one:
                # With the video's own id, in whose place a private one's token would go.
                one["url"] = address.format(uid=urlsplit(one["url"]).path.split("/")[1])
        return document

    async def cell(around: Surroundings) -> str:
        opened: list[str] = []
        around.loop.network.fate = _noting(opened, around.loop.network.fate)
        around.stream_faults.always(call, changed_document(point_elsewhere))
        around.stream_faults.first_met = lambda: around.loop.after(600, around.stream_faults.heal)
        row = await drive(around, ROUTES[call])
        await around.check()
        assert set(opened) <= {"provider", "bucket"}, "a host was called that nobody may call"
        assert row["status"] == "complete" or row["processing_details"]["error_code"] == "source_address_not_allowed"
        return str(row["status"])

    ended = in_surroundings(cell, secrets)
    figures.add(cells=1, completed=int(ended == "complete"), ended_with_reason=int(ended != "complete"))
    sometimes.saw("another host", call)


def _noting(opened: list[str], fate: Callable[..., Any]) -> Callable[..., Any]:
    def noted(node: Any, host: str, port: int) -> Any:
        opened.append(host)
        return fate(node, host, port)

    return noted


# --- The calls of people, which no clip's way leads through ---------------------------------------------------------

PERSONS: dict[str, tuple[str, Callable[[CloudflareStream], Awaitable[Any]]]] = {
    "create_direct_upload": ("direct_upload", lambda stream: stream.create_direct_upload(600, "mark", {})),
    "create_tus_upload": ("tus_upload", lambda stream: stream.create_tus_upload(10_000, 600, "mark", "name")),
    "list_in_states": ("list", lambda stream: stream.list_in_states([VideoState.READY])),
    "get_webhook": ("get_webhook", lambda stream: stream.get_webhook()),
    "put_webhook": ("put_webhook", lambda stream: stream.put_webhook("https://clips.example.com/webhooks/stream")),
    "storage_usage": ("storage_usage", lambda stream: stream.storage_usage()),
}


@pytest.mark.parametrize(
    ("person", "named"),
    [pytest.param(person, named, id=f"{person}-{named.name}") for person in PERSONS for named in CATALOGUE],
)
def test_a_person_is_answered(
    person: str, named: Named, secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    """With the result, or with a failure of ours that holds no secret; a second video is never made on the way."""
    call, ask = PERSONS[person]

    async def cell(around: Surroundings) -> None:
        around.stream_faults.once(call, named.fault)
        stream = around.driver()
        try:
            await ask(stream)
        except DriverError as problem:
            said = f"{problem.code} {problem.text}"
            assert secrets.api_token not in said
            assert "://" not in said
        finally:
            await stream.close()
        assert around.stream_faults.met[call] == 1
        assert len(around.stream.videos) <= 1, "one wish made two videos"

    in_surroundings(cell, secrets)
    figures.add(calls_of_people=1)
    sometimes.saw(named.name, call)


# --- An outage of everything ----------------------------------------------------------------------------------------


class Outage:
    """While it lasts nearly every call fails, each in a way that is drawn."""

    def __init__(self, chance: Random, now: Callable[[], float]) -> None:
        self.lasts = True
        self.met: Counter[str] = Counter()
        #: Calls made although the provider had refused them all for a while, and somebody had been told so.
        self.unheeded = 0
        self._refused = (0.0, 0.0)
        self._now = now
        self._chance = chance
        self._faults = {name: LIMITS.get(name) or AWAY[name] for name in _OUTAGE}

    def next(self, call: Call) -> Fault | None:
        if call.service != "stream":
            return None
        told_at, until = self._refused
        self.unheeded += told_at + _ON_ITS_WAY_SECONDS < self._now() < until
        if not self.lasts or self._chance.random() < 0.1:
            return None
        # A refusal of all calls keeps everybody away for minutes: with more of them hardly a call is made.
        name = self._chance.choices(list(self._faults), [1 if name in LIMITS else 8 for name in self._faults])[0]
        self.met[name] += 1
        if name in _REFUSED_SECONDS:
            self._refused = (self._now(), max(until, self._now() + _REFUSED_SECONDS[name]))
        return self._faults[name]


# Five minutes where the answer names no time.
_REFUSED_SECONDS = {"429": 300.0, "429-page": 300.0, "429-few-seconds": 3.0}
# A call may be under way when another one is refused.
_ON_ITS_WAY_SECONDS = 1.0
_OUTAGE = ("429", "429-few-seconds", "429-page", "500", "502-page", "503-wait", "504", "silent", "broken", "empty")


@pytest.mark.parametrize(("seed", "hours"), [(1, 1), (2, 1), (3, 20)])
def test_hours_of_outage_fail_no_clip_and_spare_the_provider(
    seed: int, hours: int, amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes
) -> None:
    clips = amount(40, 200) if hours == 1 else 5

    async def cell(around: Surroundings) -> int:
        outage = Outage(around.loop.draw("outage"), lambda: around.loop.now)
        around.fate = replace(QUICK, encoding_seconds=60)
        async with around.program():
            names = [await around.copied_clip(f"clip-{number}") for number in range(clips)]
            if hours > 1:
                # A copy whose outcome is unknown again and again is given up after an hour and a half of tries.
                for name in names:
                    await around.until_status(name, "queued")
            around.stream.faults = outage
            around.loop.after(hours * 3600, lambda: setattr(outage, "lasts", False))
            rows = [await around.until_rest(name) for name in names]
        fullest = most_calls(around.stream, 300.0)
        await around.check()
        assert {row["status"] for row in rows} == {"complete"}
        assert {row["attempt"] for row in rows} == {1}, "a clip was failed, and tried again"
        assert fullest <= 0.85 * 1200
        assert not set(_OUTAGE) - set(outage.met), "a fault was never met"
        assert not outage.unheeded, "calls were made while the provider refused them all"
        for name, times in outage.met.items():
            sometimes.saw(name, "outage", times)
        return fullest

    fullest = in_surroundings(cell, secrets, seed=seed)
    figures.add(clips_through_an_outage=clips)
    figures.tell(most_calls_in_five_minutes=fullest)


def most_calls(stream: SimulatedStream, window_seconds: float) -> int:
    """The calls in the fullest window of that length."""
    times = [call.at.timestamp() for call in stream.calls]
    most, first = 0, 0
    for last, at in enumerate(times):
        while at - times[first] > window_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


# --- Several at once ------------------------------------------------------------------------------------------------


def test_faults_in_pairs(
    amount: Callable[[Any, Any], Any], secrets: Secrets, figures: Figures, sometimes: Sometimes, commit: str
) -> None:
    """Two or three faults on one way, of kinds that heal; each clip completes."""
    pairs = amount(100, 5_000)
    passing = [named for named in CATALOGUE if named.name not in ENDS]
    for seed in range(pairs):
        chance = Random(seed)  # noqa: S311 - chance to be repeated, no secret
        route = chance.choice([name for name in ROUTES if ROUTES[name].ends is None])
        met = [(chance.choice(list(ROUTES)), chance.choice(passing)) for _ in range(chance.choice((2, 2, 3)))]
        try:
            in_surroundings(lambda around, r=route, m=met: _paired(around, r, m), secrets, seed)  # type: ignore[misc]
        except BaseException:
            said = " and ".join(f"{named.name} at {call}" for call, named in met)
            print(f"lane=provider seed={seed} commit={commit}: {said} on the way to {route}")
            print("repeat: python3 run.py lanes provider")
            raise
        for call, named in met:
            sometimes.saw(named.name, f"{call}, with others")
    figures.add(pairs=pairs, completed=pairs)


async def _paired(around: Surroundings, route: str, met: list[tuple[str, Named]]) -> None:
    for call, named in met:
        around.stream_faults.once(call, *([None] * around.loop.draw("when").choice((0, 0, 1, 2))), named.fault)
    # The provider denies what it did, and what it has: an MP4 may be asked for twice then.
    around.mp4_may_be_asked_twice = any(call == "get_downloads" for call, _ in met)
    row = await drive(around, ROUTES[route])
    await around.check()
    assert_end(row, None)


@pytest.fixture(scope="session", autouse=True)
def judged(figures: Figures) -> None:
    """What every cell is judged by; a cell that breaks one of these has failed."""
    figures.tell(cells=0, completed=0, ended_with_reason=0, false_completes=0, orphans=0, doubled_effects=0)
