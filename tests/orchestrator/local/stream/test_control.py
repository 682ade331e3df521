from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.local.stream.faults import Faults
from orchestrator.local.stream.switchboard import FaultSwitches, UnknownFault


async def _control(account, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
    async with account.session.request(method, f"{account.stream.base_url}/stand-in/{path}", **arguments) as answer:
        return answer.status, await answer.json() if answer.content_type == "application/json" else await answer.text()


async def test_faults_are_set_changed_and_cleared_over_http(account) -> None:
    assert await _control(account, "GET", "faults") == (200, {"set": {}, "bitten": {}})
    status, told = await _control(account, "PUT", "faults", json={"api_5xx": {"times": 2}, "webhook_lost": {}})
    assert (status, told["set"]["api_5xx"]["times"]) == (200, 2)
    assert (await account.call("GET", "/stream")).status == 503
    status, told = await _control(account, "PATCH", "faults", json={"webhook_lost": None, "mp4_late": {"seconds": 1}})
    assert set(told["set"]) == {"api_5xx", "mp4_late"}
    assert told["bitten"] == {"api_5xx": 1}
    # The count of a fault that was left alone goes on.
    assert (await account.call("GET", "/stream")).status == 503
    assert (await account.call("GET", "/stream")).status == 200
    assert (await _control(account, "PUT", "faults", json={}))[1] == {"set": {}, "bitten": {}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"api_6xx": {}}, "known faults: api_429"),
        ({"api_5xx": {"status": 200}}, "api_5xx.status"),
        ({"api_5xx": {"time": 3}}, "api_5xx.time"),
        ({"api_5xx": {"times": 0}}, "api_5xx.times"),
        ({"mp4_slow": {}}, "mp4_slow.bytes_per_second"),
        ([], "not a JSON object"),
    ],
)
async def test_wrong_faults_are_refused_with_a_reason_and_change_nothing(account, body: Any, said: str) -> None:
    await _control(account, "PUT", "faults", json={"webhook_lost": {"times": 1}})
    status, told = await _control(account, "PUT", "faults", json=body)
    assert status == 422
    assert said in told["error"]
    assert set((await _control(account, "GET", "faults"))[1]["set"]) == {"webhook_lost"}


async def test_no_other_page_turns_the_controls(account) -> None:
    evil = {"Origin": "https://evil.example"}
    assert (await _control(account, "POST", "reset", headers=evil))[0] == 403
    assert (await _control(account, "PUT", "faults", json={}, headers=evil))[0] == 403


async def test_calls_are_counted_by_route(account, media: Path) -> None:
    first = await account.upload(media / "clip.mp4")
    second = (await account.announce())["uid"]
    account.stream.calls.reset()
    await account.call("GET", f"/stream?id={first},{second}")
    await account.call("GET", "/stream")
    await account.call("GET", f"/stream/{first}")
    await account.call("GET", f"/stream/{'0' * 32}")
    _, told = await _control(account, "GET", "calls")
    assert told["total"] == 4
    assert told["by_route"] == {
        "GET /stream": {"count": 2, "statuses": {"200": 2}},
        "GET /stream/{uid}": {"count": 2, "statuses": {"200": 1, "404": 1}},
    }
    assert told["lists"] == [{"uids_asked": 2, "rows": 2}, {"uids_asked": 0, "rows": 2}]
    assert [call["route"] for call in told["recent"]][-1] == "GET /stream/{uid}"
    assert account.stream.calls.count("GET /stream/{uid}", 404) == 1
    assert account.stream.calls.count("DELETE /stream/{uid}") == 0


async def test_reset_clears_logs_faults_and_on_request_videos(open_account, media: Path) -> None:
    account = await open_account(rate_limit_count=4)
    uid = await account.upload(media / "clip.mp4")
    account.stream.faults.set(api_5xx={})
    assert (await account.call("GET", "/stream")).status == 503
    while (await account.call("GET", "/stream")).status != 429:
        pass
    assert await _control(account, "POST", "reset") == (200, {"videos": 1})
    assert account.stream.calls.total == 0
    assert (await account.video(uid))["uid"] == uid
    assert await _control(account, "POST", "reset", json={"videos": True}) == (200, {"videos": 0})
    assert (await account.call("GET", "/stream")).result == []
    assert (await _control(account, "POST", "reset", json={"video": True}))[0] == 422


def test_counts_and_selectors() -> None:
    switches = FaultSwitches(Faults())
    switches.set(webhook_lost={"times": 2, "skip": 1, "video": "a"})
    kind = type(switches.current.webhook_lost)
    assert [switches.bite(kind, name) is not None for name in "baabaaa"] == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
    ]
    assert switches.as_json()["bitten"] == {"webhook_lost": 2}
    with pytest.raises(UnknownFault, match="webhook_lots"):
        switches.set(webhook_lots={})
