"""The state machine: whatever may be done, in any order, on both sides, with everything compared after each step."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.monitor.ticking import Told
from orchestrator.pipelines.terms import Plan, Step
from signals import Signal
from twins import by_hand, steps
from twins.checking import ORDER, faults_between, faults_of
from twins.comparing import differences, same
from twins.sides import PostgresSide, SimulatedSide
from twins.steps import Do

CLIPS = ("a", "b", "c")
ASKING, LEADING = ("api", "web"), ("first", "second")
EVERYBODY = (*ASKING, *LEADING, "owner")

clips = st.sampled_from(CLIPS)
asking = st.sampled_from(ASKING)
leading = st.sampled_from(("first", *LEADING))
everybody = st.sampled_from(EVERYBODY)
statuses = st.sampled_from(ORDER)
asked = st.one_of(statuses, st.sampled_from(["sleeping", "Error", "x" * 120, "ünï", "{}"]))
attempts = st.sampled_from([None, None, None, 0, 1, 2, 3, 10**6])
# Hours apart, so that what the two sides' clocks tell can never be taken for one of these.
waits = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=2), timedelta(days=2)])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 7, 10**12, 10**30, 1.5, 70.25, 0.001]),
    st.sampled_from(["", "1", "007", "text", "ä€😀", "\u0000", "a\u0000b", "\ud800", '"\\', "1999-01-01T00:00:00Z"]),
    st.sampled_from([12_000, 30_000]).map(lambda length: "x" * length),
)
nested = st.one_of(
    st.just([]), st.just({}), st.just([1, {"a": [True, None]}]), st.integers(28, 36).map(lambda n: _nest(n))
)
values = st.one_of(scalars, scalars, nested)
keys = st.sampled_from(["note", "other", "error_message", "created_by", "last_checked"])
documents = st.dictionaries(keys, values, max_size=3)
#: Several at once, some for one clip, by either of its names, some for none.
together = st.builds(
    lambda name, status, details, only_in, hearsay: Signal(
        status, "api", **{name[0]: name[1]}, details=details, only_in=only_in, hearsay=hearsay
    ),
    st.sampled_from([("clip_id", "a"), ("clip_id", "b"), ("clip_id", "c"), ("cloudflare_uid", "ub")]),
    asked,
    documents,
    st.sampled_from([(), ("stream",), ("cut",), ("cut", "stream")]),
    st.booleans(),
)
requests = st.one_of(
    st.sampled_from([7, None, [], "x", {}, {"source": "page"}, {"insists": True, "source": "person"}]),
    st.fixed_dictionaries({"attempt": st.sampled_from([1, 2, "2", "x", -1, 1.5, 10**30, None]), "details": values}),
)
#: What somebody writes into the document who does not know about requests, or knows too well.
naive = st.fixed_dictionaries(
    {},
    optional={
        "requested_status": st.one_of(asked, values),
        "requested_attempt": values,
        "status_request_time": st.sampled_from([None, 1, "1999-01-01T00:00:00Z", "soon"]),
        "request": requests,
        "note": values,
    },
)
no_objects = st.sampled_from(
    ["[]", "null", "7", '"text"', "[1, 2]", "not json", '{"a": 1e5000}', '{"a": [-1e400]}', '{"a": "\\u0000"}']
)


#: In a transaction that has failed, text that is no UTF-8 is refused by the client when it has sent the statement's
#: text before, else by the server: the real connections outlive an example.
_BOTH_REFUSE = [{"InFailedSQLTransactionError", by_client} for by_client in ("DataError", "DetailsNotAccepted")]


def _nest(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Run:
    """What all examples of one run share: the two sides, a loop, and what was counted."""

    def __init__(self, dsn: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.postgres = PostgresSide(dsn)
        self.simulated = SimulatedSide()
        self.examples = 0
        self.steps = 0
        self.outcomes: Counter[str] = Counter()
        self.moves: Counter[tuple[str, str]] = Counter()
        self.loop.run_until_complete(self.postgres.open())

    def close(self) -> None:
        self.loop.run_until_complete(self.postgres.close())
        self.loop.close()


class Twins(RuleBasedStateMachine):
    """One example. *run* is set on a subclass by `machine_for`."""

    run: Run

    def __init__(self) -> None:
        super().__init__()
        self.run.examples += 1
        self.depth: Counter[str] = Counter()
        #: Clips whose counts or epochs somebody has set by hand, and those moved by hand since the last comparison.
        self.loose: set[str] = set()
        self.moved_by_hand: set[str] = set()

    @initialize(bare=st.sampled_from([False] * 7 + [True]))
    def begin(self, bare: bool) -> None:
        """Mostly two of three clips are there, and somebody leads: without them little can happen."""
        self.run.loop.run_until_complete(self._begin())
        if not bare:
            self.both("create", steps.create("api", "a", "ua", None, "{}", "https://a.example/v"))
            self.both("create", steps.create("api", "b", None, None, "{}", None))
            self.both("take", steps.take("first"))

    async def _begin(self) -> None:
        await self.run.postgres.begin_anew()
        await self.run.simulated.begin_anew()
        self.before = await self.run.postgres.snapshot()
        self.stamp = await self._stamp()

    async def _stamp(self) -> tuple[object, object]:
        return await self.run.postgres.stamp(), await self.run.simulated.stamp()

    def both(self, name: str, do: Do) -> Any:
        """Take the step on both sides and compare everything."""
        return self.run.loop.run_until_complete(self._both(name, do))

    async def _both(self, name: str, do: Do) -> Any:
        real = await steps.outcome(self.run.postgres, do)
        simulated = await steps.outcome(self.run.simulated, do)
        self.run.steps += 1
        kind = "done" if real[0] == "value" else " ".join(map(str, filter(None, real)))
        self.run.outcomes[f"{name}: {kind}"] += 1
        if {real[0], simulated[0]} in _BOTH_REFUSE:
            return real
        assert real[0] == simulated[0], f"{name}: {real} and, simulated, {simulated}"
        assert same(list(real), list(simulated)), f"{name}: {real} and, simulated, {simulated}"
        stamp = await self._stamp()
        if stamp == self.stamp:
            return real
        self.stamp = stamp
        now = await self.run.postgres.snapshot()
        self._count_moves(now)
        found = differences(now, await self.run.simulated.snapshot())
        assert not found, f"after {name}: {found}"
        found = faults_of(now, self.loose) + faults_between(self.before, now, self.moved_by_hand)
        assert not found, f"after {name}: {found}"
        self.before = now
        if not any(self.depth.values()):
            self.moved_by_hand.clear()
        return real

    def _count_moves(self, now: dict[str, Any]) -> None:
        stood = {clip["id"]: clip["status"] for clip in self.before["clips"]}
        for clip in now["clips"]:
            if stood.get(clip["id"], clip["status"]) != clip["status"]:
                self.run.moves[stood[clip["id"]], clip["status"]] += 1

    # --- Asking ------------------------------------------------------------------------------------------

    @rule(who=asking, clip=clips, uid=st.sampled_from([None, "ua", "ub"]), doc=documents, url=st.booleans())
    def create(self, who: str, clip: str, uid: str | None, doc: dict[str, Any], url: bool) -> None:
        address = "https://a.example/v" if url else None
        self.both("create", steps.create(who, clip, uid, "A title", _text(doc), address))

    @rule(clip=clips, doc=naive)
    def create_with_a_request(self, clip: str, doc: dict[str, Any]) -> None:
        self.both("create with a request", steps.create("api", clip, None, None, _text(doc), None))

    @rule(who=asking, clip=clips, status=asked, doc=documents, attempt=attempts)
    def signal(self, who: str, clip: str, status: str, doc: dict[str, Any], attempt: int | None) -> None:
        self.both("signal", steps.signal(who, clip, status, doc, "api", attempt=attempt))

    @rule(who=asking, signals=st.lists(together, min_size=1, max_size=5), waits=st.booleans())
    def signals_together(self, who: str, signals: list[Signal], waits: bool) -> None:
        self.both("signals together", steps.signals_together(who, signals, waits=waits))

    @rule(who=asking, clip=clips)
    def poll(self, who: str, clip: str) -> None:
        self.both("poll", steps.standing(who, clip))

    @rule(who=asking, clip=clips, status=asked)
    def hear_of(self, who: str, clip: str, status: str) -> None:
        self.both("hear of", steps.signal(who, clip, status, {"cloudflare_status": "x"}, "webhook", hearsay=True))

    @rule(who=asking, clip=clips)
    def insist(self, who: str, clip: str) -> None:
        self.both("insist", steps.signal(who, clip, "error", {}, "person", insists=True))

    @rule(who=asking, clip=clips, doc=documents)
    def tell_details(self, who: str, clip: str, doc: dict[str, Any]) -> None:
        self.both("tell details", steps.details(who, clip, doc))

    @rule(who=asking, clip=clips, status=statuses)
    def retry(self, who: str, clip: str, status: str) -> None:
        self.both("retry", steps.retry(who, clip, status))

    # --- Deciding ----------------------------------------------------------------------------------------

    @rule(who=leading)
    def take(self, who: str) -> None:
        self._with_the_lease("take", who, steps.take(who))

    @rule(who=leading)
    def take_over(self, who: str) -> None:
        self._with_the_lease("run out", "owner", steps.by_hand("owner", by_hand.LEASE_OVER))
        self._with_the_lease("take over", who, steps.take(who))

    @rule(who=leading, age=st.sampled_from([None, 0.5, 40.0]))
    def renew(self, who: str, age: float | None) -> None:
        self._with_the_lease("renew", who, steps.renew(who, age))

    @rule(who=leading)
    def release(self, who: str) -> None:
        self._with_the_lease("release", who, steps.release(who))

    @rule(who=leading)
    def judge(self, who: str) -> None:
        self._as_leader("judge", who, steps.judge(who, datetime.now(UTC)))

    @rule(who=leading)
    def judge_again(self, who: str) -> None:
        self._as_leader("judge", who, steps.judge(who, datetime.now(UTC)))

    @rule(who=leading, clip=clips)
    def look(self, who: str, clip: str) -> None:
        self.both("look", steps.look(who, clip))

    @rule(
        who=leading, clip=clips, status=statuses, wait=waits, percent=st.sampled_from([None, 0, 33.333, 100]),
        facts=st.sampled_from([{}, {}, {"cloudflare_uid": "ua"}, {"duration": 1.5, "file_size": 7},
                               {"file_size": "x"}, {"uploaded_at": "2026-01-01T00:00:00Z"}, {"r2_url": "https://r"}]),
    )  # fmt: skip
    def move(self, who: str, clip: str, status: str, wait: timedelta, percent: float | None, facts: Any) -> None:
        now = datetime.now(UTC)
        step = Step(status, "seen", facts=facts, details={"mp4_status": status})
        plan = Plan(now + wait, step, step_percent=percent, cleared=("error_message",))
        self._as_leader("move", who, steps.move(who, clip, plan, now))

    @rule(who=leading, clip=clips, status=statuses, wait=waits)
    def look_and_move(self, who: str, clip: str, status: str, wait: timedelta) -> None:
        self.both("look", steps.look(who, clip))
        now = datetime.now(UTC)
        plan = Plan(now + wait, Step(status, "seen", heals=True), details={"last_checked": now.isoformat()})
        self._as_leader("move", who, steps.move(who, clip, plan, now))

    @rule(who=leading, clip=clips, status=statuses, repeats=st.integers(1, 3))
    def see_and_judge(self, who: str, clip: str, status: str, repeats: int) -> None:
        """What an effect does in the end: a step that rests on something seen, and soon a judgement."""
        self.both("look", steps.look(who, clip))
        picture = self.run.postgres.pictures.get(clip)
        for _ in range(repeats):
            said = {"reason": "seen", "facts": {"file_size": 7}}
            self.both("report", steps.report(who, clip, picture.attempt if picture else 1, status, said))
        self._as_leader("judge", who, steps.judge(who, datetime.now(UTC)))

    @rule(who=leading, clip=clips, status=st.sampled_from(["uploading", "queued", "processing", "mp4downloading"]))
    def try_again(self, who: str, clip: str, status: str) -> None:
        self.both("insist", steps.signal("api", clip, "error", {}, "person", insists=True))
        self._as_leader("judge", who, steps.judge(who, datetime.now(UTC)))
        self.both("retry", steps.retry("web", clip, status))
        self._as_leader("judge", who, steps.judge(who, datetime.now(UTC)))

    @rule(who=leading, clip=clips, wait=st.one_of(st.none(), waits), percent=st.sampled_from([None, 50, 99]))
    def stay(self, who: str, clip: str, wait: timedelta | None, percent: float | None) -> None:
        now = datetime.now(UTC)
        plan = Plan(None if wait is None else now + wait, step_percent=percent)
        self._as_leader("stay", who, steps.move(who, clip, plan, now))

    @rule(who=leading, status=statuses)
    def move_all(self, who: str, status: str) -> None:
        for clip in CLIPS:
            self.both("look", steps.look(who, clip))
        self._as_leader("move all", who, steps.move_all(who, status, datetime.now(UTC)))

    @rule(who=leading, clip=clips, is_final=st.booleans())
    def fail(self, who: str, clip: str, is_final: bool) -> None:
        self._as_leader("fail", who, steps.fail(who, clip, datetime.now(UTC), is_final))

    @rule(who=leading, clip=clips, attempt=st.sampled_from([1, 1, 2]), status=statuses, percent=st.floats(0, 100))
    def tick(self, who: str, clip: str, attempt: int, status: str, percent: float) -> None:
        told = {(clip, attempt): Told("stream", status, percent), ("b", 1): Told("stream", "queued", 50)}
        self._as_leader("tick", who, steps.tick(who, told))

    @rule(who=leading, clip=clips, attempt=st.sampled_from([1, 1, 2, 3]), status=asked, doc=documents)
    def report(self, who: str, clip: str, attempt: int, status: str, doc: dict[str, Any]) -> None:
        said = {"reason": "seen", "facts": {"duration": 2.5}, **doc}
        self.both("report", steps.report(who, clip, attempt, status, said))

    @rule(who=leading, clip=clips, attempt=st.sampled_from([1, 1, 2]), doc=documents)
    def merge_report(self, who: str, clip: str, attempt: int, doc: dict[str, Any]) -> None:
        if not self.depth[who]:
            self.both("merge report", steps.merge_report(who, clip, attempt, doc))

    @rule(who=leading)
    def prune(self, who: str) -> None:
        self._with_the_lease("prune", who, steps.prune(who))

    @rule(who=leading, lines=st.sampled_from([1, 5, 1_000]), before=st.sampled_from([steps.LONG_AGO, steps.LONG_AFTER]))
    def walk(self, who: str, lines: int, before: datetime) -> None:
        self.both("walk", steps.walk(who, lines, before))

    def _with_the_lease(self, name: str, who: str, do: Do) -> None:
        """As the program does it, by itself: who waits for whom else would be up to the planner."""
        if not self.depth[who]:
            self.both(name, do)

    def _as_leader(self, name: str, who: str, do: Do) -> None:
        """I3, directly: what was accepted was written in the epoch of the lease."""
        if self.depth[who] and name != "judge":
            # Which rows a statement has locked that it did not write is up to the planner: it shows only while the
            # transaction stays open, and the program's never do.
            return
        what, value = self.both(name, do)
        if what == "value" and value and self.depth[who] == 0:
            term, lease = self.run.postgres.terms.get(who), self.before["lease"]
            assert term is not None, f"I3 {who} wrote without ever having led"
            assert (lease["holder"], lease["epoch"]) == (term.holder, term.epoch), f"I3 {who} wrote after its term"

    # --- Whatever else may come --------------------------------------------------------------------------

    @rule(who=st.sampled_from((*ASKING, "first")), clip=clips, doc=naive)
    def merge_by_hand(self, who: str, clip: str, doc: dict[str, Any]) -> None:
        self.both("merge by hand", steps.by_hand(who, by_hand.MERGE, clip, _text(doc)))

    @rule(who=asking, clip=clips, doc=naive)
    def replace_by_hand(self, who: str, clip: str, doc: dict[str, Any]) -> None:
        self.both("replace by hand", steps.by_hand(who, by_hand.REPLACE, clip, _text(doc)))

    @rule(statement=st.sampled_from([by_hand.MERGE, by_hand.REPLACE, by_hand.UPSERT]), clip=clips, text=no_objects)
    def write_no_object(self, statement: str, clip: str, text: str) -> None:
        self.both("write no object", steps.by_hand("api", statement, clip, text))

    @rule(clip=clips, doc=naive)
    def upsert(self, clip: str, doc: dict[str, Any]) -> None:
        self.both("upsert", steps.by_hand("api", by_hand.UPSERT, clip, _text(doc)))

    @rule(clip=clips, uid=st.sampled_from([None, "ua", "ub"]), doc=naive)
    def insert_or_not(self, clip: str, uid: str | None, doc: dict[str, Any]) -> None:
        self.both("insert or not", steps.by_hand("api", by_hand.INSERT_OR_NOT, clip, uid, _text(doc)))

    @rule(some=st.lists(clips, min_size=1, max_size=3), doc=naive)
    def copy_in(self, some: list[str], doc: dict[str, Any]) -> None:
        if "\\u0000" in _text(doc) or "\ud800" in _text(doc):
            return  # refused by the client or the form of COPY, before there is any row
        self.both("copy", steps.copy_in("api", [(clip, None, _text(doc)) for clip in some]))

    @rule(who=st.sampled_from(("first", "owner")), clip=clips, status=asked, attempt=st.sampled_from([0, 1, 1, 2, 3]),
          progress=st.sampled_from([0, 14.99, 15, 29.99, 29.994, 29.995, 30, 70, 85, 95, 99.99, 100, 101, 999.99]),
          epochs=st.sampled_from([0, 0, 0, -1, 1]))  # fmt: skip
    def move_by_hand(self, who: str, clip: str, status: str, attempt: int, progress: float, epochs: int) -> None:
        self.moved_by_hand.add(clip)
        self.loose.add(clip)
        self.both("move by hand", steps.by_hand(who, by_hand.MOVE, clip, status, attempt, _decimal(progress), epochs))

    @rule(
        statement=st.sampled_from([by_hand.RENAME, by_hand.BLIND, by_hand.CLOSE]), clip=clips,
        who=st.sampled_from(("first", "owner")),
    )  # fmt: skip
    def break_a_rule(self, statement: str, who: str, clip: str) -> None:
        self.both("break a rule", steps.by_hand(who, statement, clip))

    @rule(clip=clips)
    def rewrite_history(self, clip: str) -> None:
        self.both("rewrite history", steps.by_hand("owner", by_hand.REWRITE_HISTORY, clip))

    @rule(clip=clips, pending=st.sampled_from([0, 999, 1000, 1001, -1]))
    def flood(self, clip: str, pending: int) -> None:
        self.loose.add(clip)
        self.both("flood", steps.by_hand("owner", by_hand.FLOOD, clip, pending))

    # --- Transactions, locks, deaths ---------------------------------------------------------------------

    @rule(who=everybody)
    def open_transaction(self, who: str) -> None:
        if self.depth[who] < 2 and self.both("begin", steps.begin(who))[0] == "value":
            self.depth[who] += 1

    @precondition(lambda self: any(self.depth.values()))
    @rule(commits=st.booleans(), data=st.data())
    def end_transaction(self, commits: bool, data: Any) -> None:
        who = data.draw(st.sampled_from([name for name in EVERYBODY if self.depth[name]]))
        self.depth[who] -= 1
        self.both("commit" if commits else "roll back", steps.end(who, commits=commits))

    @rule(who=st.sampled_from((*ASKING, "first")), clip=clips)
    def hold(self, who: str, clip: str) -> None:
        if not self.depth[who] and self.both("begin", steps.begin(who))[0] == "value":
            self.depth[who] += 1
        self.both("hold", steps.by_hand(who, by_hand.HOLD, clip))

    @precondition(lambda self: any(self.depth.values()))
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        who = data.draw(st.sampled_from([name for name in EVERYBODY if self.depth[name]]))
        self.depth[who] = 0
        self.both("kill", steps.kill(who))

    @rule(who=everybody, clip=clips, uid=st.sampled_from(["ua", "ub"]))
    def read(self, who: str, clip: str, uid: str) -> None:
        self.both("read", steps.read(who, clip, uid))


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _decimal(number: float) -> Any:
    return Decimal(str(number))


def machine_for(run: Run) -> type[Twins]:
    """The machine on these sides."""
    return type("TwinsHere", (Twins,), {"run": run})
