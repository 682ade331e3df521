from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from orchestrator.local.stream import StandInOptions

MODULE = [sys.executable, "-m", "orchestrator.local.stream"]


async def _start(tmp_path: Path, *arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    child = await asyncio.create_subprocess_exec(
        *MODULE, "--data-dir", str(tmp_path / "data"), *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    line = (await asyncio.wait_for(child.stdout.readline(), 20)).decode()
    assert line.startswith("Stream stand-in: http://")
    return child, line.split()[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_as_a_program_and_ends_without_leaving_a_child(
    tmp_path: Path, media: Path, number: signal.Signals
) -> None:
    options = ("--account", "a" * 32, "--token", "t", "--pace", "fast", "--webhook-url", "http://127.0.0.1:9/h")
    child, url = await _start(tmp_path, *options, "--webhook-secret", "x" * 32)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session:
        base = f"{url}/accounts/{'a' * 32}/stream"
        async with session.get(f"{base}/webhook") as answer:
            result = (await answer.json())["result"]
            assert (result["notificationUrl"], result["secret"]) == ("http://127.0.0.1:9/h", "x" * 32)
        form = aiohttp.FormData()
        form.add_field("file", (media / "long.mp4").read_bytes(), filename="a.mp4")
        async with session.post(base, data=form) as answer:
            assert answer.status == 200
    encoders = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    async with asyncio.timeout(20):
        while not (found := encoders.read_text().split()):
            await asyncio.sleep(0.005)
    child.send_signal(number)
    assert await asyncio.wait_for(child.wait(), 10) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


async def test_a_killed_one_goes_on_after_the_next_start(tmp_path: Path, media: Path) -> None:
    child, url = await _start(tmp_path, "--pace", "pleasant", "--token", "t")
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session:
        form = aiohttp.FormData()
        form.add_field("file", (media / "clip.mp4").read_bytes(), filename="a.mp4")
        path = f"/accounts/{StandInOptions(data_dir=tmp_path).account_id}/stream"
        async with session.post(url + path, data=form) as answer:
            uid = (await answer.json())["result"]["uid"]
        child.kill()
        await child.wait()
        child, url = await _start(tmp_path, "--pace", "fast", "--token", "t")
        async with asyncio.timeout(20):
            while True:
                async with session.get(f"{url}{path}/{uid}") as answer:
                    video = (await answer.json())["result"]
                if video["status"]["state"] == "ready":
                    break
                await asyncio.sleep(0.1)  # it counts calls, as the provider does, and refuses too many
        child.terminate()
        assert await child.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--encoders", "0", "--port", "99999"], 2, "encoders must be 1 or more; port must be 0 to 65535"),
        (["--faults", '{"nonsense": {}}'], 2, "known faults"),
        (["--ffmpeg", "/nowhere/ffmpeg"], 1, "cannot be run"),
        (["--pace", "slow"], 2, "invalid choice"),
    ],
)
async def test_it_says_what_is_wrong(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *MODULE, "--data-dir", str(tmp_path / "data"), *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(child.communicate(), 20)
    assert (child.returncode, said in errors.decode()) == (code, True), errors
