"""Where a job stands: never 404, each client's own words, and which of three unknowns it is."""

from __future__ import annotations

import pytest

from orchestrator.identifiers import mint_job_id
from orchestrator.web.jobs.status import WORDS
from statusutils import CUT

PATHS = {"jobs": "/api/jobs", "v1": "/api/v1/jobs"}


async def job(place, status: str = "pending", **details) -> str:
    job_id = mint_job_id(place.clock())
    await place.owner.execute("INSERT INTO clips (id, pipeline) VALUES ($1, 'cut')", job_id)
    if status != "pending":
        floor = CUT[status].min_progress
        ended = ", look_at = NULL, completed_at = clock_timestamp()" if status == "complete" else ""
        await place.monitor.execute(
            f"UPDATE clips SET status = $2, progress = $3{ended} WHERE id = $1", job_id, status, floor
        )
    return job_id


async def ask(client, job_id: str, dialect: str = "jobs"):
    answer = await client.get(f"{PATHS[dialect]}/{job_id}/status")
    assert answer.status == 200
    return await answer.json()


@pytest.mark.parametrize("dialect", WORDS)
async def test_every_status_has_one_word_in_each_dialect(client, place, dialect):
    for status in CUT.by_name:
        said = await ask(client, await job(place, status), dialect)
        state = {"pending": "pending", "complete": "done", "error": "failed"}.get(status, "running")
        assert (said["status"], said["stage"], said["known"]) == (WORDS[dialect][state], status, True)


async def test_a_finished_job_lists_its_clips(client, place):
    job_id = await job(place, "complete")
    await place.monitor.execute(
        "INSERT INTO artifacts (clip_id, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width,"
        " height, has_sound) VALUES ($1, 1, 'clip_001.mp4', 1, 2, 1.02, 999, 160, 90, true)",
        job_id,
    )
    said = await ask(client, job_id, "v1")
    assert (said["status"], said["progress"], said["message"]) == ("done", 100, "Job completed - 100%")
    (artifact,) = said["result"]["artifacts"]
    assert said["outputs"] == [artifact["url"]]
    assert artifact["url"].endswith(f"/outputs/{job_id}/clip_001.mp4")
    assert (artifact["type"], artifact["format"], artifact["id"]) == ("video", "mp4", f"{job_id}_001")


async def test_outputs_are_named_after_the_content_network(cutting, place):
    client = await cutting(cdn_base="https://cdn.example.org")
    job_id = await job(place, "complete")
    await place.monitor.execute(
        "INSERT INTO artifacts (clip_id, number, name, start_seconds, end_seconds, duration_seconds, size_bytes, width,"
        " height, has_sound) VALUES ($1, 1, 'clip_001.mp4', 1, 2, 1, 999, 160, 90, true)",
        job_id,
    )
    said = await ask(client, job_id)
    assert said["outputs"] == [f"https://cdn.example.org/outputs/{job_id}/clip_001.mp4"]


async def test_three_kinds_of_unknown_are_told_apart(client, place):
    wrong = await ask(client, "job_1795276385080_aaaaaaaa")
    assert (wrong["known"], wrong["status"], wrong["poll_after_ms"]) == (False, "pending", None)
    assert "never issued" in wrong["message"]
    young = await ask(client, mint_job_id(place.clock()))
    assert (young["known"], young["poll_after_ms"]) == (False, 2000)
    assert "may appear" in young["message"]
    old = mint_job_id(place.clock())
    place.clock.move(hours=5)
    gone = await ask(client, old)
    assert (gone["known"], gone["poll_after_ms"]) == (False, None)
    assert "no such" in gone["message"]


async def test_an_ended_job_expires_after_an_hour_and_stays_known(client, place):
    job_id = await job(place, "complete")
    since = await place.owner.fetchval("SELECT status_since FROM clips WHERE id = $1", job_id)
    place.clock.at = since
    assert (await ask(client, job_id))["expired"] is False
    place.clock.move(minutes=61)
    said = await ask(client, job_id)
    assert (said["expired"], said["known"], said["status"]) == (True, True, "done")


async def test_odd_ids_are_answers_too(client):
    for job_id in ("x" * 500, "a%2Fb", "%00", "job_", "🎬"):
        assert (await ask(client, job_id))["known"] is False


async def test_health_names_what_is_missing(client, place):
    said = await (await client.get("/api/health/unified")).json()
    assert said["status"] == "degraded"
    assert said["checks"]["database"] == {"ok": False, "says": "no monitor comes round; jobs wait"}
    assert said["checks"]["ffmpeg"]["ok"]
    assert said["checks"]["uploads"]["free_bytes"] > 0
    await place.owner.execute(
        "UPDATE monitor_lease SET expires_at = clock_timestamp() + interval '1 minute', round_at = clock_timestamp()"
    )
    assert (await (await client.get("/api/health/unified")).json())["checks"]["database"]["ok"]


async def test_outputs_are_served_with_ranges_and_nothing_else_is(client, directories):
    folder = directories["output_root"] / "job_1"
    folder.mkdir(parents=True)
    (folder / "clip_001.mp4").write_bytes(b"0123456789")
    (folder / "secret.txt").write_text("canary")
    (folder / "clip_002.mp4").symlink_to(folder / "secret.txt")
    answer = await client.get("/outputs/job_1/clip_001.mp4", headers={"Range": "bytes=2-4"})
    assert (answer.status, await answer.read(), answer.content_type) == (206, b"234", "video/mp4")
    head = await client.head("/outputs/job_1/clip_001.mp4")
    assert (head.status, head.headers["Content-Length"]) == (200, "10")
    for path in ("job_1/secret.txt", "job_1/clip_002.mp4", "job_1/..%2Fx", "..%2F/clip_001.mp4", "job_2/clip_001.mp4"):
        assert (await client.get(f"/outputs/{path}")).status == 404, path
