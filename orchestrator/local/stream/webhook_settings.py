"""Where the account's one webhook goes and what signs it; kept in a file between runs."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.local.stream.files import write_private
from orchestrator.local.stream.options import StandInOptions
from orchestrator.local.stream.videos import rfc3339


@dataclass(frozen=True, slots=True)
class Registration:
    """Where notifications go and what signs them."""

    url: str
    secret: str
    modified: str

    def as_json(self) -> dict[str, str]:
        return {"notificationUrl": self.url, "modified": self.modified, "secret": self.secret}


class WebhookSettings:
    """The registration, kept in one file. Another address brings another secret."""

    def __init__(self, path: Path, options: StandInOptions) -> None:
        self._path = path
        self._first_secret = options.webhook_secret
        self.current: Registration | None = None
        if path.exists():
            self.current = Registration(**json.loads(path.read_bytes()))
        if options.webhook_url is not None:
            self.register(options.webhook_url)
        if options.webhook_secret is not None and self.current is not None:
            self._keep(replace(self.current, secret=options.webhook_secret))

    def register(self, url: str) -> Registration:
        """Send notifications to *url* from now on; the same address keeps its secret."""
        if self.current is not None and self.current.url == url:
            return self._keep(replace(self.current, modified=_now()))
        # A secret given at the start is for the first address; a change of address always rotates.
        secret = self._first_secret if self.current is None else None
        return self._keep(Registration(url, secret or secrets.token_hex(16), _now()))

    def rotate(self) -> Registration | None:
        """Give the same address a new secret."""
        if self.current is None:
            return None
        return self._keep(replace(self.current, secret=secrets.token_hex(16), modified=_now()))

    def delete(self) -> None:
        """Send no more notifications."""
        self.current = None
        self._path.unlink(missing_ok=True)

    def _keep(self, registration: Registration) -> Registration:
        write_private(self._path, json.dumps(asdict(registration)))
        self.current = registration
        return registration


def _now() -> str:
    return rfc3339(datetime.now(UTC)) or ""
