"""Uploading: files from this computer, or an address the provider fetches."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from orchestrator.web.assets import ASSETS
from orchestrator.web.connections import connection_of
from orchestrator.web.creation import insert_clip, new_clip_from, prepare_clip
from orchestrator.web.edge import may_act
from orchestrator.web.pages.forms import only_looking, read_form
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import EMPTY, Markup, fill, join
from orchestrator.web.problems import Problem
from orchestrator.web.schemas import FORM_MAX_BYTES, TITLE_MAX_CHARACTERS, UPLOAD_MAX_BYTES, URL_MAX_CHARACTERS
from orchestrator.web.services import services_of

_MAIN = """<h1>Upload a clip</h1>
<section class="card">
<h2>From this computer</h2>
<noscript><p class="note">Sending a file needs scripts. Without them give an address below.</p></noscript>
<form data-upload data-resumable="$resumable" data-form-max="$form_max" data-upload-max="$upload_max"
data-title-max="$title_max">
<label class="drop" data-drop>
<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V5m0 0L8 9m4-4l4 4M5 19h14" /></svg>
<strong>Choose videos, or drop them here</strong>
<span class="dim">$limits</span>
<input type="file" name="file" accept="video/*,.mkv,.mts,.mxf" multiple>
</label>
<label data-title-field>Title <input name="title" maxlength="$title_max" placeholder="The file's name"></label>
<p class="note failed" role="alert" data-fault hidden></p>
<button class="primary">Upload</button>
</form>
<ul class="transfers" aria-label="Files" data-transfers hidden></ul>
<template data-row><li class="transfer">
<p><strong data-name></strong> <span class="dim" data-size></span></p>
<progress max="100" value="0" aria-label="Sent" data-sent></progress>
<p class="dim" data-doing></p>
<p class="note failed" role="alert" data-fault hidden></p>
<label class="choice" data-anew hidden><input type="checkbox"> <span>Part of it was sent before, and it goes on there.
Tick to send it from the start, as a new clip.</span></label>
<p class="buttons"><a class="button" data-page hidden target="_blank" rel="noopener">Open its page</a>
<button type="button" data-pause hidden>Pause</button><button type="button" data-retry hidden>Try again</button>
<button type="button" class="danger" data-cancel>Remove</button></p>
</li></template>
<div data-unfinished hidden>
<h2>Begun before</h2>
<p>Choose the same file again, and it goes on where it stopped.</p>
<ul class="transfers" aria-label="Begun before"></ul>
</div>
<template data-unfinished-row><li class="transfer">
<p><strong data-name></strong> <span class="dim" data-size></span></p>
<p class="buttons"><a class="button" data-page>Open its page</a><button type="button">Forget it</button></p>
</li></template>
</section>
<section class="card">
<h2>From an address</h2>
$faults
<form method="post" action="/upload">
<label>Address <input type="url" name="url" required maxlength="$url_max" placeholder="https://"></label>
<label>Title <input name="title" maxlength="$title_max" value="$title"></label>
<p class="dim">The file must be public: the provider fetches it itself.</p>
<button>Fetch</button>
</form>
</section>"""
_LIMITS = "Up to 30 GB each; what breaks off goes on where it stopped"
# An editable install on a machine without Node: see docs/decisions/0011.
_LIMITS_WITHOUT_TUS = (
    "Up to 200 MB each, in one go: this installation was made without the part that sends larger files and resumes"
)
_FAULTS = '<ul class="note failed" role="alert">$items</ul>'
_FAULT = "<li>$field: $reason</li>"


async def show_upload(request: web.Request) -> web.Response:
    """Both forms."""
    if not may_act(request):
        return page(request, "Upload", only_looking("Upload a clip"))
    return page(request, "Upload", _main(request, EMPTY, None), scripts=("upload.js",))


async def take_address(request: web.Request) -> web.Response:
    """Make a clip of the address in the form; what is wrong with it stands beside the form."""
    form = await read_form(request)
    services = services_of(request)
    document: dict[str, Any] = {"source": "url", **{name: form[name] for name in ("url", "title") if name in form}}
    try:
        wanted = new_clip_from(document, services.settings.max_duration_seconds)
    except Problem as problem:
        faults = join(fill(_FAULT, field=fault.field, reason=fault.reason) for fault in problem.errors)
        main = _main(request, fill(_FAULTS, items=faults), form.get("title"))
        return page(request, "Upload", main, scripts=("upload.js",), status=problem.kind.status)
    row = await prepare_clip(services, wanted)
    async with connection_of(request) as connection:
        await insert_clip(connection, row)
    services.wakeups.wake()
    return web.Response(status=303, headers={"Location": f"/clips/{row.clip_id}"})


def _main(request: web.Request, faults: Markup, title: str | None) -> Markup:
    is_resumable = request.app[ASSETS].find("tus.js") is not None
    return fill(
        _MAIN,
        resumable="yes" if is_resumable else "no",
        limits=_LIMITS if is_resumable else _LIMITS_WITHOUT_TUS,
        faults=faults,
        title=title,
        form_max=FORM_MAX_BYTES,
        upload_max=UPLOAD_MAX_BYTES,
        title_max=TITLE_MAX_CHARACTERS,
        url_max=URL_MAX_CHARACTERS,
    )
