"""Why a clip is where it is, what it waits for, since when, and what happens next: one sentence, for everybody.

    Cloudflare is encoding it (at processing since 14:02:11 UTC, 12 min); the monitor looks again in 12 s, and fails
    it at 2026-11-22 02:02:11 UTC if it is still here.

Two tables, each read from the top: the first row that applies says why the clip stands where it stands, the first of
the other what happens next. Pure: the row, the time and what the lease tells go in. What strangers wrote (reasons,
titles) is cut and freed of control characters, and is for the reader to escape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from orchestrator.pipelines import PIPELINES
from orchestrator.pipelines.limits import RETRY_WAITS, Limit, ends_at, ends_at_the_latest, moment, retry_time, unseen_of
from orchestrator.pipelines.stream.plan import EXPIRY_GRACE, MP4_MAKES
from orchestrator.storage.clips import Clip
from orchestrator.storage.heavy_steps import StepOnHand
from statusutils import COMPLETE, ERROR, STREAM

# The monitor comes round each second and says so every three; five times that is a monitor that hangs.
ROUND_AGE_MAX_SECONDS = 15.0
# A look that is due is taken within a second or two; later, it is worth a word.
_LATE = timedelta(seconds=10)
# As long as a reason of the provider gets, so that the sentence stays one.
_SAID_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Leadership:
    """What the lease tells, by the database's clock at *now*.

    *since* is when the leader took over, or until when there was one; None where that is not known.
    """

    now: datetime
    leads: bool
    since: datetime | None = None
    round_age_seconds: float | None = None

    @property
    def hangs(self) -> bool:
        """Whether somebody leads and does not come round."""
        return self.leads and (self.round_age_seconds or 0) > ROUND_AGE_MAX_SECONDS


_LEADERSHIP = """
SELECT clock_timestamp() AS now, expires_at > clock_timestamp() AS leads,
       CASE WHEN expires_at > clock_timestamp() THEN taken_at WHEN isfinite(expires_at) THEN expires_at END AS since,
       extract(epoch FROM clock_timestamp() - round_at)::float8 AS round_age_seconds
  FROM monitor_lease
"""


async def read_leadership(connection: asyncpg.Connection) -> Leadership:
    """Whether a monitor leads now, and the database's time."""
    return Leadership(**await connection.fetchrow(_LEADERSHIP))


def explain(
    clip: Clip, now: datetime, leadership: Leadership | None = None, heavy_step: StepOnHand | None = None
) -> str:
    """The sentence for *clip* at *now*; without *leadership* nothing is said of the monitor.

    *heavy_step* tells where its heavy step is, if workers have to do with it.
    """
    case = Case(clip, now, leadership, heavy_step)
    why = next(row.says(case) for row in WHY if row.applies(case))
    following = next(row.says(case) for row in NEXT if row.applies(case))
    sentence = _one_line(f"{why}; {following}")
    return f"{sentence[0].upper()}{sentence[1:]}."


def retry_moment(clip: Clip) -> datetime | None:
    """When *clip*, which has failed, is tried again by itself; None where it is not, or where nothing is left of it."""
    pipeline = PIPELINES.get(clip.pipeline)
    if pipeline is None or clip.status != ERROR or pipeline.resume_status(clip) is None:
        return None
    return retry_time(clip)


@dataclass(frozen=True, slots=True)
class Case:
    """One clip at one moment, and what its document says of it; strangers may have written that, so nothing is sure."""

    clip: Clip
    now: datetime
    leadership: Leadership | None
    heavy_step: StepOnHand | None = None

    @property
    def waits_for_worker(self) -> bool:
        """Whether its transfer waits for one of the workers that live."""
        return self.heavy_step is not None and not self.heavy_step.is_running and self.heavy_step.is_served

    @property
    def is_ended(self) -> bool:
        return self.clip.status in (COMPLETE, ERROR)

    @property
    def is_known(self) -> bool:
        pipeline = PIPELINES.get(self.clip.pipeline)
        return pipeline is not None and self.clip.status in pipeline.table

    def text(self, name: str) -> str | None:
        """A detail that is a text with something in it."""
        value = self.clip.processing_details.get(name)
        return _cut(value) or None if isinstance(value, str) else None

    def has(self, name: str) -> bool:
        return bool(self.clip.processing_details.get(name))

    @property
    def waits_for_copy(self) -> bool:
        """Whether the provider has not yet been asked to fetch the clip in this attempt."""
        asked = self.clip.processing_details.get("copied_in_attempt") == self.clip.attempt
        return _is_at(self, "uploading") and self.has("has_source_url") and not asked

    @property
    def problem(self) -> tuple[str, datetime] | None:
        """What failed last, and when, unless the clip has moved or was seen since."""
        problem = self.clip.processing_details.get("last_problem")
        if not isinstance(problem, Mapping) or self.is_ended:
            return None
        at, seen_at = moment(problem.get("at")), moment(self.clip.processing_details.get("last_checked"))
        if at is None or at < self.clip.status_since or (seen_at is not None and seen_at > at):
            return None
        code, text = (
            _cut(value) if isinstance(value, str) else "" for value in (problem.get("code"), problem.get("text"))
        )
        said = text.rstrip(".") or code or "no reason given"
        return (f"{said} ({code})" if code and code != said else said), at

    @property
    def limit(self) -> Limit | None:
        """What holds for the clip's stay; None at an end."""
        pipeline = PIPELINES.get(self.clip.pipeline)
        return pipeline.limits.get(self.clip.status) if pipeline is not None else None

    @property
    def is_stopped(self) -> bool:
        """Whether the clock of its status stands still."""
        return self.limit is not None and unseen_of(self.clip).at is not None

    @property
    def gives_up_at(self) -> datetime | None:
        """When the clip is failed if it does not move; None where nobody would."""
        if self.limit is None:
            return None
        if self.is_stopped:
            return ends_at_the_latest(self.limit, self.clip)
        deadline = ends_at(self.limit, self.clip, self.now)
        expires_at = self.clip.upload_expires_at
        if self.text("cloudflare_status") == "pendingupload" and self.clip.status == "uploading" and expires_at:
            return min(deadline, expires_at + EXPIRY_GRACE)
        return deadline

    @property
    def words(self) -> str | None:
        """What the pipeline says of the status."""
        return PIPELINES[self.clip.pipeline].words.get(self.clip.status)

    @property
    def resume_status(self) -> str | None:
        return PIPELINES[self.clip.pipeline].resume_status(self.clip)

    @property
    def removes_video(self) -> bool:
        """Whether the clip has ended and its video at the provider still has to go."""
        asked, done = self.has("delete_requested"), self.has("deleted_at")
        return self.is_ended and asked and not done and bool(self.clip.cloudflare_uid)

    @property
    def place(self) -> str:
        """The status, and since when."""
        since = self.clip.status_since
        return f"(at {_cut(self.clip.status)} since {self.at(since)}, {spell(self.now - since)})"

    def at(self, moment: datetime) -> str:
        """A moment for people: the time alone when it is today."""
        moment = moment.astimezone(UTC)
        if moment.date() == self.now.astimezone(UTC).date():
            return f"{moment:%H:%M:%S} UTC"
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that may be so, and what is said of it."""

    applies: Callable[[Case], bool]
    says: Callable[[Case], str]


def _always(_: Case) -> bool:
    return True


def _is_at(case: Case, status: str) -> bool:
    return case.clip.pipeline == STREAM.pipeline and case.clip.status == status


def _at(status: str, detail: str | None = None, value: str | None = None) -> Callable[[Case], bool]:
    """Whether the clip is at *status*, and *detail* has that *value*."""
    return lambda case: _is_at(case, status) and (detail is None or case.text(detail) == value)


def _here(words: str) -> Callable[[Case], str]:
    return lambda case: f"{words} {case.place}"


def _says_worker(case: Case) -> str:
    assert case.heavy_step is not None  # noqa: S101 - the row above applies to no other case
    name = case.heavy_step.worker
    who = f"the worker {_cut(name)}" if name else "a worker that was not heard of for seconds"
    return f"{who} is transferring its MP4 into the bucket {case.place}"


# --- Why it stands where it stands ---------------------------------------------------------------------------


def _says_ended(case: Case) -> str:
    clip = case.clip
    if clip.status == COMPLETE:
        words = f"complete since {case.at(clip.completed_at or clip.status_since)}: {case.words or _IN_THE_BUCKET}"
        return f"{words}, and its video was removed at Cloudflare" if case.has("deleted_at") else words
    reason = _cut(clip.error_message or "") or case.text("error_message") or "no reason was given"
    return f"failed at {case.at(clip.status_since)} in attempt {clip.attempt}: {reason.rstrip('.')}"


def _says_problem(case: Case) -> str:
    said, at = case.problem or ("", case.now)
    most = f" ({case.limit.tries} at most)" if case.limit is not None else ""
    tries = f", the last of {case.clip.tries} failed tries{most}" if case.clip.tries > 1 else ""
    return f"{spell(case.now - at)} ago it met a problem{tries}: {said} {case.place}"


def _says_percent(words: str) -> Callable[[Case], str]:
    def says(case: Case) -> str:
        percent = case.clip.processing_details.get("mp4_percent_complete")
        is_number = isinstance(percent, int | float) and not isinstance(percent, bool)
        return f"{words}, {percent:.0f} % so far {case.place}" if is_number else f"{words} {case.place}"

    return says


def _says_unknown(case: Case) -> str:
    return f"this program does not know this status of the pipeline {_cut(case.clip.pipeline)} {case.place}"


_MP4_FAILED = f"Cloudflare failed to make the MP4 and is asked afresh, {MP4_MAKES} times at most"

_IN_THE_BUCKET = "the file is in the bucket"

WHY = (
    Row(lambda case: not case.is_known, _says_unknown),
    Row(lambda case: case.is_ended, _says_ended),
    # Above all that the provider said before: since then something went wrong.
    Row(lambda case: case.problem is not None, _says_problem),
    Row(lambda case: case.waits_for_copy, _here("Cloudflare is being asked to fetch it from its address")),
    Row(
        lambda case: _is_at(case, "uploading") and case.clip.cloudflare_uid is None,
        _here("nobody has named its video at Cloudflare"),
    ),
    Row(_at("uploading", "cloudflare_status", "pendingupload"), _here("Cloudflare waits for the rest of its bytes")),
    Row(_at("uploading", "cloudflare_status", "downloading"), _here("Cloudflare is fetching it from its address")),
    Row(
        lambda case: _is_at(case, "uploading") and case.has("has_source_url"),
        _here("Cloudflare was asked to fetch it from its address"),
    ),
    Row(_at("uploading"), _here("Cloudflare waits for its bytes")),
    Row(_at("queued"), _here("Cloudflare has its bytes and has not begun to encode it")),
    Row(_at("processing"), _here("Cloudflare is encoding it")),
    Row(
        _at("stream_ready"),
        _here("it can be streamed, and its MP4 is asked for when all renditions are made or the wait for them ends"),
    ),
    Row(_at("waitformp4", "mp4_status", "error"), _here(_MP4_FAILED)),
    Row(_at("mp4_processing", "mp4_status", "error"), _here(_MP4_FAILED)),
    Row(_at("waitformp4"), _here("Cloudflare was asked for the MP4 and has not begun to make it")),
    Row(_at("mp4_processing"), _says_percent("Cloudflare is making the MP4")),
    Row(lambda case: case.waits_for_worker, _here("its transfer waits for a free place on a worker")),
    Row(lambda case: case.heavy_step is not None and case.heavy_step.is_running, _says_worker),
    Row(_at("mp4downloading"), _here("the MP4 is being fetched, and nothing of it is in the bucket yet")),
    Row(_at("r2_uploading"), _here("the MP4 is being written to the bucket part by part")),
    Row(_always, lambda case: f"{case.words or 'it is under way'} {case.place}"),
)


# --- What happens next ---------------------------------------------------------------------------------------


def _has_work(case: Case) -> bool:
    """Whether a monitor would do anything for the clip."""
    return case.clip.pending > 0 or case.clip.look_at is not None


def _says_unled(case: Case) -> str:
    since = case.leadership.since if case.leadership else None
    gone = f" since {case.at(since)}" if since else ""
    return f"no monitor leads{gone}, so nothing happens until one runs (`orchestrator monitor`)"


def _says_hanging(case: Case) -> str:
    age = (case.leadership.round_age_seconds or 0) if case.leadership else 0
    return f"the monitor that leads has not come round for {spell_seconds(age)}, and everything waits for it"


def _says_pending(case: Case) -> str:
    count, asked = case.clip.pending, case.text("requested_status")
    waits = f"{count} signals wait to be judged" if count > 1 else "a signal waits to be judged"
    furthest = "the furthest for " if count > 1 else "for "
    return f"{waits}{f', {furthest}{asked}' if asked else ''}: the monitor does that next"


def _says_error(case: Case) -> str:
    if case.resume_status is None:
        return "it stays so, for nothing is left that a new attempt could start from"
    retry_at, following = retry_time(case.clip), case.clip.attempt + 1
    if retry_at is not None:
        when = f"at {case.at(retry_at)}" if retry_at > case.now else "now"
        most = len(RETRY_WAITS) + 1
        return f"it is tried again by itself {when}, in attempt {following} of {most} at most, at {case.resume_status}"
    return (
        f"it stays so until somebody retries it, which starts attempt {case.clip.attempt + 1} at {case.resume_status}"
    )


def _says_look(case: Case) -> str:
    clip, gives_up_at = case.clip, case.gives_up_at
    if gives_up_at is not None and case.now > gives_up_at:
        ended = f"for its time here ended at {case.at(gives_up_at)}"
        return f"{_next_look(case)} and fails it if that does not move it, {ended}"
    if gives_up_at is None or clip.look_at is None:
        return _next_look(case)
    if case.is_stopped:
        words = "its time here stands still until something can be seen of it or done for it"
        return f"{_next_look(case)}; {words}, and ends at {case.at(gives_up_at)} at the latest"
    return f"{_next_look(case)}, and fails it at {case.at(gives_up_at)} if it is still here"


def _next_look(case: Case) -> str:
    look_at = case.clip.look_at
    if look_at is None:
        return "nobody looks at it again"
    if look_at > case.now:
        return f"the monitor looks again in {spell(look_at - case.now)}"
    late = case.now - look_at
    return "the monitor looks now" if late < _LATE else f"the monitor is {spell(late)} late with its next look"


NEXT = (
    Row(lambda case: not case.is_known, lambda case: "only a newer version moves it"),
    # Whatever the row says will happen: without a monitor it does not.
    Row(lambda case: _has_work(case) and case.leadership is not None and not case.leadership.leads, _says_unled),
    Row(lambda case: _has_work(case) and case.leadership is not None and case.leadership.hangs, _says_hanging),
    Row(lambda case: case.clip.pending > 0, _says_pending),
    Row(lambda case: case.removes_video, lambda case: "its video is being removed at Cloudflare"),
    Row(lambda case: case.clip.status == ERROR, _says_error),
    Row(lambda case: case.clip.status == COMPLETE, lambda case: "nothing more happens"),
    Row(_always, _says_look),
)


# --- Words ---------------------------------------------------------------------------------------------------


def spell(span: timedelta) -> str:
    """A span of time in at most two units, like `3 h 20 min`; a negative one counts as none."""
    return spell_seconds(span.total_seconds())


def spell_seconds(seconds: float) -> str:
    """The same for a number of seconds."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _cut(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= _SAID_CHARACTERS else f"{line[:_SAID_CHARACTERS]}…"


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
