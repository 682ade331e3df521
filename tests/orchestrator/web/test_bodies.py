"""Bodies nobody could mean: each is refused by name, with a 4xx, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest

from orchestrator.web.bodies import MAX_BYTES, decode_object
from orchestrator.web.problems import Problem

JSON = {"Content-Type": "application/json"}
CALLS = ("/api/clips", "/api/clips/one/signals", "/api/clips/one/retry")

NONSENSE: dict[str, bytes] = {
    "half": b'{"source": ',
    "no-object": b"[]",
    "text": b'"x"',
    "number": b"5",
    "null": b"null",
    "truth": b"true",
    "not-utf-8": b'{"source": "\xff"}',
    "utf-16": '{"source": "url"}'.encode("utf-16"),
    "byte-order-mark": b'\xef\xbb\xbf{"source": "url"}',
    "nan": b'{"size_bytes": NaN}',
    "infinity": b'{"size_bytes": -Infinity}',
    "too-large-a-float": b'{"size_bytes": 1e999}',
    "too-large-a-number": b'{"size_bytes": 99999999999999999999}',
    "a-million-digits": b'{"size_bytes": ' + b"9" * 900_000 + b"}",
    "deep-lists": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep-objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a-little-too-deep": b'{"a": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}",
    "repeated-key": b'{"source": "url", "source": "upload"}',
    "repeated-key-inside": b'{"details": {"a": 1, "a": 2}}',
    "control-character": b'{"source": "a\x01b"}',
    "trailing": b'{"source": "url"} x',
    "two-documents": b"{}{}",
    "single-quotes": b"{'source': 'url'}",
    "form": b"source=upload&size_bytes=5",
    "xml": b"<?xml version='1.0'?><clip/>",
    "nul": b'{"a": "\\u0000"}',
    "nul-key": b'{"\\u0000": 1}',
    "half-a-pair": b'{"a": "\\ud800"}',
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_refused_by_name_and_changes_nothing(client, place, path, body):
    await place.clip("one")
    before = await place.fingerprint()
    answer = await client.post(path, data=body, headers=JSON)
    problem = await answer.json()
    assert answer.status in (400, 422)
    assert answer.content_type == "application/problem+json"
    assert problem["errors"][0]["field"]
    assert problem["errors"][0]["reason"]
    assert problem["hint"]
    assert len(await answer.text()) < 2000
    assert await place.fingerprint() == before


@pytest.mark.parametrize("path", CALLS)
async def test_a_body_over_a_mebibyte_is_a_413_however_it_is_announced(client, place, path):
    await place.clip("one")
    before = await place.fingerprint()
    body = b'{"details": {"a": "' + b"x" * MAX_BYTES + b'"}}'

    async def unannounced() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for data in (body, unannounced()):
        answer = await client.post(path, data=data, headers=JSON)
        assert (answer.status, (await answer.json())["code"]) == (413, "too-large")
    assert await place.fingerprint() == before


async def test_a_body_announced_too_large_is_refused_before_it_is_sent(client):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST /api/clips HTTP/1.1\r\nHost: {client.host}:{client.port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {2 * MAX_BYTES}\r\nExpect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_an_expected_body_is_asked_for_and_another_expectation_refused(client):
    async def first_line(expect: str) -> bytes:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = f"POST /api/clips HTTP/1.1\r\nHost: {client.host}:{client.port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 2\r\nExpect: {expect}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            line = await reader.readline()
            if b" 100 " in line:
                writer.write(b"{}")
                await reader.readuntil(b"\r\n")
                line += await reader.readline()
        writer.close()
        return line

    asked = await first_line("100-continue")
    assert b" 100 " in asked
    assert b" 422 " in asked
    assert b" 417 " in await first_line("200-maybe")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/json; charset=utf-16",
     "application/xml", "nonsense", "text/json"],
)  # fmt: skip
async def test_other_types_and_charsets_are_a_415(client, content_type):
    answer = await client.post("/api/clips", data=b"{}", headers={"Content-Type": content_type})
    assert (answer.status, (await answer.json())["code"]) == (415, "unsupported-media")


async def test_json_of_every_kind_is_taken(client):
    for content_type in ("application/json; charset=UTF-8", "application/merge-patch+json"):
        body = b'{"source": "url", "url": "https://e.org/x"}'
        assert (await client.post("/api/clips", data=body, headers={"Content-Type": content_type})).status == 201


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
async def test_compressed_bodies_are_not_opened(client, place, coding):
    # A megabyte of zeros in a kilobyte: opened, it would pass the limit on the wire.
    body = gzip.compress(b'{"source": "url", "title": "' + b"0" * 10_000_000 + b'"}')
    answer = await client.post("/api/clips", data=body, headers=JSON | {"Content-Encoding": coding})
    assert answer.status == 415
    assert await place.owner.fetchval("SELECT count(*) FROM clips") == 0


def test_long_keys_in_deep_nesting_cost_no_more_than_their_size():
    wide = b'{"' + b"k" * 400_000 + b'": [' + b",".join([b'["\\u0041"]'] * 20_000) + b"]}"
    assert len(decode_object(wide)) == 1
    with pytest.raises(Problem, match="NUL") as caught:
        decode_object(wide.replace(b'["\\u0041"]]', b'["\\u0000"]]'))
    assert len(str(caught.value.errors)) < 1000


async def test_a_body_that_drips_is_given_up(client, monkeypatch):
    monkeypatch.setattr("orchestrator.web.bodies._BODY_SECONDS", 0.1)
    for path in ("/api/clips", "/webhooks/cloudflare"):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = f"POST {path} HTTP/1.1\r\nHost: {client.host}:{client.port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()
