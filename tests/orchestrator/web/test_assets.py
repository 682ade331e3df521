"""Files for browsers: kept for ever under their version, asked for again under any other."""

from __future__ import annotations

import re

import pytest

from orchestrator.web.assets import read_assets, takes_gzip


async def test_a_file_under_its_version_may_be_kept(client):
    page = await (await client.get("/")).text()
    for address in re.findall(r'(?:href|src)="(/assets/[^"]+)"', page):
        answer = await client.get(address)
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        again = await client.get(address, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304


async def test_under_another_version_it_is_asked_for_again(client):
    answer = await client.get("/assets/an-older-one/style.css")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name", ["__init__.py", "nothing.js", "..%2Fapp.py", "%2e%2e%2fapp.py", "style.css%00", "__pycache__"]
)
async def test_nothing_but_the_files_is_served(client, name):
    answer = await client.get(f"/assets/x/{name}")
    assert answer.status == 404


def test_modules_load_each_other_and_nothing_from_elsewhere(tmp_path):
    assets = read_assets(tmp_path / "without the bundles of others")
    for name, asset in assets.files.items():
        text = asset.body.decode()
        for imported in re.findall(r'from "([^"]+)"|new URL\("([^"]+)"', text):
            target = "".join(imported)
            assert target.startswith("./"), (name, target)
            assert target[2:] in assets.files, (name, target)
        assert not re.search(r"https?://(?!www\.w3\.org)", text), name
        assert not re.search(r"(inner|outer)HTML\s*=[^=]|insertAdjacentHTML|document\.write", text)
        assert "eval(" not in text


async def test_bundles_are_served_where_they_were_made(tmp_path):
    assert read_assets(tmp_path / "nothing").find("hls.js") is None
    (tmp_path / "licenses").mkdir()
    (tmp_path / "made-from.txt").write_text("x")
    (tmp_path / "hls.js").write_text("export default 1;")
    with_it = read_assets(tmp_path)
    assert with_it.find("hls.js") == f"/assets/{with_it.version}/hls.js"
    assert "made-from.txt" not in with_it.files


async def test_scripts_are_scripts_and_cannot_be_framed(client):
    answer = await client.get("/assets/x/live-worker.js")
    assert answer.content_type == "text/javascript"
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]


async def test_files_go_packed_to_those_who_take_them_so(client):
    plain = await client.get("/assets/x/style.css", headers={"Accept-Encoding": "identity"})
    packed = await client.get("/assets/x/style.css", headers={"Accept-Encoding": "br, gzip"})
    assert await plain.read() == await packed.read()
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 2
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    # Two forms of one file are told apart by whoever keeps them.
    assert plain.headers["ETag"] != packed.headers["ETag"]
    for answer, encoding in ((plain, "identity"), (packed, "gzip")):
        headers = {"Accept-Encoding": encoding, "If-None-Match": answer.headers["ETag"]}
        assert (await client.get("/assets/x/style.css", headers=headers)).status == 304


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("br;q=1, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("", False),
    ],
)
def test_what_a_reader_takes(accepted, taken):
    assert takes_gzip(accepted) is taken
