"""From a file to clips that are served, through the program's real processes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.drivers.probing import probe

if TYPE_CHECKING:
    from house import House

FRAME_SECONDS = 0.04


@pytest.fixture
def cutting(house: House) -> House:
    """The house with the directories of the cut pipeline."""
    for name in ("UPLOAD_TMP_DIR", "PROCESS_WORK_DIR", "OUTPUT_ROOT"):
        house.extra[name] = str(house.directory / name.lower())
    return house


async def upload(house: House, file: Path) -> str:
    with file.open("rb") as opened:
        status, said = await house.api("POST", "/api/videos/upload", data={"file": opened})
    assert status == 200, said
    return str(said["uploadId"])


async def until_over(house: House, job_id: str) -> dict[str, Any]:
    """Poll as a client would; progress may only rise."""
    before = -1.0
    async with asyncio.timeout(120):
        while True:
            status, said = await house.api("GET", f"/api/v1/jobs/{job_id}/status")
            assert status == 200
            assert said["progress"] >= before
            before = said["progress"]
            if said["poll_after_ms"] is None:
                return dict(said)
            await asyncio.sleep(0.05)


def served(house: House, job_id: str) -> list[str]:
    return sorted(path.name for path in (house.directory / "output_root" / job_id).iterdir())


async def test_ranges_become_clips_and_each_is_carried_on(cutting: House, sample: Path) -> None:
    await cutting.start_web()
    cutting.start("monitor")
    body = {
        "uploadId": await upload(cutting, sample),
        "clips": [{"start": 0.5, "end": 1.5}, {"start": 2, "end": 4.2}],
        "publish": "stream",
    }
    status, job = await cutting.api("POST", "/api/process-video", json=body)
    assert status == 200, job
    said = await until_over(cutting, job["jobId"])
    assert (said["status"], said["progress"], len(said["outputs"])) == ("done", 100, 2)
    for artifact, wanted in zip(said["result"]["artifacts"], (1.0, 2.2), strict=True):
        assert artifact["duration"] == pytest.approx(wanted, abs=FRAME_SECONDS)
        assert len(await cutting.read(artifact["url"])) == artifact["size"]
    stages = [stage["stage"] for stage in said["timings"]["stages"]]
    assert stages == ["pending", "prepared", "analyzing", "clipping", "exporting", "finalizing"]
    await cutting.until(job["jobId"], lambda clip: clip.look_at is None)
    assert list((cutting.directory / "process_work_dir").iterdir()) == []
    _, said = await cutting.api("GET", f"/api/v1/jobs/{job['jobId']}/status")
    for artifact in said["result"]["artifacts"]:
        child = await cutting.until_complete(artifact["clip_id"])
        assert child.processing_details["parent"] == job["jobId"]


async def test_a_monitor_killed_again_and_again_loses_nothing_and_makes_nothing_twice(
    cutting: House, sample: Path
) -> None:
    seed = 5
    chance = random.Random(seed)  # noqa: S311
    await cutting.start_web()
    clips = [{"start": n * 0.4, "end": n * 0.4 + 0.4} for n in range(12)]
    body = {"uploadId": await upload(cutting, sample), "clips": clips}
    _, job = await cutting.api("POST", "/api/process-video", json=body)
    made = cutting.directory / "process_work_dir" / job["jobId"]
    finished: dict[str, int] = {}
    for _ in range(6):
        monitor = cutting.start("monitor")
        await cutting.until(job["jobId"], lambda clip: clip.epoch > 0)
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        monitor.kill()
        monitor.wait()
        await cutting.rows.execute("UPDATE monitor_lease SET expires_at = '-infinity'")
        for path in made.glob("clip_*.mp4"):
            assert finished.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino, f"seed {seed}"
    cutting.start("monitor")
    said = await until_over(cutting, job["jobId"])
    assert said["status"] == "done", said
    assert served(cutting, job["jobId"]) == [f"clip_{n:03d}.mp4" for n in range(1, 13)]
    for name, inode in finished.items():
        assert (cutting.directory / "output_root" / job["jobId"] / name).stat().st_ino == inode
    for name in served(cutting, job["jobId"]):
        clip = await probe(cutting.directory / "output_root" / job["jobId"] / name, "mov", counts=True)
        assert clip.duration_seconds == pytest.approx(0.4, abs=FRAME_SECONDS)


async def test_a_range_behind_what_is_really_there_ends_with_its_name(
    cutting: House, sample: Path, tmp_path: Path
) -> None:
    await cutting.start_web()
    cutting.start("monitor")
    half = tmp_path / "half.mp4"
    half.write_bytes(sample.read_bytes()[: sample.stat().st_size // 2])
    body = {"uploadId": await upload(cutting, half), "clips": [{"start": 0, "end": 1}, {"start": 4, "end": 5}]}
    _, job = await cutting.api("POST", "/api/process-video", json=body)
    said = await until_over(cutting, job["jobId"])
    assert (said["status"], said["error_code"]) in (("failed", "clip_short"), ("failed", "cut_failed"))
    assert "4-5 s" in said["error"]
    await cutting.until(job["jobId"], lambda clip: clip.look_at is None)
    assert not (cutting.directory / "output_root" / job["jobId"]).exists()
