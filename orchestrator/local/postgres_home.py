"""Where a cluster lives and who runs it.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody`, who may not enter a private directory. No
directory of the user's is ever opened for it: the cluster then lives below a directory of root's instead, and the
wanted directory keeps a note of where.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import PostgresUnavailable
from .processes import Account

SOCKET_NAME = ".s.PGSQL.5432"

_SHELVES = (Path("/var/lib/clip-orchestrator"), Path("/var/tmp/clip-orchestrator"))  # noqa: S108 - ownership is checked
_NOTE = "elsewhere"
_SOCKET_PATH_LIMIT_BYTES = 100  # sun_path holds 104 bytes on macOS and 108 on Linux, the closing zero among them


@dataclass(frozen=True, slots=True)
class Home:
    """The directory that holds everything of one cluster, and the account its server runs as (None: ours)."""

    directory: Path
    account: Account | None


def choose_home(wanted: Path) -> Home:
    """The home for the cluster that belongs at *wanted*, which exists; one caller at a time.

    Raises:
        PostgresUnavailable: we are root, and there is nobody to run it or no place to put it.
    """
    if os.geteuid() != 0:
        return Home(directory=wanted, account=None)
    owner = _owner_of_data(wanted)
    if owner is not None:
        # An ordinary user's cluster, or ours from before: it goes on as whom it began.
        return Home(directory=wanted, account=owner)
    note = wanted / _NOTE
    if is_open_to_others(wanted) and not note.exists():
        return Home(directory=wanted, account=_nobody())
    directory = shelf() / f"cluster-{_identity(note)}"
    _make_enterable(directory)
    return Home(directory=directory, account=_owner_of_data(directory) or _nobody())


def is_open_to_others(path: Path) -> bool:
    """Whether any account may reach *path*: it and every directory above it can be entered by others."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


def shelf() -> Path:
    """The directory of root's, enterable by others, for what may not lie in a private one.

    Raises:
        PostgresUnavailable: none of the usual places can be written.
    """
    for candidate in _SHELVES:
        try:
            _make_enterable(candidate)
        except OSError:
            continue
        # /var/tmp belongs to everybody: a directory that somebody else put there is not ours to trust.
        if candidate.stat().st_uid == 0 and not candidate.is_symlink() and is_open_to_others(candidate):
            return candidate
    places = " or ".join(str(candidate) for candidate in _SHELVES)
    raise PostgresUnavailable(
        f"PostgreSQL cannot run as root, and nobody may enter this directory; {places} could not be used instead. "
        "Run as an ordinary user, or choose a data directory that others may enter"
    )


def socket_directory(home: Home) -> Path:
    """A directory for the socket, entered by the server's account alone, with a path short enough for a socket."""
    directory = home.directory / "socket"
    if len(os.fsencode(directory / SOCKET_NAME)) > _SOCKET_PATH_LIMIT_BYTES:
        # Named after the home, so that runs which were killed leave one directory and not many.
        digest = hashlib.sha256(os.fsencode(home.directory)).hexdigest()[:12]
        directory = Path(tempfile.gettempdir(), f"clip-pg-{os.geteuid()}-{digest}")
    owner = home.account.uid if home.account else os.geteuid()
    if not _is_private(directory, owner):
        if directory.is_symlink() or directory.exists():
            directory = Path(tempfile.mkdtemp(prefix="clip-pg-"))
        else:
            directory.mkdir(mode=0o700)
        give(directory, home.account)
    return directory


def give(path: Path, account: Account | None) -> None:
    """Make *account* the owner of *path*; nothing to do when it is our own."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _make_enterable(directory: Path) -> None:
    """A directory that others may pass through but not list, whatever the umask is; one that exists stays as it is."""
    try:
        directory.mkdir()
    except FileExistsError:
        return
    directory.chmod(0o711)


def _owner_of_data(directory: Path) -> Account | None:
    """Whose cluster lies in *directory*, if there is one and it is not root's."""
    for data in directory.glob("data-*"):
        found = data.stat()
        if found.st_uid != 0:
            return Account(uid=found.st_uid, gid=found.st_gid)
    return None


def _is_private(directory: Path, owner: int) -> bool:
    if directory.is_symlink() or not directory.is_dir():
        return False
    found = directory.stat()
    return found.st_uid == owner and stat.S_IMODE(found.st_mode) == 0o700


def _nobody() -> Account:
    """The account without rights that every system has; initdb insists on one with an entry in passwd."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise PostgresUnavailable(
            "PostgreSQL cannot run as root, and this system has no account `nobody`: run as an ordinary user"
        ) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _identity(note: Path) -> str:
    """What the note at the wanted directory says, written when there is none yet.

    Drawn by lot, not from the path: a directory made anew after it was removed gets a new cluster, not the old data,
    and a moved directory keeps its own.
    """
    if not note.exists():
        unfinished = note.with_suffix(".new")
        unfinished.write_text(secrets.token_hex(8) + "\n", encoding="ascii")
        unfinished.replace(note)
    identity = note.read_text(encoding="ascii").strip()
    if not identity.isalnum():
        raise PostgresUnavailable(f"{note} is damaged: it should hold the name of the cluster's directory")
    return identity
