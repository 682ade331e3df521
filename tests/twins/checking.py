"""The promises, read off the rows: what a snapshot may say, and what may have happened between two.

It knows the order of the statuses and nothing else of the program, so that a fault there is not repeated here.
"""

from __future__ import annotations

from typing import Any

ORDER = (
    "uploading", "queued", "processing", "stream_ready", "waitformp4", "mp4_processing", "mp4downloading",
    "r2_uploading", "complete", "error",
)  # fmt: skip
FLOOR = dict(zip(ORDER, (15, 30, 50, 60, 70, 75, 85, 95, 100, 0), strict=True))
PAIR = {"waitformp4", "mp4_processing"}
ENDS = {"complete", "error"}
#: Sources whose requests rest on something seen; the others are only ever believed after a look.
SEEN = {"monitor", "step"}
# A person's word, as the machine names its source.
INSISTING = "person"
OUTSIDE_MAX_BYTES = 49_152 + 16_384


def may_move(old: str, new: str) -> bool:
    """Whether a clip may go from *old* to *new* within an attempt."""
    if {old, new} == PAIR:
        return True
    return ORDER.index(new) > ORDER.index(old)


def faults_of(snapshot: dict[str, Any], flooded: set[str]) -> list[str]:
    """What is wrong with the rows by themselves."""
    found = []
    waiting: dict[str, int] = {}
    for signal in snapshot["signals"]:
        waiting[signal["clip_id"]] = waiting.get(signal["clip_id"], 0) + (not signal["observed"])
    for clip in snapshot["clips"]:
        name = clip["id"]
        if clip["look_at"] is None and clip["status"] not in ENDS:
            found.append(f"{name} at {clip['status']} is never looked at again")
        if not 0 <= clip["pending"] <= 1000:
            found.append(f"I14 {name}: {clip['pending']} signals pending")
        if name not in flooded and clip["pending"] != waiting.get(name, 0):
            found.append(f"{name}: {clip['pending']} pending, {waiting.get(name, 0)} in the inbox")
        if not isinstance(clip["processing_details"], dict) or "request" in clip["processing_details"]:
            found.append(f"{name}: the document is {str(clip['processing_details'])[:60]}")
        if clip["status"] != "error" and not FLOOR[clip["status"]] <= clip["progress"] <= 100:
            found.append(f"{name} at {clip['status']} shows {clip['progress']}")
        if (clip["progress"] == 100) != (clip["status"] == "complete") and clip["status"] != "error":
            found.append(f"{name} at {clip['status']} shows {clip['progress']}")
        if clip["epoch"] > snapshot["lease"]["epoch"] and name not in flooded:
            found.append(f"I3 {name} was written in epoch {clip['epoch']} of {snapshot['lease']['epoch']}")
    return found


def faults_between(before: dict[str, Any], after: dict[str, Any], by_hand: set[str]) -> list[str]:
    """What may not have happened between two snapshots; clips moved *by hand* have no history of it."""
    found = _faults_of_history(before["events"], after["events"])
    if after["lease"]["epoch"] < before["lease"]["epoch"]:
        found.append("I3 the lease's epoch fell")
    stood = {clip["id"]: clip for clip in before["clips"]}
    known = {event["id"] for event in before["events"]}
    told: dict[str, list[dict[str, Any]]] = {}
    for event in after["events"]:
        if event["id"] not in known:
            told.setdefault(event["clip_id"], []).append(event)
    for clip in after["clips"]:
        was = stood.pop(clip["id"], None)
        news = told.get(clip["id"], [])
        if was is None:
            found += _faults_of_a_birth(clip, news, by_hand)
        else:
            found += _faults_of_a_change(was, clip)
            if clip["id"] not in by_hand:
                found += _faults_of_the_telling((was["attempt"], was["status"]), clip, news)
    found += [f"clip {clip_id} is gone" for clip_id in stood]
    return found


def _faults_of_history(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    now = {event["id"]: event for event in after}
    return [f"I10 history was rewritten: {event['id']}" for event in before if now.get(event["id"]) != event]


def _faults_of_a_birth(clip: dict[str, Any], news: list[dict[str, Any]], by_hand: set[str]) -> list[str]:
    if [event["kind"] for event in news[:1]] != ["created"]:
        return [f"{clip['id']} came without a line of history"]
    return [] if clip["id"] in by_hand else _faults_of_the_telling((1, "uploading"), clip, news)


def _faults_of_a_change(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """I1, I3, I4 and I5, of the two rows alone: several moves may lie between them."""
    name, found = now["id"], []
    place = [(clip["attempt"], ORDER.index(clip["status"]), clip["progress"]) for clip in (was, now)]
    if {was["status"], now["status"]} == PAIR and was["attempt"] == now["attempt"]:
        place = [(attempt, 0, progress) for attempt, _, progress in place]
    if now["status"] == "error" or was["status"] == "error":
        place = [(attempt, order, 0) for attempt, order, _ in place]
    if place[1] < place[0]:
        found.append(f"I4 {name} went back from {place[0]} to {place[1]}")
    if was["status"] == "error" and now["status"] != "error" and now["attempt"] == was["attempt"]:
        found.append(f"I5 {name} left error without a retry")
    if now["epoch"] < was["epoch"]:
        found.append(f"I3 {name}: epoch {was['epoch']} became {now['epoch']}")
    changed = {column for column in now if now[column] != was[column]}
    if changed and (now["version"] <= was["version"] or now["updated_at"] < was["updated_at"]):
        found.append(f"{name} changed in {sorted(changed)} without a new version")
    return found


def _faults_of_the_telling(stood: tuple[int, str], clip: dict[str, Any], news: list[dict[str, Any]]) -> list[str]:
    """I1, I5, I8 and I10: the history's moves lead from where the clip stood to where it stands, each by the law."""
    found = []
    attempt, status = stood
    for event in news:
        if event["kind"] != "moved":
            continue
        line = f"{clip['id']}: {event['from_status']} > {event['to_status']} by {event['source']}"
        if event["from_status"] != status:
            found.append(f"I10 {line}, but it stood at {status}")
        if event["attempt"] == attempt:
            if status == event["to_status"] or not may_move(status, event["to_status"]):
                found.append(f"I1 {line}")
            if status == "complete" and event["source"] != INSISTING:
                found.append(f"I5 {line}")
            if event["to_status"] != "error" and event["source"] not in SEEN:
                found.append(f"I8 {line}: nobody had looked")
            if event["to_status"] == "error" and event["source"] == "webhook":
                found.append(f"I8 {line}: an error that was only heard of")
        elif event["attempt"] != attempt + 1 or status != "error" or event["to_status"] in ENDS:
            found.append(f"I5 {line}: attempt {attempt} became {event['attempt']}")
        attempt, status = event["attempt"], event["to_status"]
    if (attempt, status) != (clip["attempt"], clip["status"]):
        found.append(
            f"I10 {clip['id']} stands at {clip['status']} {clip['attempt']}, the history says {status} {attempt}"
        )
    return found
