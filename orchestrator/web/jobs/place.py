"""The cut pipeline as a web process sees it: where files go, and what refuses when it is switched off."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from orchestrator.pipelines.cut.workshop import Workshop
from orchestrator.settings import Settings
from orchestrator.storage.upload_files import UploadFiles
from orchestrator.web.problems import Problem
from orchestrator.web.services import services_of


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of the cut pipeline on this host."""

    workshop: Workshop
    files: UploadFiles


PLACE: web.AppKey[Place | None] = web.AppKey("cut place", Place)


def place_from(settings: Settings) -> Place | None:
    """The directories the settings name; None when cutting is switched off."""
    workshop = Workshop.at(settings.upload_tmp_dir, settings.process_work_dir, settings.output_root)
    return None if workshop is None else Place(workshop, UploadFiles(workshop.uploads, settings.upload_max_bytes))


def place_of(request: web.Request) -> Place:
    """The directories.

    Raises:
        Problem: cutting is switched off here.
    """
    place = request.app[PLACE]
    if place is None:
        raise Problem("cutting-is-off", "UPLOAD_TMP_DIR, PROCESS_WORK_DIR and OUTPUT_ROOT are not set")
    return place


def outputs_base(request: web.Request) -> str:
    """What comes before ``/outputs`` in the addresses of finished clips, as the caller can reach them."""
    settings = services_of(request).settings
    if settings.outputs_in_bucket:
        return settings.bucket_public_url
    return settings.cdn_base or settings.public_base_url or f"{request.scheme}://{request.host}"


def output_url(request: web.Request, job_id: str, name: str) -> str:
    """The address of a finished clip."""
    return f"{outputs_base(request)}/outputs/{job_id}/{name}"
