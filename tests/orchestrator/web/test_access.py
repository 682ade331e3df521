"""Who gets in: tokens, the sign-in cookie, this machine alone; and whose pages may act for a browser."""

from __future__ import annotations

import re

import pytest

from orchestrator.web.access import SESSION_COOKIE, find_token, issue_session, read_session, scope_of
from orchestrator.web.routes import ROUTES

TOKENS = "first-token-of-sixteen", "second-token-of-sixteen"
BEARER = {"Authorization": f"Bearer {TOKENS[0]}"}
OPEN = {"/webhooks/cloudflare", "/healthz", "/readyz", "/metrics", "/api/openapi.json", "/api/docs", "/sign-in",
        "/sign-out", "/theme", "/assets/{version}/{name}", "/favicon.ico", "/outputs/{id}/{name}",
        "/api/health/unified"}  # fmt: skip


@pytest.fixture
async def guarded(place):
    """The process with two tokens."""
    return await place.start(api_tokens=",".join(TOKENS))


async def test_everything_but_the_named_exceptions_needs_a_token(guarded, place):
    await place.clip("one", uid="u1")
    before = await place.fingerprint()
    for route in ROUTES:
        path = re.sub(r"\{id[^}]*\}", "one", route.path).replace("{version}", "x").replace("{name}", "style.css")
        answer = await guarded.request(route.method, path, headers={"Accept": "application/json"})
        if route.path in OPEN:
            assert answer.status != 401 or route.path == "/webhooks/cloudflare", route.path
        else:
            assert answer.status == 401, route.path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert await place.fingerprint() == before


async def test_an_address_that_does_not_exist_is_not_told_without_a_token(guarded):
    assert (await guarded.get("/api/nothing")).status == 401
    assert (await guarded.get("/api/nothing", headers=BEARER)).status == 404


@pytest.mark.parametrize("token", TOKENS)
async def test_each_token_lets_in(guarded, token):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await guarded.get("/api/clips", headers={"Authorization": f"{scheme} {token}"})).status == 200


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKENS[0]}x", f"Bearer {TOKENS[0][:-1]}", f"Basic {TOKENS[0]}",
     TOKENS[0], f"Bearer {TOKENS[0]},{TOKENS[1]}", "Bearer \xe4\xf6\xfc"],
)  # fmt: skip
async def test_nothing_else_does(guarded, header, capfd):
    answer = await guarded.get("/api/clips", headers={"Authorization": header})
    assert (answer.status, (await answer.json())["code"]) == (401, "unauthorized")
    assert TOKENS[0][:-1] not in "".join(capfd.readouterr()) + await answer.text()


async def test_with_tokens_the_host_name_does_not_matter(guarded):
    assert (await guarded.get("/api/clips", headers=BEARER | {"Host": "clips.example.org"})).status == 200


async def test_without_tokens_this_machine_may_read_and_write(client):
    assert (await client.get("/api/clips")).status == 200
    assert (await client.post("/api/clips", json={"source": "url", "url": "https://e.org/x"})).status == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "clips.example.org"},
        {"Host": "127.0.0.1.example.org"},
        {"Host": "localhost.example.org:8080"},
        {"Host": ""},
        {"Host": "[::"},
        {"X-Forwarded-For": "203.0.113.5"},
        {"Forwarded": "for=203.0.113.5"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_without_tokens_foreign_names_and_proxies_are_kept_out(client, headers):
    for path in ("/api/clips", "/", "/api/events"):
        answer = await client.get(path, headers=headers)
        assert answer.status in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1", "[::1]:8080", "127.8.9.1"])
async def test_every_name_of_this_machine_is_let_in(client, host):
    assert (await client.get("/api/clips", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_sites_page_cannot_act_for_a_browser_on_this_machine(client, place, headers):
    await place.clip("one", uid="u1")
    before = await place.fingerprint()
    own = str(client.make_url("/")).rstrip("/")
    headers = {name: value.replace("{own}", own) for name, value in headers.items()}
    for method, path in (("POST", "/api/clips"), ("DELETE", "/api/clips/one"), ("POST", "/clips/one/delete")):
        answer = await client.request(method, path, json={"source": "url", "url": "https://e.org/x"}, headers=headers)
        assert (answer.status, (await answer.json())["code"]) == (403, "cross-site")
    assert await place.fingerprint() == before


async def test_our_own_pages_may(client, place):
    await place.clip("one", uid="u1")
    own = str(client.make_url("/")).rstrip("/")
    assert (await client.delete("/api/clips/one", headers={"Origin": own})).status == 202
    assert (await client.delete("/api/clips/one", headers={"Sec-Fetch-Site": "same-origin"})).status == 202


async def test_a_person_signs_in_and_the_cookie_is_out_of_reach_of_scripts(guarded, place):
    turned_away = await guarded.get("/clips/one?a=b", headers={"Accept": "text/html"}, allow_redirects=False)
    assert (turned_away.status, turned_away.headers["Location"]) == (303, "/sign-in?next=%2Fclips%2Fone%3Fa%3Db")
    form = await (await guarded.get("/sign-in?next=/clips/one")).text()
    assert 'value="/clips/one"' in form
    signed_in = await guarded.post("/sign-in", data={"token": TOKENS[1], "next": "/clips/one"}, allow_redirects=False)
    assert (signed_in.status, signed_in.headers["Location"]) == (303, "/clips/one")
    cookie = signed_in.headers["Set-Cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert TOKENS[1] not in cookie
    assert (await guarded.get("/api/clips")).status == 200
    assert (await guarded.delete("/api/clips/nope")).status == 403  # a browser says where it comes from
    own = {"Origin": str(guarded.make_url("/")).rstrip("/")}
    assert (await guarded.delete("/api/clips/nope", headers=own)).status == 404
    place.clock.move(hours=12, seconds=1)
    assert (await guarded.get("/api/clips")).status == 401


async def test_a_wrong_token_gets_the_form_again(guarded, capfd):
    answer = await guarded.post("/sign-in", data={"token": "canary-wrong-token", "next": "/"}, allow_redirects=False)
    assert answer.status == 403
    assert "none of our tokens" in await answer.text()
    assert "Set-Cookie" not in answer.headers
    assert "canary-wrong-token" not in "".join(capfd.readouterr()) + await answer.text()


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "\\\\evil", "/a\r\nX: y"],
)
async def test_a_sign_in_never_leads_to_another_site(guarded, following):
    answer = await guarded.post("/sign-in", data={"token": TOKENS[0], "next": following}, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


async def test_another_site_cannot_sign_anybody_in_or_out(guarded):
    for path in ("/sign-in", "/sign-out"):
        answer = await guarded.post(path, data={"token": TOKENS[0]}, headers={"Origin": "https://evil.example"})
        assert answer.status == 403


async def test_signing_out_forgets_the_cookie(guarded):
    await guarded.post("/sign-in", data={"token": TOKENS[0]}, allow_redirects=False)
    out = await guarded.post("/sign-out", allow_redirects=False)
    assert (out.status, out.headers["Location"]) == (303, "/sign-in")
    assert (await guarded.get("/api/clips")).status == 401


def test_a_session_stands_for_its_token_until_it_ends_or_is_touched(clock):
    cookie = issue_session(TOKENS[1], clock())
    assert read_session(cookie, list(TOKENS), clock()) == TOKENS[1]
    assert read_session(cookie, [TOKENS[0]], clock()) is None  # the token was withdrawn
    claim, _, seal = cookie.rpartition(".")
    expires, _, nonce = claim.partition(".")
    forged = (
        f"{int(expires) + 1}.{nonce}.{seal}",
        f"{claim}.{seal[:-1]}x",
        f"{claim}.",
        "",
        "..",
        "9.9.9",
        "\xe4.1.2",
        "1" * 500,
    )
    assert not any(read_session(each, list(TOKENS), clock()) for each in forged)
    clock.move(hours=12)
    assert read_session(cookie, list(TOKENS), clock()) is None


def test_tokens_are_compared_whole():
    assert find_token(TOKENS[0], list(TOKENS)) == TOKENS[0]
    assert find_token("", list(TOKENS)) is None
    assert find_token("\udc80", list(TOKENS)) is None


def test_a_scope_tells_callers_apart_and_no_token():
    assert scope_of(TOKENS[0]) != scope_of(TOKENS[1])
    assert TOKENS[0] not in scope_of(TOKENS[0])


def test_the_cookie_has_its_name():
    assert SESSION_COOKIE == "orchestrator_session"
