"""Asking for many at once: one commit, an outcome for each, and no neighbour hurts another."""

from __future__ import annotations

import asyncio
import json

import asyncpg
import pytest

from signals import (
    Asked,
    ClipHeld,
    DetailsNotAccepted,
    Signal,
    StatusNotInPipeline,
    TooManySignals,
    UnknownClip,
    signal_status_updates,
)


@pytest.fixture
async def owner(owner: asyncpg.Connection) -> asyncpg.Connection:
    """Sees and may do everything; clips 'a' and 'b' are there, 'b' with a video."""
    await owner.execute("INSERT INTO clips (id, cloudflare_uid) VALUES ('a', NULL), ('b', 'ub')")
    return owner


def signal(clip_id: str, status: str = "queued", **more: object) -> Signal:
    return Signal(status, "test", clip_id=clip_id, **more)  # type: ignore[arg-type]


async def filed(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch("SELECT clip_id, requested_status FROM clip_signals ORDER BY id")
    return [tuple(row) for row in rows]


async def test_each_is_filed_as_it_would_be_alone(service: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    outcomes = await signal_status_updates(
        service,
        [
            signal("a", "error", details={"error_message": "it broke"}, insists=True, attempt=4),
            Signal("queued", "webhook", cloudflare_uid="ub", details={"cloudflare_status": "queued"}, hearsay=True),
            signal("c", only_in=("cut", "stream")),
        ],
    )
    uploading = ("stream", "uploading", 1)
    assert outcomes == [Asked("a", *uploading), Asked("b", *uploading), Asked("c", *uploading)]
    rows = await owner.fetch(
        "SELECT clip_id, requested_status, source, attempt, insists, hearsay, details FROM clip_signals"
        " ORDER BY clip_id"
    )
    assert [tuple(row) for row in rows] == [
        ("a", "error", "test", 4, True, False, '{"error_message": "it broke"}'),
        ("b", "queued", "webhook", 1, False, True, '{"cloudflare_status": "queued"}'),
        ("c", "queued", "test", 1, False, False, "{}"),
    ]
    shown = await owner.fetch("SELECT processing_details FROM clips ORDER BY id")
    assert json.loads(shown[0][0])["error_message"] == "it broke"
    assert "cloudflare_status" not in json.loads(shown[1][0])


async def test_they_share_one_transaction(service: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    await signal_status_updates(service, [signal(clip_id) for clip_id in "cab"])
    assert await owner.fetchval("SELECT count(DISTINCT xmin::text) FROM clip_signals") == 1


async def test_of_several_for_one_clip_each_is_kept(service: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    asked = [signal("a", "queued"), signal("b"), signal("a", "processing"), signal("a", "error")]
    outcomes = await signal_status_updates(service, asked)
    assert all(isinstance(one, Asked) for one in outcomes)
    assert [status for clip_id, status in await filed(owner) if clip_id == "a"] == ["queued", "processing", "error"]


async def test_one_clip_by_both_its_names_is_written_once_and_the_other_told(
    service: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    outcomes = await signal_status_updates(service, [signal("b"), Signal("error", "test", cloudflare_uid="ub")])
    assert [type(one).__name__ for one in outcomes] == ["Asked", "ClipHeld"], "the first one is written"
    assert len(await filed(owner)) == 1


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (signal("nobody"), UnknownClip),
        (Signal("queued", "test", cloudflare_uid="nobody"), UnknownClip),
        (signal("a", details={"x": "\0"}), DetailsNotAccepted),
        (signal("a", details={"x": "\ud800"}), DetailsNotAccepted),
        (signal("a", details={"x": float("nan")}), DetailsNotAccepted),
        (signal("a", details={"x": "y" * 50_000}), DetailsNotAccepted),
        (signal("a", only_in=("cut",)), StatusNotInPipeline),
    ],
    ids=["no-clip", "no-video", "nul", "half-a-surrogate", "no-number", "too-large", "other-pipeline"],
)
async def test_one_that_is_refused_leaves_its_neighbours(
    service: asyncpg.Connection, owner: asyncpg.Connection, bad: Signal, kind: type[Exception]
) -> None:
    outcomes = await signal_status_updates(service, [signal("b"), bad, signal("c")])
    assert [type(one) for one in outcomes] == [Asked, kind, Asked]
    assert sorted(await filed(owner)) == [("b", "queued"), ("c", "queued")]


async def test_a_clip_for_which_too_many_wait_takes_no_more(
    service: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE clips SET pending = 1000 WHERE id = 'a'")
    outcomes = await signal_status_updates(service, [signal("a"), signal("b")])
    assert [type(one) for one in outcomes] == [TooManySignals, Asked]


async def test_a_clip_that_somebody_holds_holds_up_nobody_else(
    service: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM clips WHERE id = 'a' FOR UPDATE")
        async with asyncio.timeout(5):
            outcomes = await signal_status_updates(service, [signal("a"), signal("b")])
    assert isinstance(outcomes[0], ClipHeld)
    assert isinstance(outcomes[1], Asked)
    assert await filed(owner) == [("b", "queued")]


async def test_whoever_waits_is_written_when_the_clip_is_free(
    service: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM clips WHERE id = 'a' FOR UPDATE")
        waiting = asyncio.create_task(signal_status_updates(service, [signal("a")], waits=True))
        async with asyncio.timeout(5):
            while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    assert isinstance((await waiting)[0], Asked)


async def test_two_services_that_ask_crosswise_never_wait_for_each_other(database: str, service: object) -> None:
    setup = await asyncpg.connect(database)
    await setup.execute("INSERT INTO clips (id) SELECT 'x' || n FROM generate_series(1, 20) AS n")
    await setup.close()
    ids = [f"x{number}" for number in range(1, 21)]

    async def ask(order: list[str]) -> list[object]:
        connection = await asyncpg.connect(database, server_settings={"role": "orchestrator_api"})
        found: list[object] = []
        for _ in range(20):
            found += await signal_status_updates(connection, [signal(clip_id) for clip_id in order], waits=True)
        await connection.close()
        return found

    async with asyncio.timeout(60):
        one, other = await asyncio.gather(ask(ids), ask(ids[::-1]))
    assert all(isinstance(outcome, Asked) for outcome in [*one, *other])


async def test_a_signal_names_a_clip_and_a_status(service: asyncpg.Connection) -> None:
    for nameless in (Signal("queued", "test"), signal("c", "")):
        with pytest.raises(ValueError, match="names a clip"):
            await signal_status_updates(service, [nameless])
