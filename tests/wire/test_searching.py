"""The search finds a secret in each coat, wherever it stands, and nothing where there is none."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from lanes.canaries import CANARIES

from wire.searching import coats, search, search_files

SECRET = CANARIES["webhook secret"]


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz", "Bearer ", "secret="])
@pytest.mark.parametrize("after", ["", "&", "12", "abc"])
def test_base64_is_found_whatever_stands_around(before: str, after: str) -> None:
    data = b"log line " + base64.b64encode(f"{before}{SECRET}{after}".encode()) + b" end"
    assert any(hit.coat.startswith("base64") for hit in search(data, "here", CANARIES))


@pytest.mark.parametrize(
    "text",
    [SECRET, f"postgresql://u:{SECRET}@h/db", quote(f"?a={SECRET}"), json.dumps({"a": [SECRET]}), SECRET[::-1],
     SECRET.encode().hex(), "".join(f"%{byte:02X}" for byte in SECRET.encode())],
)  # fmt: skip
def test_a_secret_is_found_and_not_told_again(text: str) -> None:
    hits = list(search(text.encode(), "here", CANARIES))
    assert {hit.what for hit in hits} == {"webhook secret"}
    assert all(SECRET not in str(hit) for hit in hits)


def test_signed_addresses_and_tokens_are_found_by_their_looks() -> None:
    data = b"GET /x?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef and eyJhbGciOiJSUzI1NiJ9eyJ.eyJzdWIiOiJhYmNkZWZnaCJ9."
    assert {hit.what for hit in search(data, "here", {})} == {"a signed address", "a signed token"}


def test_files_are_searched_also_compressed_ones(tmp_path: Path) -> None:
    (tmp_path / "clean.log").write_text("nothing here, not even a canary")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "x.gz").write_bytes(gzip.compress(SECRET.encode()))
    (tmp_path / "y.json").write_text(base64.b64encode(b"z" + CANARIES["api token"].encode()).decode())
    hits, files, _ = search_files(tmp_path.rglob("*"), CANARIES)
    assert files == 3
    assert {(hit.what, Path(hit.place).name) for hit in hits} == {("webhook secret", "x.gz"), ("api token", "y.json")}


def test_every_coat_has_something_to_look_for() -> None:
    for secret in CANARIES.values():
        assert all(len(form) >= 16 for form in coats(secret).values())
