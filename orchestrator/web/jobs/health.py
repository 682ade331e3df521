"""``GET /api/health/unified``: everything the cut pipeline needs, in one answer."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from orchestrator import __version__
from orchestrator.drivers.ffmpeg import FfmpegMissing, find_ffmpeg
from orchestrator.explaining import read_leadership
from orchestrator.storage.pool import DATABASE_AWAY
from orchestrator.storage.upload_files import RESERVE_BYTES
from orchestrator.web.connections import connection_of
from orchestrator.web.jobs.place import PLACE
from orchestrator.web.services import services_of
from orchestrator.web.views import json_response

_TIMEOUT_SECONDS = 3.0


async def show_unified_health(request: web.Request) -> web.Response:
    """Database, monitor, ffmpeg and disks; ``ok`` when nothing of it is missing. Always 200: it is for reading."""
    checks = {"database": await _database(request), **await asyncio.to_thread(_host, request)}
    is_ok = all(check["ok"] for check in checks.values())
    return json_response(
        {"status": "ok" if is_ok else "degraded", "version": __version__, "checks": checks, "docs": "/api/docs"}
    )


async def _database(request: web.Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS), connection_of(request) as connection:
            leadership = await read_leadership(connection)
    except DATABASE_AWAY:
        return {"ok": False, "says": "the database does not answer"}
    if not leadership.leads or leadership.hangs:
        return {"ok": False, "says": "no monitor comes round; jobs wait"}
    return {"ok": True, "monitor_round_age_seconds": leadership.round_age_seconds}


def _host(request: web.Request) -> dict[str, Any]:
    place = request.app[PLACE]
    if place is None:
        return {"cutting": {"ok": False, "says": "UPLOAD_TMP_DIR, PROCESS_WORK_DIR and OUTPUT_ROOT are not set"}}
    try:
        find_ffmpeg(services_of(request).settings.ffmpeg)
        ffmpeg: dict[str, Any] = {"ok": True}
    except FfmpegMissing as problem:
        ffmpeg = {"ok": False, "says": str(problem)}
    workshop = place.workshop
    disks = {"uploads": workshop.uploads, "work": workshop.work, "outputs": workshop.outputs}
    return {"ffmpeg": ffmpeg, **{name: _disk(path) for name, path in disks.items()}}


def _disk(path: Path) -> dict[str, Any]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(path).free
    except OSError as problem:
        return {"ok": False, "says": problem.strerror}
    return {"ok": free_bytes > RESERVE_BYTES, "free_bytes": free_bytes}
