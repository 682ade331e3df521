"""Figures: calls by route, clips by status, signals that wait, the monitor's age."""

from __future__ import annotations


async def figures(client) -> str:
    return await (await client.get("/metrics")).text()


async def test_calls_are_counted_by_route_method_and_status(client):
    for clip_id in ("a", "b"):
        await client.get(f"/api/clips/{clip_id}")
    await client.get("/nothing/at/all")
    await client.request("PROPFIND", "/api/clips")
    found = await figures(client)
    assert 'orchestrator_http_requests_total{method="GET",route="/api/clips/{id}",status="404"} 2.0' in found
    assert 'orchestrator_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in found
    assert 'method="other"' in found
    assert "PROPFIND" not in found
    assert 'orchestrator_http_request_seconds_count{method="GET",route="/api/clips/{id}"} 2.0' in found


async def test_the_database_tells_of_clips_signals_and_the_monitor(client, place):
    await place.clip("one", uid="u1")
    await place.clip("two", uid="u2")
    await place.move("two", "processing")
    await client.post("/api/clips/one/signals", json={"requested_status": "queued"})
    await place.owner.execute("UPDATE monitor_lease SET round_at = clock_timestamp() - interval '30 s'")
    found = await figures(client)
    assert 'orchestrator_clips_unfinished{pipeline="stream",status="uploading"} 1.0' in found
    assert 'orchestrator_clips_unfinished{pipeline="stream",status="processing"} 1.0' in found
    assert "orchestrator_signals_waiting 1.0" in found
    assert "orchestrator_database_up 1.0" in found
    assert 'orchestrator_signals_recorded_total{source="api"} 1.0' in found
    age = next(line for line in found.splitlines() if line.startswith("orchestrator_monitor_round_age_seconds "))
    assert 30 <= float(age.split()[1]) < 60


async def test_figures_are_there_also_when_the_database_is_not(client, place):
    await place.services.pool.close()
    found = await figures(client)
    assert "orchestrator_database_up 0.0" in found
    assert "orchestrator_http_requests_total" in found
