"""Finished clips as files: ranges, HEAD, and nothing but what a job has made."""

from __future__ import annotations

import re

from aiohttp import web

from orchestrator.web.jobs.place import place_of
from orchestrator.web.problems import Problem
from orchestrator.web.views import CLIP_ID

_NAME = re.compile(r"clip_[0-9]{3,4}\.mp4")


async def show_output(request: web.Request) -> web.StreamResponse:
    """The clip; names are matched, never joined unseen, so that no path leads elsewhere."""
    job_id, name = request.match_info["id"], request.match_info["name"]
    if not CLIP_ID.fullmatch(job_id) or not _NAME.fullmatch(name):
        raise Problem("not-found", "There is no such file")
    path = place_of(request).workshop.outputs / job_id / name
    if not path.is_file() or path.is_symlink():
        raise Problem("not-found", "There is no such file; a job's clips are there once it exports them")
    # A retry may make the file again, so it is asked for anew; what has not changed costs a 304.
    headers = {"Content-Type": "video/mp4", "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return web.FileResponse(path, headers=headers)
