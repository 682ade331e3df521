"""Settings of commands that need only some of them: what belongs to the rest may be missing.

Whatever is set is checked all the same.
"""

from __future__ import annotations

from pydantic import SecretStr

from orchestrator.settings import Settings

_UNUSED = "unused"


class ProviderSettings(Settings):
    """For commands that talk to the provider and leave the bucket alone."""

    r2_account_id: str | None = _UNUSED
    r2_access_key_id: SecretStr = SecretStr(_UNUSED)
    r2_secret_access_key: SecretStr = SecretStr(_UNUSED)
    r2_bucket_name: str = _UNUSED


class NotificationSettings(ProviderSettings):
    """For commands that only sign notifications."""

    database_url: SecretStr = SecretStr("postgresql://unused")
    cloudflare_account_id: str = _UNUSED
    cloudflare_api_token: SecretStr = SecretStr(_UNUSED)


PROVIDER_NAMES = (
    "database_url",
    "cloudflare_account_id",
    "cloudflare_api_token",
    "cloudflare_api_url",
    "cloudflare_webhook_secret",
    "cloudflare_calls",
    "cloudflare_calls_window_seconds",
    "log_json",
)
NOTIFICATION_NAMES = ("cloudflare_webhook_secret", "log_json")
