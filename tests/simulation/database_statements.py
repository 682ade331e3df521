"""Which statements of the program the simulated server knows, looked up by their text, and the functions that run them.

Each carries the fingerprint of the text it was written after: a statement that has changed since is not run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from orchestrator.drivers import budget
from orchestrator.monitor import effects, judging, leadership, looking, moves, ticking
from orchestrator.storage import (
    artifacts,
    clips,
    deliveries,
    heavy_steps,
    provider_asks,
    provider_calls,
    pruning,
    timing,
    uploads,
)
from orchestrator.storage.clips import COLUMNS
from orchestrator.transfer import postgres_checkpoints as transfers
from orchestrator.web import creation, idempotency, live
from signals import WAKE_CHANNEL, asking, together
from simulation import database_asking as of_asking
from simulation import database_cut as of_cut
from simulation import database_looks as of_looks
from simulation import database_monitor as of_monitor
from simulation import database_notes as of_notes
from simulation import database_pruning as of_pruning
from simulation import database_steps as of_steps
from simulation import database_stores as of_stores
from simulation.database_rows import Row, shape
from simulation.database_server import Answer, Handler, Session, Statement

_READ_EVENTS = (
    "SELECT id, at, kind, attempt, from_status, to_status, progress::float8 AS progress, source, details"
    " FROM clip_events WHERE clip_id = $1 AND id > $2 ORDER BY id LIMIT $3"
)
_READ_PENDING = (
    "SELECT requested_status, attempt, source, at FROM clip_signals WHERE clip_id = $1 ORDER BY id LIMIT 1000"
)


def _one(session: Session, args: tuple[object, ...]) -> Answer:
    return [Row(shape("?column?"), (1,))], "SELECT 1"


# name for the wire, text, fingerprint of the text, function
KNOWN: tuple[tuple[str, str, str, Handler], ...] = (
    ("take_lease", leadership._TAKE, "9e2effb3f6ec", of_monitor.take_lease),
    ("renew_lease", leadership._RENEW, "ba263225e964", of_monitor.renew_lease),
    ("release_lease", leadership._RELEASE, "dde22fd099ae", of_monitor.release_lease),
    ("read_due", looking._DUE, "b9f880d11283", of_monitor.read_due),
    ("page_signals", judging._PAGE, "5b66e3cadb01", of_monitor.page_signals),
    ("lock_clips", judging._LOCK, "7ef5b3007e66", of_monitor.lock_clips),
    ("read_signals", judging._SIGNALS, "e6ebc81ab130", of_monitor.read_signals),
    ("write_moves", moves._WRITE, "45b058aeb40a", of_monitor.write_moves),
    ("write_progress", ticking._TICK, "6dba7d2a099b", of_monitor.write_progress),
    ("report_step", effects._REPORT, "c31da5d9943b", of_monitor.report_step),
    ("merge_report", effects._MERGE, "4ba7b3ac6de7", of_monitor.merge_details),
    ("notify", "SELECT pg_notify($1, $2)", "f7599bbef8c3", of_monitor.notify),
    ("read_clock", "SELECT clock_timestamp()", "2461f8bb8070", of_monitor.read_clock),
    ("read_clip", f"SELECT {COLUMNS} FROM clips WHERE id = $1", "c30b82f31593", of_monitor.read_clip),
    (
        "read_clip_by_uid",
        f"SELECT {COLUMNS} FROM clips WHERE cloudflare_uid = $1",
        "cae77eae2d2d",
        of_monitor.read_clip_by_uid,
    ),
    ("read_source_url", "SELECT source_url FROM clips WHERE id = $1", "d958785447d8", of_monitor.read_source_url),
    ("read_events", _READ_EVENTS, "236185c58455", of_asking.read_events),
    ("take_pruning", pruning._TAKE, "fab52c216cf8", of_pruning.take),
    ("window_of_history", pruning._WINDOW, "8f9e29c82db0", of_pruning.window),
    ("pruned_before", pruning._PRUNED_BEFORE, "397c53eed5d7", of_pruning.pruned_before),
    ("signal", asking._SIGNAL, "54b7ef83cd6e", of_asking.signal),
    ("signals_together", together._LEAVING_OUT, "84d1dda4c3a0", of_asking.signals_together),
    ("signals_waiting", together._WAITING, "cbe445bb7d7e", of_asking.signals_waiting),
    ("which_clips", together._WHICH, "4ab4c0c8d5ec", of_asking.which_clips),
    ("read_standings", clips._STANDINGS, "7616b00f6ca5", of_monitor.read_standings),
    ("read_versions", clips._VERSIONS, "3eade405615a", of_monitor.read_versions),
    ("merge_details", asking._DETAILS, "3d3403b5a732", of_asking.merge_details),
    ("retry", asking._RETRY, "42e3e4e791e2", of_asking.retry),
    ("read_pending", _READ_PENDING, "137accd0836e", of_asking.read_pending),
    ("wake", f"NOTIFY {WAKE_CHANNEL}", "c6eb00554ae9", of_asking.wake),
    ("new_clip", creation._INSERT, "fb244510137a", of_asking.new_clip),
    ("claim_key", idempotency._CLAIM, "dd712c91140e", of_asking.claim_key),
    ("read_key", idempotency._READ, "b4287f34f891", of_asking.read_key),
    ("keep_answer", idempotency._KEEP, "ce42888a54c4", of_asking.keep_answer),
    ("give_back_key", idempotency._GIVE_BACK, "11a3c821aa0f", of_asking.give_back_key),
    ("forget_keys", idempotency._FORGET, "078be232c920", of_asking.forget_keys),
    ("newest_event", live._NEWEST_EVENT, "25d29712de69", of_asking.newest_event),
    ("changed_clips", live._CHANGED, "4f53d893c306", of_asking.changed_clips),
    ("recent_clips", live._RECENT, "97ac59c91300", of_asking.recent_clips),
    ("take_calls", budget._TAKE, "3ac08ba4fb13", of_stores.take_calls),
    ("open_account", budget._OPEN, "4b7b8ea5d3dd", of_stores.open_account),
    ("learn_calls", budget._LEARN, "890bae1845fc", of_stores.learn),
    ("load_transfer", transfers._LOAD, "9b0cf59a8874", of_stores.load_transfer),
    ("begin_transfer", transfers._BEGIN, "21c2d5cd86b1", of_stores.begin_transfer),
    ("record_part", transfers._RECORD_PART, "ddfee3bbd8b5", of_stores.record_part),
    ("finish_transfer", transfers._FINISH, "c1299d9a3202", of_stores.finish_transfer),
    ("discard_transfer", transfers._DISCARD, "d926e8a6dd46", of_stores.discard_transfer),
    ("unfinished_transfers", transfers._UNFINISHED, "8d201e2dce4b", of_stores.unfinished_transfers),
    ("live_uploads", transfers._LIVE, "56eb280530a1", of_stores.live_uploads),
    ("discard_unfinished", transfers._DISCARD_UNFINISHED, "20ea25504c30", of_stores.discard_unfinished),
    ("read_upload", uploads._READ, "6e4bfd3d1e20", of_cut.read_upload),
    ("note_artifact", artifacts._NOTE, "6fa711cf52aa", of_cut.note_artifacts),
    ("write_artifacts", artifacts._WRITE, "1294f76e01b9", of_cut.write_artifacts),
    ("keep_deliveries", deliveries._KEEP, "c8d11bd47c32", of_notes.taken),
    ("trim_deliveries", deliveries._TRIM, "398871b246ad", of_notes.forgotten),
    ("forget_deliveries", deliveries._FORGET, "84d760cf77a5", of_notes.forgotten),
    ("count_refusals", deliveries._COUNT, "2185b07f7e2b", of_notes.taken),
    ("forget_refusals", deliveries._FORGET_REFUSALS, "eb7188f084be", of_notes.forgotten),
    ("keep_calls", provider_calls._KEEP, "849607677bc6", of_notes.taken),
    ("forget_calls", provider_calls._FORGET, "649c56c31169", of_notes.forgotten),
    ("note_ask", provider_asks._NOTE, "9ac4a40c95ac", of_looks.note_ask),
    ("forget_asks", provider_asks._FORGET, "a1edc17959e7", of_looks.forget_asks),
    ("read_arrivals", timing._TIMES, "8560d7773b56", of_looks.read_arrivals),
    ("enqueue_steps", heavy_steps._ENQUEUE, "deb704ed02f8", of_steps.enqueue),
    ("hear_of_workers", heavy_steps._HEARD, "b86b4faee9c6", of_steps.hear),
    ("tidy_jobs", heavy_steps._TIDY[0], "86776d04a9a7", of_steps.tidy),
    ("tidy_job_log", heavy_steps._TIDY[1], "6fb07b5739fb", of_steps.tidy),
    ("tidy_worker_progress", heavy_steps._TIDY[2], "80abd488ae46", of_steps.tidy),
    ("tidy_workers", heavy_steps._TIDY[3], "2407a4c0c6e3", of_steps.tidy),
    ("ping", "SELECT 1", "e004ebd5b553", _one),
)


def fingerprint(text: str) -> str:
    """What identifies a statement, whatever its comments and its layout."""
    plain = re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", text)).strip()
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def known_statements() -> dict[str, Statement]:
    """The statements by their text; those whose text has changed are left out."""
    return {text: Statement(name, run) for name, text, known, run in KNOWN if fingerprint(text) == known}


def changed_statements() -> Iterable[str]:
    """The names of those whose text is no longer what its function was written after."""
    return [f"{name}: now {fingerprint(text)}" for name, text, known, _ in KNOWN if fingerprint(text) != known]
