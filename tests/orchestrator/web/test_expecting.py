"""The estimate: learned from clips that were completed, silent as long as there are too few."""

from __future__ import annotations

from orchestrator.web.expecting import SAMPLES_MIN


async def complete(place, name: str, seconds_per_step: int) -> None:
    """A clip that took that long for each of two steps, in its history."""
    await place.clip(name)
    await place.forget_history(name)
    for step, (kind, status) in enumerate((("created", "uploading"), ("moved", "processing"), ("moved", "complete"))):
        await place.owner.execute(
            "INSERT INTO clip_events (clip_id, kind, attempt, to_status, source, at)"
            " VALUES ($1, $2, 1, $3, 'monitor', clock_timestamp() - interval '1 h' + $4 * interval '1 s')",
            name, kind, status, step * seconds_per_step,
        )  # fmt: skip


async def test_too_few_clips_say_nothing_and_enough_of_them_their_median(place):
    for number in range(SAMPLES_MIN):
        if number == SAMPLES_MIN - 1:
            client = await place.start()
            await place.clip("few")
            assert (await (await client.get("/api/clips/few/status")).json())["eta_seconds"] is None
        await complete(place, f"old{number}", 100 + number)
    client = await place.start()
    await place.clip("new")
    place.clock.at = await place.owner.fetchval("SELECT status_since FROM clips WHERE id = 'new'")
    assert (await (await client.get("/api/clips/new/status")).json())["eta_seconds"] == 204
    place.clock.move(seconds=50)
    assert (await (await client.get("/api/clips/new/status")).json())["eta_seconds"] == 154
    await place.move("new", "processing")
    place.clock.at = await place.owner.fetchval("SELECT status_since FROM clips WHERE id = 'new'")
    assert (await (await client.get("/api/clips/new/status")).json())["eta_seconds"] == 102
    place.clock.move(seconds=102)
    assert (await (await client.get("/api/clips/new/status")).json())["eta_seconds"] is None
    await place.move("new", "complete")
    assert (await (await client.get("/api/clips/new/status")).json())["eta_seconds"] is None


async def test_the_metrics_tell_how_long_clips_stay_at_each_status(place):
    for number in range(3):
        await complete(place, f"old{number}", 100 + number)
    client = await place.start()
    figures = await (await client.get("/metrics")).text()
    for status in ("uploading", "processing"):
        assert f'orchestrator_stage_seconds{{pipeline="stream",status="{status}"}} 101.0' in figures
    assert 'status="complete"' not in figures.partition("orchestrator_stage_seconds")[2].partition("# HELP")[0]
