"""Who may only look: every page and answer, no button, and no call that could change anything."""

from __future__ import annotations

import re

import pytest

from orchestrator.web.access import Guard
from orchestrator.web.routes import ROUTES

ACTING, LOOKING = "a-token-that-may-act", "a-token-that-may-look"
LOOKS = {"Authorization": f"Bearer {LOOKING}"}


@pytest.fixture
async def guarded(place):
    """The process with one token of each role."""
    return await place.start(api_tokens=ACTING, api_read_tokens=LOOKING)


async def sign_in(client, token: str) -> None:
    answer = await client.post("/sign-in", data={"token": token}, allow_redirects=False)
    assert answer.status == 303


async def test_a_reader_reads_and_every_call_that_could_change_something_is_refused(guarded, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    before = await place.fingerprint()
    for route in ROUTES:
        if route.guard is Guard.OPEN or route.media_type == "text/event-stream":
            continue
        path = re.sub(r"\{id[^}]*\}", "one", route.path).replace("{name}", "x")
        answer = await guarded.request(route.method, path, headers=LOOKS)
        if route.method in ("GET", "HEAD", "OPTIONS"):
            assert answer.status not in (401, 403), (route.method, path)
        else:
            assert (answer.status, (await answer.json())["code"]) == (403, "read-only"), (route.method, path)
    assert await place.fingerprint() == before


async def test_a_token_that_may_act_acts(guarded, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    answer = await guarded.post("/api/clips/one/retry", headers={"Authorization": f"Bearer {ACTING}"})
    assert answer.status == 202


async def test_a_reader_who_signed_in_sees_no_buttons_and_cannot_press_any(guarded, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    await sign_in(guarded, LOOKING)
    board = await (await guarded.get("/?status=error")).text()
    assert 'data-clip="one"' in board
    assert "/retry" not in board
    assert "Upload a clip" not in board
    assert "You may look only" in await (await guarded.get("/retry")).text()
    clip = await (await guarded.get("/clips/one")).text()
    assert not re.findall(r'<form method="post" action="/clips/', clip)
    for path in ("/clips/one/retry", "/clips/one/delete", "/retry", "/upload"):
        answer = await guarded.post(path, headers={"Sec-Fetch-Site": "same-origin"})
        assert (answer.status, (await answer.json())["code"]) == (403, "read-only"), path
    assert await place.signals("one") == []


async def test_whoever_signed_in_with_the_other_token_sees_them(guarded, place):
    await place.clip("one", uid="u1")
    await place.move("one", "error")
    await sign_in(guarded, ACTING)
    assert 'href="/retry?' in await (await guarded.get("/?status=error")).text()
    assert 'action="/clips/one/retry"' in await (await guarded.get("/clips/one")).text()


async def test_a_cookie_stands_for_the_role_of_its_token_as_it_is_now(guarded, place):
    """Whoever makes a token a reader's makes every session of it a reader's."""
    await sign_in(guarded, ACTING)
    cookies = {cookie.key: cookie.value for cookie in guarded.session.cookie_jar}
    changed = await place.start(api_tokens="another-token-that-acts", api_read_tokens=ACTING)
    answer = await changed.get("/?status=error", cookies=cookies)
    assert answer.status == 200
    answer = await changed.post("/retry", cookies=cookies, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status == 403
