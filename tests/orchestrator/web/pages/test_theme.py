"""The choice of a theme: in the first paint, kept in a cookie, made without scripts, refused to other sites."""

from __future__ import annotations

import re

import pytest


async def test_without_a_choice_the_page_is_as_the_system_is(client):
    text = await (await client.get("/upload")).text()
    assert '<html lang="en">' in text
    assert '<meta name="color-scheme" content="light dark">' in text
    assert re.findall(r'value="(\w+)" aria-pressed="true"', text) == ["system"]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_a_choice_is_kept_and_stands_in_the_first_paint(client, theme):
    chosen = await client.post("/theme", data={"theme": theme, "next": "/upload?x=1"}, allow_redirects=False)
    assert (chosen.status, chosen.headers["Location"]) == (303, "/upload?x=1")
    cookie = chosen.headers["Set-Cookie"]
    assert all(word in cookie for word in (f"theme={theme}", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=31536000"))
    text = await (await client.get("/upload", headers={"Cookie": f"theme={theme}"})).text()
    assert f'<html lang="en" data-theme="{theme}">' in text
    assert f'<meta name="color-scheme" content="{theme}">' in text
    assert re.findall(r'value="(\w+)" aria-pressed="true"', text) == [theme]


async def test_the_systems_choice_forgets_the_cookie(client):
    chosen = await client.post("/theme", data={"theme": "system"}, allow_redirects=False)
    assert "Max-Age=0" in chosen.headers["Set-Cookie"]
    assert chosen.headers["Location"] == "/"


@pytest.mark.parametrize("cookie", ['"><script>', "blue", ""])
async def test_any_other_cookie_is_no_choice(client, cookie):
    text = await (await client.get("/upload", headers={"Cookie": f"theme={cookie}"})).text()
    assert '<html lang="en">' in text


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example/", "/\\evil.example", "x"])
async def test_it_leads_nowhere_else(client, following):
    chosen = await client.post("/theme", data={"theme": "dark", "next": following}, allow_redirects=False)
    assert chosen.headers["Location"] == "/"


async def test_another_site_cannot_choose(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    assert (await client.post("/theme", data={"theme": "dark"}, headers=headers)).status == 403
