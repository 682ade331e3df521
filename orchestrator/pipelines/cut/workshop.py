"""The directories a job goes through, and the moves between them, each all or nothing.

    UPLOAD_TMP_DIR/{upload}.{hash}   the bytes as they came; kept until they expire
    PROCESS_WORK_DIR/{job}/          source (a second name of the upload's bytes), clip_001.mp4 … as they are made
    OUTPUT_ROOT/{job}/clip_001.mp4   what is served

A clip gets its name only when it is whole and on disk, so that whatever has its name is finished, also after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.drivers.errors import PermanentError, TransientError

# The web server reads them as another user.
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where one machine keeps uploads, work and outputs."""

    uploads: Path
    work: Path
    outputs: Path

    @classmethod
    def at(cls, uploads: Path | None, work: Path | None, outputs: Path | None) -> Workshop | None:
        """The three directories; None where they are not set, and cutting is switched off."""
        return None if uploads is None or work is None or outputs is None else cls(uploads, work, outputs)

    def upload(self, upload_id: str, sha256: str) -> Path:
        """The bytes of an upload; others under the same id would have another name."""
        return self.uploads / f"{upload_id}.{sha256[:16]}"

    def source(self, job_id: str) -> Path:
        """The job's own name of the upload's bytes."""
        return self.work / job_id / "source"

    def made(self, job_id: str, number: int) -> Path:
        """A finished clip before it is exported; counted from 1."""
        return self.work / job_id / clip_name(number)

    def making(self, job_id: str, number: int, mark: str) -> Path:
        """A clip while it is made. The *mark* differs from run to run: a child that outlives its run spoils nothing."""
        return self.work / job_id / f"{clip_name(number)}.{mark}.part"

    def served(self, job_id: str, number: int) -> Path:
        """A clip where it is served."""
        return self.outputs / job_id / clip_name(number)

    def prepare(self, job_id: str, upload: Path, size_bytes: int) -> None:
        """Give the upload's bytes a second name in the job's work directory; a copy where that is another volume.

        Raises:
            PermanentError: the bytes are gone, or not those that were recorded.
        """
        source = self.source(job_id)
        with told("the uploaded file"):
            self._directory(source.parent)
            if not source.exists():
                _link_or_copy(upload, source)
            if source.stat().st_size != size_bytes:
                raise PermanentError("upload_damaged", "The uploaded file is not as long as it was when it was stored")

    def keep(self, making: Path, made: Path) -> None:
        """Give a finished clip its name, on disk before it has it."""
        with told(f"the clip {made.name}"):
            _sync(making)
            making.replace(made)
            _sync(made.parent)

    def export(self, job_id: str, number: int) -> None:
        """Move a finished clip to where it is served; one that is there already stays."""
        made, served = self.made(job_id, number), self.served(job_id, number)
        with told(f"the clip {served.name}"):
            self._directory(served.parent)
            if made.exists():
                _move(made, served)
            elif not served.exists():
                raise TransientError("clip_lost", f"{served.name} is neither made nor exported")

    def clear(self, job_id: str) -> None:
        """Remove the job's work directory."""
        with told("the job's work directory"):
            _remove(self.work / job_id)

    def withdraw(self, job_id: str) -> None:
        """Remove the job's served clips."""
        with told("the job's clips"):
            _remove(self.outputs / job_id)

    def _directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(_DIRECTORY_MODE)


def clip_name(number: int) -> str:
    """``clip_001.mp4`` for 1."""
    return f"clip_{number:03d}.mp4"


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the file system says of *what* into a named reason."""
    try:
        yield
    except FileNotFoundError as problem:
        raise PermanentError("upload_missing", f"{what[0].upper()}{what[1:]} is not there any more") from problem
    except OSError as problem:
        if problem.errno in _NO_SPACE:
            raise TransientError("disk_full", f"The disk is full: {what} could not be written") from problem
        if problem.errno in _NOT_ALLOWED:
            raise PermanentError("not_permitted", f"The program may not write {what}") from problem
        raise TransientError("disk", f"The disk refused {what} ({problem.strerror})") from problem


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as problem:
        if problem.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        _copy(source, target)


def _move(source: Path, target: Path) -> None:
    """Rename; over the border of a volume copy, sync, and only then remove."""
    source.chmod(_FILE_MODE)
    try:
        source.replace(target)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        _copy(source, target)
        source.unlink()
    _sync(target.parent)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(source, part)
        part.chmod(_FILE_MODE)
        _sync(part)
        part.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    # Out of the way first, in one step: a new attempt may want the name before all of it is gone.
    going = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}.gone")
    with contextlib.suppress(FileNotFoundError):
        directory.rename(going)
        shutil.rmtree(going)
