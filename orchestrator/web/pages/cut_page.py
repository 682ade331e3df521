"""Cutting: choose a video, mark what is wanted of it, start."""

from __future__ import annotations

from aiohttp import web

from orchestrator.pipelines.cut.ranges import MOST_CLIPS
from orchestrator.pipelines.cut.request import DEFAULT_CLIP_SECONDS, DEFAULT_MOST_CLIPS
from orchestrator.web.assets import ASSETS
from orchestrator.web.edge import may_act
from orchestrator.web.jobs.place import PLACE
from orchestrator.web.pages.forms import only_looking
from orchestrator.web.pages.layout import page
from orchestrator.web.pages.markup import fill, markup
from orchestrator.web.schemas import TITLE_MAX_CHARACTERS

_OFF = markup("""<h1>Cut a video</h1>
<section class="card notice"><h2>Cutting is switched off here</h2>
<p>Set <code>UPLOAD_TMP_DIR</code>, <code>PROCESS_WORK_DIR</code> and <code>OUTPUT_ROOT</code> to switch it on.</p>
</section>""")
_MAIN = """<h1>Cut a video</h1>
<noscript><p class="note">Marking ranges needs scripts. Without them use the API:
<a href="/api/docs">POST /api/videos/upload, then POST /api/process-video</a>.</p></noscript>
<form data-cut data-resumable="$resumable" data-upload-max="$upload_max" data-most-clips="$most_clips">
<section class="card">
<h2>The video</h2>
<label class="drop" data-drop>
<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V5m0 0L8 9m4-4l4 4M5 19h14" /></svg>
<strong>Choose a video, or drop it here</strong>
<span class="dim" data-chosen>It stays on this computer until you start</span>
<input type="file" name="file" accept="video/*,.mkv,.mts,.mxf" required>
</label>
<label>Title <input name="title" maxlength="$title_max" placeholder="The file's name"></label>
<div data-marking hidden>
<video class="player" controls playsinline preload="metadata" data-preview></video>
<p class="dim" data-no-preview hidden>This browser cannot show the video; times can be typed all the same.</p>
<p class="buttons"><button type="button" data-mark="start">Start here <kbd>I</kbd></button>
<button type="button" data-mark="end">End here <kbd>O</kbd></button>
<span class="dim" data-marked></span></p>
</div>
</section>
<section class="card">
<h2>What to cut</h2>
<fieldset class="choices"><legend class="hidden">How the clips are chosen</legend>
<label class="choice"><input type="radio" name="mode" value="manual" checked> The ranges I mark</label>
<label class="choice"><input type="radio" name="mode" value="automatic"> Even slices from the start</label>
</fieldset>
<div data-manual>
<div class="scroll"><table><thead><tr><th scope="col">Clip</th><th scope="col">Start (s)</th>
<th scope="col">End (s)</th><th scope="col">Length</th>
<th scope="col"><span class="hidden">Remove</span></th></tr></thead>
<tbody data-ranges></tbody></table></div>
<p><button type="button" data-add>Add a range</button></p>
</div>
<div data-automatic hidden>
<label>Seconds of each clip
<input type="number" name="clip_seconds" min="0.1" step="any" value="$clip_seconds"></label>
<label>Clips at most <input type="number" name="max_clips" min="1" max="$most_clips" value="$default_most"></label>
</div>
<label class="choice"><input type="checkbox" name="fast"> Faster, without encoding: each clip begins at the key frame
before its start</label>
<p class="note failed" role="alert" data-fault hidden></p>
<p><button class="primary">Cut</button></p>
</section>
</form>
<section class="card sending" data-sending hidden>
<p><strong data-name></strong> <span class="dim" data-speed></span></p>
<progress max="100" value="0" aria-label="Upload" data-sent></progress>
<p data-doing></p>
<p><button type="button" class="danger" data-cancel>Cancel</button></p>
</section>"""


async def show_cut(request: web.Request) -> web.Response:
    """The form; where cutting is switched off it says so."""
    place = request.app[PLACE]
    if place is None:
        return page(request, "Cut", _OFF)
    if not may_act(request):
        return page(request, "Cut", only_looking("Cut a video"))
    main = fill(
        _MAIN,
        resumable="yes" if request.app[ASSETS].find("tus.js") else "no",
        upload_max=place.files.most_bytes,
        most_clips=MOST_CLIPS,
        title_max=TITLE_MAX_CHARACTERS,
        clip_seconds=f"{DEFAULT_CLIP_SECONDS:g}",
        default_most=DEFAULT_MOST_CLIPS,
    )
    return page(request, "Cut", main, scripts=("cut.js",))
