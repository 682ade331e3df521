"""What goes wrong when a machine is to serve itself; every text says what would help.

LocalError
├── NotInstalled           a program that is needed is not on this machine
├── PostgresUnavailable    PostgreSQL does not start
├── DatabaseUnusable       the database runs and cannot be brought up to date
├── BucketUnavailable      rclone does not start
├── ProgramUnavailable     a program of ours does not start
├── DirectoryInUse         another process holds the directory
├── PortInUse              another program listens there
└── KeepsEnding            something was started again and again, and ends each time
"""

from __future__ import annotations


class LocalError(Exception):
    """A part of the local setup cannot do its work."""


class NotInstalled(LocalError):
    """A program that is needed is not on this machine; trying again does not help."""


class PostgresUnavailable(LocalError):
    """PostgreSQL does not start."""


class DatabaseUnusable(LocalError):
    """The database runs, but cannot be brought to the newest version."""


class BucketUnavailable(LocalError):
    """The bucket cannot be served."""


class ProgramUnavailable(LocalError):
    """A program of ours does not start."""


class DirectoryInUse(LocalError):
    """Another process holds the directory."""


class PortInUse(LocalError):
    """Another program listens on the port, or we may not."""


class KeepsEnding(LocalError):
    """A service was started again and again, and ends each time; *wrong_settings* when it said that those are why."""

    def __init__(self, text: str, *, wrong_settings: bool = False) -> None:
        super().__init__(text)
        self.wrong_settings = wrong_settings
