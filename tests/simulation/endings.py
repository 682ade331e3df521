"""What must be so when everything has come to an end."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.leadership import LEASE_SECONDS

if TYPE_CHECKING:
    from simulation.world import World

# What a process may cry out about while databases and leases come and go.
_EXPECTED_OUTCRIES = {"a failed try could not be written"}
# Codes that say the world was at fault for a while; no clip may end for that alone.
_BLAMELESS_WORLD = "no clip fails for trouble alone"
_MAKES_PER_ATTEMPT = 3


class Endings:
    """The last look at one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows: list[Any] = list(world.database.rows("clips"))
        self._events: dict[str, list[Any]] = defaultdict(list)
        for line in world.database.rows("clip_events"):
            self._events[line["clip_id"]].append(line)

    def check(self) -> None:
        """Complain about everything that is not as it should be."""
        for row in self._rows:
            self._clip(row)
        self._signals()
        self._provider()
        self._bucket()
        self._program()

    def _complain(self, name: str, text: str) -> None:
        self._world.checker.complain(name, text)

    def _clip(self, row: Any) -> None:
        if row["status"] == "complete":
            for name, text in self._world.truths.of_complete(row):
                self._complain(name, f"{row['id']} in the end: {text}")
        if row["status"] == "error":
            self._error(row)
        told = [line for line in self._events[row["id"]] if line["kind"] in ("created", "moved")]
        last = told[-1] if told else None
        if last is None or (last["to_status"], last["attempt"]) != (row["status"], row["attempt"]):
            self._complain("I10 the history ends where the clip stands", row["id"])

    def _error(self, row: Any) -> None:
        """Somebody or something must be to blame for it: never a service that was away for a while."""
        world, code = self._world, row["processing_details"].get("error_code")
        video = world.stream.find(row["cloudflare_uid"]) if row["cloudflare_uid"] else None
        fate = video.fate if video else None
        reasons = {
            "provider_error": fate is not None and (fate.error is not None or fate.breaks_after_seconds is not None),
            "mp4_failed": fate is not None and fate.mp4_failures >= _MAKES_PER_ATTEMPT,
            "upload_expired": video is not None and video.arrived_at is None,
            "not_found_in_cloudflare": row["cloudflare_uid"] in world.stream.gone,
        }
        if row["id"] in world.people.moved_by_people or reasons.get(code, False):
            return
        self._complain(_BLAMELESS_WORLD, f"{row['id']}: {code}: {row['error_message']}")

    def _signals(self) -> None:
        """Whatever was answered with success is in the history."""
        marks = Counter()
        webhooks: Counter[str] = Counter()
        for clip_id, lines in self._events.items():
            for line in lines:
                mark = line["details"].get("mark")
                if mark:
                    marks[clip_id, line["source"], mark] += 1
                if line["source"] == "webhook":
                    webhooks[clip_id] += 1
        acknowledged: Counter[str] = Counter()
        for clip_id, source, mark in self._world.people.acknowledged:
            if source == "webhook":
                acknowledged[clip_id] += 1
            elif not marks[clip_id, source, mark]:
                self._complain("I11 what was acknowledged was kept", f"{mark} of {clip_id}")
        for clip_id, count in acknowledged.items():
            if webhooks[clip_id] < count:
                self._complain("I11 what was acknowledged was kept", f"{count} webhooks of {clip_id}")

    def _provider(self) -> None:
        stream = self._world.stream
        for video in [*stream.videos.values(), *stream.gone.values()]:
            clip = next((row for row in self._rows if row["cloudflare_uid"] == video.uid), None)
            attempts = clip["attempt"] if clip else 1
            if video.mp4_makes > _MAKES_PER_ATTEMPT * attempts + 2:
                self._complain("I9 MP4s are not made again and again", f"{video.uid}: {video.mp4_makes}")
            repeats = [at for at in video.mp4_repeated_at if not self._is_of_a_slow_clock(at)]
            if repeats and ("enable_download", video.uid) not in self._world.chaos.may_be_late:
                self._complain("I9 an MP4 is asked for when there is none", f"{video.uid}: {len(repeats)}")
        copied_at: dict[str | None, list[datetime]] = defaultdict(list)
        for video in [*stream.videos.values(), *stream.gone.values()]:
            if video.source_url:
                copied_at[video.creator].append(video.created_at)
        # The provider has no key for such calls: one that it does much later finds that it was asked for again.
        may_be_late = any(name == "copy" for name, _ in self._world.chaos.may_be_late)
        for creator, moments in copied_at.items():
            again = [at for at in sorted(moments)[1:] if not self._is_of_a_slow_clock(at)]
            if again and not may_be_late:
                self._complain("I9 a copy is asked for once", f"{creator}: {len(moments)}")
        if any(call.limited for call in stream.calls):
            self._complain("promise 9: the limit is never passed", "a call of ours was one too many")

    def _is_of_a_slow_clock(self, at: datetime) -> bool:
        """Whether a leader that had been succeeded still trusted its lease then, by a clock that runs slow.

        What it writes is refused by its epoch. No provider knows that: docs/promises.md says so.
        """
        rates = self._world.scenario.rates
        for since, former in self._world.checker.succeeded:
            rate = rates[(int(former.partition("#")[0].rpartition("-")[2]) - 1) % len(rates)]
            if rate < 1.0 and since <= at <= since + timedelta(seconds=LEASE_SECONDS / rate):
                return True
        return False

    def _bucket(self) -> None:
        bucket = self._world.bucket
        for row in self._rows:
            key = row["processing_details"].get("r2_key")
            if row["status"] != "complete":
                continue
            bodies = {stored.body for stored in bucket.history.get(key, [])}
            if len(bodies) > 1:
                self._complain("I9 a finished object is never replaced by other bytes", str(key))

    def _program(self) -> None:
        world = self._world
        for node, event, details in world.ground.outcries:
            if event not in _EXPECTED_OUTCRIES and not isinstance(details.get("problem"), world.database_away):
                self._complain("the program does not break", f"{node}: {event} {details}")
        for context in world.loop.problems:
            problem = context.get("exception")
            self._complain("no exception goes unseen", f"{context.get('message')}: {problem!r}")
