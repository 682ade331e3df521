"""The production image, as far as it can be read without building it."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_DOCKERFILE = (_ROOT / "Dockerfile").read_text()
_ALLOWED = [line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


def test_everything_that_is_copied_exists_and_is_let_into_the_build() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (_ROOT / source).exists(), source
            assert source.split("/")[0] in _ALLOWED, source


def test_nothing_else_is_let_into_the_build() -> None:
    assert "*" in (_ROOT / ".dockerignore").read_text().splitlines()
    assert all((_ROOT / name).exists() for name in _ALLOWED)


def test_it_installs_by_hash_and_nothing_of_the_embedded_parts() -> None:
    locks = re.findall(r"-r (\S+)", _DOCKERFILE)
    assert locks == re.findall(r"--require-hashes -r (\S+)", _DOCKERFILE)
    assert set(locks) == {"requirements/runtime.txt", "requirements/build.txt"}


def test_it_does_not_run_as_root_and_can_be_asked_for_its_health() -> None:
    last_stage = _DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/healthz", last_stage, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["orchestrator"\]$', last_stage, re.MULTILINE)
