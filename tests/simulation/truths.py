"""What a status says of the world, held against the simulated world itself at the moment the status is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from simulation.bucket import SimulatedBucket
from simulation.cloudflare import SimulatedStream
from simulation.videos import SimulatedVideo

Row = dict[str, Any]

# How far the provider is, by its own word, in the order of its states.
_PROVIDER = {"pendingupload": 0, "downloading": 0, "queued": 1, "inprogress": 2, "ready": 3, "error": 3}
_NEEDS = {"queued": 1, "processing": 2, "stream_ready": 3}
_HEAD = "I7 complete is a whole object, seen in the bucket"


class Truths:
    """Provider and bucket as they are."""

    def __init__(self, clock: Callable[[], datetime], stream: SimulatedStream, bucket: SimulatedBucket) -> None:
        self._clock = clock
        self._stream = stream
        self._bucket = bucket
        # What a status of the cut pipeline says and is not so; empty when it is. Whoever has the directories knows.
        self.of_cut: Callable[[Row], str] = lambda _: ""

    def of_move(self, before: Row, after: Row) -> Iterator[tuple[str, str]]:
        """What is not so although the move says it; by the name of the promise."""
        if after["attempt"] != before["attempt"]:
            return  # a new attempt says where to look again from, not what is so
        if after["pipeline"] == "cut":
            if text := self.of_cut(after):
                yield "I8 a status rests on a fact", text
        elif after["status"] == "complete":
            yield from self.of_complete(after, since=before["status_since"])
        elif after["status"] != "error" and (text := self._untrue(after)):
            yield "I8 a status rests on a fact", text

    def of_complete(self, row: Row, since: datetime | None = None) -> Iterator[tuple[str, str]]:
        """What is wrong with the object of a complete clip; looked at after *since*, where that is asked."""
        if row["pipeline"] == "cut":
            return
        key = row["processing_details"].get("r2_key")
        stored = self._bucket.objects.get(key)
        if stored is None:
            yield _HEAD, f"there is nothing at {key}"
            return
        video = self._stream.find(row["cloudflare_uid"])
        if video is None or stored.body not in video.files:
            yield _HEAD, f"{key} holds other bytes than the provider ever served"
        if row["file_size"] != len(stored.body):
            yield _HEAD, f"the clip says {row['file_size']} bytes, the object has {len(stored.body)}"
        if not str(row["r2_url"]).endswith(f"/{key}"):
            yield _HEAD, f"the clip's address {row['r2_url']} is not the object's"
        heads = [call for call in self._bucket.calls if call.name == "head" and call.key == key]
        if since is not None and not any(call.at >= stored.at for call in heads):
            yield _HEAD, f"nobody has looked at {key} since it was written"

    def _untrue(self, row: Row) -> str:
        status = row["status"]
        video = self._stream.find(row["cloudflare_uid"]) if row["cloudflare_uid"] else None
        if video is None:
            return "the provider has no such video"
        if status in _NEEDS:
            return self._not_so_far(video, status, bool(row["processing_details"].get("copied_from_url")))
        if status == "waitformp4" and not video.mp4_makes:
            return "nobody asked for the MP4"
        mp4 = video.mp4(self._clock())
        if status == "mp4_processing" and not video.mp4_makes:
            return "no MP4 is being made"
        if status == "mp4downloading" and (mp4 is None or mp4[0] != "ready"):
            return f"the MP4 is {mp4}"
        if status == "r2_uploading" and not self._has_first_part(row):
            return "no part is in the bucket"
        return ""

    def _not_so_far(self, video: SimulatedVideo, status: str, is_copy: bool) -> str:
        state = video.standing(self._clock()).state
        if status == "queued" and is_copy:
            return ""  # the provider took the address; it says downloading for a while
        return "" if _PROVIDER[state] >= _NEEDS[status] else f"the provider says {state}"

    def _has_first_part(self, row: Row) -> bool:
        uid = row["cloudflare_uid"]
        keys = {f"videos/{uid}.mp4"} | {f"videos/{uid}-{n}.mp4" for n in range(2, row["attempt"] + 1)}
        has_parts = any(upload.key in keys and upload.parts for upload in self._bucket.uploads.values())
        return has_parts or any(key in self._bucket.history for key in keys)
