"""The two kinds of failure that steer a retry.

    DriverError
    ├── TransientError   later may help
    │   └── DatabaseAwayError   our own database was away: nothing is known of anybody else
    └── PermanentError   it cannot help; a person has to change something

A driver translates what its library raises into one of these at its door; nothing of
aiohttp or botocore travels further.
"""

from __future__ import annotations

# Codes of what only a person mends: a token, a key, an address, a bucket, a quota. Nothing is failed for one of them.
NEEDS_A_PERSON = frozenset(
    {
        "provider_refused_token",
        "provider_address_wrong",
        "storage_quota",
        "source_forbidden",
        "store_refused",
        "store_misused",
        "store_rejected",
        "bucket_missing",
    }
)


# The code of `DatabaseAwayError`.
DATABASE_AWAY = "database_away"


class DriverError(Exception):
    """What a driver raises; *code* is a stable word for the history, the text is for people.

    Neither may hold a secret or a signed address: both are stored and shown.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class TransientError(DriverError):
    """Trying again may help, not sooner than *retry_after* seconds when the service named a time."""

    def __init__(self, code: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(code, text)
        self.retry_after = retry_after


class DatabaseAwayError(TransientError):
    """Our own database was away, or did not answer in time. It says nothing of the clip, nor of any service."""

    def __init__(self, text: str = "The database did not answer") -> None:
        super().__init__(DATABASE_AWAY, text)


class PermanentError(DriverError):
    """Trying again cannot help: the input, the account or the configuration has to change."""
