"""What is written to the log has no secret in it, whoever put it there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator.observability import hide_secrets_of, without_secrets
from orchestrator.settings import DatabaseSettings

PASSWORD = "canary-p%40ssword"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.observability._secrets", set())
    hide_secrets_of(DatabaseSettings(_env_file=None, database_url=f"postgresql://u:{PASSWORD}@h/db"))  # type: ignore


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (f"cannot reach postgresql://u:{PASSWORD}@h/db", "cannot reach postgresql://h/db"),
        (f"password {PASSWORD!r} is wrong", "password '(hidden)' is wrong"),
        ("password canary-p@ssword is wrong", "password (hidden) is wrong"),
        ("GET https://e.org/x.mp4?X-Amz-Signature=12&a=b failed", "GET https://e.org/x.mp4?(hidden) failed"),
        ("(one,https://e.org/x?t=1,,5)", "(one,https://e.org/x?(hidden))"),
        ('{"url": "https://e.org/?t=1", "code": 5}', '{"url": "https://e.org/?(hidden)", "code": 5}'),
        ("https://user:secret@e.org/x", "https://e.org/x"),
        (
            "https://x.cloudflarestream.com/eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhYmNkIn0.c2ln/downloads/default.mp4",
            "https://x.cloudflarestream.com/(hidden)/downloads/default.mp4",
        ),
    ],
)
def test_secrets_are_taken_out_of_what_others_say(said: str, written: str) -> None:
    assert without_secrets(said) == written


@pytest.mark.parametrize(
    "said",
    [
        "is it there? yes",
        "what=why?",
        "port=8080 host=127.0.0.1",
        "endpoint=http://127.0.0.1:9000/clips",
        "a@b = c",
        "a ? b = c",
    ],
)
def test_ordinary_lines_stay_as_they_are(said: str) -> None:
    assert without_secrets(said) == said


@pytest.mark.parametrize("as_json", [True, False])
def test_exceptions_and_libraries_go_the_same_way(as_json: bool) -> None:
    program = f"""
import logging, structlog
from orchestrator.observability import configure_logging
configure_logging(as_json={as_json})
log = structlog.get_logger("x")
try:
    raise ValueError("row (one,https://e.org/x?token=canary) \\x1b]0;title\\x07")
except ValueError:
    log.exception("a call failed", address="https://e.org/y?token=canary", reason="a\\x1b[2Jb\\x07")
    logging.getLogger("library").exception("it failed for https://e.org/z?token=canary")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "canary" not in done.stderr + done.stdout
    assert done.stderr.count("token") == 0
    assert done.stderr.count("(hidden)") >= 4
    assert not [letter for letter in done.stderr if not letter.isprintable() and letter != "\n"]
    if as_json:
        assert "ValueError" in json.loads(done.stderr.splitlines()[0])["exception"]
