#!/usr/bin/env python3
"""From a fresh checkout to a running system, with nothing installed but Python.

    python3 run.py dev [arguments]     run everything on this machine and print the page's address
    python3 run.py test [arguments]    run every check and every test; arguments go to pytest (-n0: one after the other)
    python3 run.py lanes [arguments]   run the long proofs of the promises; `lanes --list` says what each one proves
    python3 run.py bench [arguments]   measure this machine and the program on it; `bench --list` says what is measured
    python3 run.py help                this text

The first call makes a virtual environment in .venv and installs what requirements/ has locked, by hash; later calls
start at once. `python3 run.py dev --help` lists what can be set.
"""

# Read by whatever Python somebody happens to have, to tell them which one is needed: nothing newer than 3.6 in here.
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

OLDEST, NEWEST = (3, 11), (3, 14)  # as requires-python in pyproject.toml; a test compares them
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.json")

LOCKS = {
    "dev": "requirements/local.txt",
    "test": "requirements/dev.txt",
    "lanes": "requirements/dev.txt",
    "bench": "requirements/dev.txt",
}
DOWNLOADED_MB = {"dev": 150, "test": 270, "lanes": 270, "bench": 270}
# Commands that are a package of this checkout and of no release.
PACKAGES = {"lanes": "lanes", "bench": "benchmarks"}
# What the installation follows from; a change in one of them installs again.
SOURCES = (
    "pyproject.toml",
    "requirements/local.txt",
    "requirements/dev.txt",
    "hatch_build.py",
    "orchestrator/web/bundles/package-lock.json",
)

CHECKS = (
    # First: the tests meet the pages with everything that a release carries.
    ("bundles", ["hatch_build.py"]),
    ("style", ["-m", "ruff", "check", "."]),
    ("format", ["-m", "ruff", "format", "--check", "."]),
    ("types", ["-m", "mypy"]),
    ("imports", ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]),
)

# A process for each processor, though no more than the memory of a small machine bears; the last tests are shared out.
SIDE_BY_SIDE = ("--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal")

WAIT_SECONDS = 900  # for another first install in the same checkout; a slow line takes minutes for 150 MB
OFFLINE_SIGNS = (
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "nodename nor servname",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
)


class Problem(Exception):
    """Something that the reader of the message can mend."""


def main(arguments: list) -> int:
    """Do what *arguments* ask; the exit code."""
    command = arguments[0] if arguments else "help"
    if command in ("help", "-h", "--help"):
        print(__doc__.strip())
        return 0
    if command not in LOCKS:
        print(f"run.py knows no command `{command}`\n\n{__doc__.strip()}", file=sys.stderr)
        return 2
    try:
        use_suitable_python(arguments)
        prepare(command)
    except Problem as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 2
    if command == "test":
        return run_checks(arguments[1:])
    if command in PACKAGES:
        paths = dict(os.environ, PYTHONPATH=os.path.join(ROOT, "tests"))
        return subprocess.call([PYTHON, "-m", PACKAGES[command], *arguments[1:]], cwd=ROOT, env=paths)
    sys.stdout.flush()
    os.execv(PYTHON, [PYTHON, "-m", "orchestrator", *arguments])  # noqa: S606 - there is no shell to avoid
    return 0


def use_suitable_python(arguments: list) -> None:
    """Return when this Python will do; otherwise go on in one that does, or say which is missing."""
    if is_suitable(sys.version_info[:2]):
        return
    for minor in (13, 12, 14, 11):
        program = shutil.which(f"python3.{minor}")
        if program and version_of(program) == (3, minor):
            say(f"Python {sys.version_info[0]}.{sys.version_info[1]} does not fit; going on with {program}")
            sys.stdout.flush()
            os.execv(program, [program, os.path.abspath(__file__), *arguments])  # noqa: S606
    raise Problem(
        f"This needs Python {text(OLDEST)} to {text(NEWEST)}, and python3 is {text(sys.version_info[:2])}.\n"
        f"Install one of these, for example 3.13, and call it by its name:  python3.13 run.py {' '.join(arguments)}"
    )


def is_suitable(version: tuple) -> bool:
    """Whether pyproject.toml allows this version."""
    return OLDEST <= tuple(version) <= NEWEST


def version_of(program: str) -> tuple:
    """The version of a Python, (0, 0) when it does not run."""
    question = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        answer = subprocess.check_output([program, "-I", "-S", "-c", question], stderr=subprocess.DEVNULL, timeout=30)
        major, minor = answer.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0


def prepare(command: str) -> None:
    """Return when .venv holds what *command* needs."""
    if is_prepared(command):
        return
    try:
        place = os.open(ROOT, os.O_RDONLY)
        wait_for_turn(place)
        if not is_prepared(command):
            make_venv()
            install(command)
        os.close(place)
    except OSError as error:
        raise Problem(f"Cannot write {error.filename or VENV}: {error.strerror}") from error


def is_prepared(command: str) -> bool:
    """Whether the last installation is complete, from these very locks, in this very place, and still works."""
    try:
        with open(STAMP) as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return False
    # Whoever can run the tests can run everything.
    return (
        isinstance(stamp, dict)
        and LOCKS.get(stamp.get("for")) in (LOCKS[command], LOCKS["test"])
        and stamp.get("sources") == fingerprint()
        and stamp.get("place") == ROOT
        and tuple(stamp.get("python", ())) == version_of(PYTHON)
    )


def fingerprint() -> str:
    """Changes when anything changes that the installation follows from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read() + b"\0")
    return digest.hexdigest()


def wait_for_turn(place: int) -> None:
    """One installation at a time; the turn ends with the process."""
    gives_up_at = time.monotonic() + WAIT_SECONDS
    told = False
    while True:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= gives_up_at:
                raise Problem(
                    "Another run.py has been installing here for a long time; end it and try again."
                ) from None
        if not told:
            say("another run.py is installing here; waiting for it")
            told = True
        time.sleep(0.2)


def make_venv() -> None:
    """Make .venv, or keep the one that is there when it works and was made in this place."""
    made_here = os.path.exists(os.path.join(VENV, "pyvenv.cfg")) and not was_moved()
    if made_here and is_suitable(version_of(PYTHON)) and has_pip():
        return
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = text(sys.version_info[:2])
            raise Problem(
                f"This Python ({version}) cannot make virtual environments: its module {module} is missing.\n"
                f"On Debian or Ubuntu:  apt install python{version}-venv"
            )
    say(f"making a virtual environment in {VENV}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if made.returncode != 0:
        raise Problem("The virtual environment could not be made:\n" + made.stdout.decode(errors="replace").strip())


def was_moved() -> bool:
    """Whether the last installation was made in another directory: its programs then point there."""
    try:
        with open(STAMP) as file:
            return json.load(file).get("place", ROOT) != ROOT
    except (OSError, ValueError, AttributeError):
        return False


def has_pip() -> bool:
    """Whether the virtual environment can install anything; those that uv makes cannot."""
    return subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0


def install(command: str) -> None:
    """Install the lock of *command*, then this checkout, and note that it is done."""
    if os.path.exists(STAMP):
        os.remove(STAMP)
    started = time.monotonic()
    lock = os.path.join(ROOT, LOCKS[command])
    with open(lock) as file:
        total = sum("==" in line for line in file)
    say(f"installing {total} packages (the first time downloads about {DOWNLOADED_MB[command]} MB)")
    run_pip(["--require-hashes", "-r", lock], total)
    # The checkout itself: linked, not copied, and built with what has just been installed.
    run_pip(["--no-deps", "--no-build-isolation", "--no-index", "--editable", ROOT], 0)
    if command == "dev":
        bundle()
    stamp = {"for": command, "sources": fingerprint(), "place": ROOT, "python": version_of(PYTHON)}
    with open(STAMP + ".new", "w") as file:
        json.dump(stamp, file)
    os.replace(STAMP + ".new", STAMP)
    say(f"installed in {time.monotonic() - started:.0f} s")


def bundle() -> None:
    """Make the modules of others for the pages, where Node is at hand; without them the pages do with less."""
    if not shutil.which("npm"):
        say("no npm here: uploads on the pages are limited to 200 MB and begin anew after a break")
        return
    made = subprocess.run([PYTHON, "hatch_build.py"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        say("the modules for large uploads and for HLS could not be made; the pages do without them:")
        say(made.stdout.decode(errors="replace").strip()[-500:])


def run_pip(arguments: list, total: int) -> None:
    """Run pip install and show how far it is; on failure, its last words and what they mean."""
    # A user's wish to install below the home directory is not meant for a virtual environment.
    environment = dict(os.environ, PIP_USER="0", PYTHONUNBUFFERED="1")
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    pip = subprocess.Popen(
        [PYTHON, "-m", "pip", "install", *options, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, seen = [], 0
    try:
        for raw in pip.stdout:
            line = raw.decode(errors="replace").rstrip()
            said.append(line)
            # Whether it is fetched or lies on a local shelf.
            if total and line.startswith(("Collecting ", "Processing ")):
                seen += 1
                show_progress(seen, total, package_in(line))
            elif "Retrying (" in line:
                say("the package registry does not answer; trying again")
            elif line.startswith("Installing collected packages") and total:
                say("unpacking")
    finally:
        if pip.poll() is None and sys.exc_info()[0] is not None:
            pip.terminate()
        code = pip.wait()
    if code != 0:
        raise Problem(explain(said))


def package_in(line: str) -> str:
    """The package's name in pip's line on a requirement (`name==1.0`) or on a file (`…/name-1.0-py3-none-any.whl`)."""
    word = os.path.basename(line.split()[1])
    return word.split("==")[0] if "==" in word else word.split("-")[0]


def show_progress(seen: int, total: int, name: str) -> None:
    """One line that is overwritten on a terminal; every tenth package in a log."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K  {seen}/{total} {name}" + ("\n" if seen == total else ""))
        sys.stdout.flush()
    elif seen % 10 == 0 or seen == total:
        say(f"{seen}/{total}")


def explain(said: list) -> str:
    """What pip's failure means for somebody who wants to run this."""
    output = "\n".join(said)
    tail = "\n".join("  " + line for line in said[-12:] if "Retrying (" not in line)
    if any(sign in output for sign in OFFLINE_SIGNS):
        return (
            f"{tail}\n\nThe package registry could not be reached. Check the network or the proxy (HTTPS_PROXY), or "
            "name a mirror (PIP_INDEX_URL),\nand run the same command again; what has been downloaded is kept."
        )
    if "DO NOT MATCH THE HASHES" in output:
        return f"{tail}\n\nA downloaded package is not the one that was locked; nothing of it was installed."
    if "No matching distribution" in output:
        return (
            f"{tail}\n\nThere is no build of this package for this system and Python {text(version_of(PYTHON))}. "
            f"Python {text(OLDEST)} to {text(NEWEST)} on Linux (glibc 2.28 or newer) and macOS are covered."
        )
    return f"{tail}\n\nThe installation failed; run the same command again to go on."


def run_checks(pytest_arguments: list) -> int:
    """Every check and every test, also after one has failed; 0 when all passed."""
    failed = []
    for name, arguments in (*CHECKS, ("tests", ["-m", "pytest", *SIDE_BY_SIDE, *pytest_arguments])):
        say(name)
        if subprocess.call([PYTHON, *arguments], cwd=ROOT) != 0:
            failed.append(name)
    say(f"failed: {', '.join(failed)}" if failed else "everything passed")
    return 1 if failed else 0


def text(version: tuple) -> str:
    """3.11 for (3, 11)."""
    return ".".join(str(number) for number in version)


def say(line: str) -> None:
    """A line of our own, told apart from those of pip and pytest."""
    print(f"run.py: {line}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
