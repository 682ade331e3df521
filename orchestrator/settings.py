"""The settings: read from the environment once, complete or not at all.

Every field is an environment variable of the same name in capitals, and a flag of the commands. Secrets do not
print. `Settings.load` reports all faults at once.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# The database's own floor, see migrations/history.sql.
HISTORY_MIN_DAYS = 7
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

_CommaList = Annotated[tuple[SecretStr, ...], NoDecode]
_Hosts = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """The environment is not usable; *faults* has one line per fault, none of them with a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class DatabaseSettings(BaseSettings):
    """What a command needs that only touches the database."""

    model_config = SettingsConfigDict(
        env_file=".env", frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True
    )

    database_url: SecretStr = Field(description="PostgreSQL address; may be that of a connection pooler")
    database_direct_url: SecretStr | None = Field(
        None, description="address of the server itself, where a connection pooler stands at database_url"
    )
    log_json: bool = Field(False, description="log JSON lines instead of text")

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and _parts(value.get_secret_value()).scheme not in ("postgres", "postgresql"):
            raise ValueError("must start with postgresql://")
        return value

    @property
    def direct_url(self) -> str:
        """The address for what needs a session of its own: listening, and migrating."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """The settings from flags, environment and ``.env``, in that order.

        Raises:
            SettingsError: with every fault.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as problem:
            raise SettingsError(
                [_fault(error) for error in problem.errors(include_input=False, include_url=False)]
            ) from None


class RetentionSettings(DatabaseSettings):
    """What the pruning of history needs."""

    # Thirteen months: last year's month can still be compared. A week is the least the database lets go of.
    history_keep_days: int = Field(
        400, ge=0, le=36_500, description="days the history of ended clips is kept, 7 or more; 0 keeps it for ever"
    )

    @field_validator("history_keep_days")
    @classmethod
    def _is_a_week(cls, value: int) -> int:
        if 0 < value < HISTORY_MIN_DAYS:
            raise ValueError(f"must be {HISTORY_MIN_DAYS} or more, or 0 to keep history for ever")
        return value

    @property
    def history_keep(self) -> timedelta | None:
        """How long the history of ended clips is kept; None for ever."""
        return timedelta(days=self.history_keep_days) if self.history_keep_days else None


class Settings(RetentionSettings):
    """What the program is told from outside."""

    cloudflare_account_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="provider account")
    cloudflare_api_token: SecretStr = Field(min_length=1, description="token with Stream read and write")
    cloudflare_api_url: str = Field("https://api.cloudflare.com/client/v4", description="provider base address")
    cloudflare_webhook_secret: _CommaList = Field((), description="signing secrets; several while one is rotated")
    cloudflare_delivery_hosts: _Hosts = Field(
        ("cloudflarestream.com", "videodelivery.net"),
        description="hosts (with all below them) an MP4 may be fetched from; an http(s) origin allows exactly that one",
    )
    # The provider allows 1,200 in 300 s to everything that uses the account; the rest stays for people and dashboards.
    cloudflare_calls: int = Field(1200, ge=10, le=1_000_000, description="calls the provider allows per window")
    cloudflare_calls_window_seconds: float = Field(300, gt=0, le=3600, description="length of that window in seconds")

    r2_account_id: str | None = Field(None, description="account of the bucket; or give r2_endpoint_url")
    r2_endpoint_url: str | None = Field(None, description="object store address")
    r2_access_key_id: SecretStr = Field(min_length=1, description="object store access key")
    r2_secret_access_key: SecretStr = Field(min_length=1, description="object store secret key")
    r2_bucket_name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="bucket of the finished files"
    )
    r2_public_url: str | None = Field(None, description="public base of finished objects; default: endpoint and bucket")

    api_tokens: _CommaList = Field((), description="bearer tokens of the API; none: loopback only")
    api_read_tokens: _CommaList = Field((), description="bearer tokens that may look at everything and ask for nothing")
    host: str = Field("127.0.0.1", description="where the web process listens")
    port: int = Field(8080, ge=0, le=65535, description="port of the web process")
    public_base_url: str | None = Field(None, description="address of the web process as others see it; for page_url")

    # A person watches the first minutes; a look is one call for fifty clips.
    look_interval_seconds: float = Field(5, ge=0.1, le=600, description="shortest time between two looks at a clip")
    # At full quality the provider is done; ten minutes are more than the last renditions usually take.
    full_quality_wait_seconds: float = Field(600, ge=0, le=86400, description="how long to wait for all renditions")
    max_duration_seconds: int = Field(3600, ge=1, le=36000, description="longest clip that may be uploaded")
    upload_expiry_seconds: int = Field(21600, ge=120, le=86400, description="how long an upload address is good")
    max_transfers: int = Field(
        5, ge=1, le=64, description="transfers to the bucket at once, in each process that does them"
    )
    # What is removed is gone: the owner decides, after having read in the log what would be.
    remove_ghost_videos: bool = Field(False, description="remove videos made for a clip that holds another or ended")

    # The cut pipeline works in three directories of one host; without them it is switched off.
    upload_tmp_dir: Path | None = Field(None, description="where files sent to be cut are kept")
    process_work_dir: Path | None = Field(None, description="where clips are made; best on the volume of the other two")
    output_root: Path | None = Field(None, description="where clips are served from: a directory, or the word bucket")
    cdn_base: str | None = Field(None, description="address under which /outputs is served; default: this service")
    ffmpeg: Path | None = Field(None, description="the ffmpeg to use; default: the one on the PATH")
    # One encoder keeps two cores busy; more only share them.
    max_cuts: int = Field(1, ge=1, le=64, description="jobs that encode at once")
    upload_max_bytes: int = Field(30_000_000_000, ge=1, description="largest file that is taken to be cut")
    # A day after its last use nobody comes back for a file.
    upload_keep_hours: float = Field(24, gt=0, le=8760, description="how long an unused upload is kept")

    @field_validator("upload_tmp_dir", "process_work_dir", "output_root")
    @classmethod
    def _is_absolute(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not value.is_absolute() and (info.field_name, str(value)) != ("output_root", "bucket"):
            raise ValueError("must be an absolute path")
        return value

    @model_validator(mode="after")
    def _has_all_or_no_directories(self) -> Self:
        places = (self.upload_tmp_dir, self.process_work_dir, self.output_root)
        if any(places) and not all(places):
            raise ValueError("UPLOAD_TMP_DIR, PROCESS_WORK_DIR and OUTPUT_ROOT go together: set all three or none")
        return self

    @field_validator(
        "cloudflare_webhook_secret", "api_tokens", "api_read_tokens", "cloudflare_delivery_hosts", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("api_tokens", "api_read_tokens", "cloudflare_webhook_secret")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        # Sixteen characters of a random token cannot be guessed over a network.
        if any(len(secret.get_secret_value()) < 16 for secret in value):
            raise ValueError("each must have at least 16 characters")
        return value

    @field_validator("api_read_tokens")
    @classmethod
    def _stands_beside_tokens(cls, value: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        tokens = {token.get_secret_value() for token in info.data.get("api_tokens", ())}
        if value and "api_tokens" in info.data and not tokens:
            raise ValueError("without API_TOKENS nobody could act: set them, too")
        if tokens & {token.get_secret_value() for token in value}:
            raise ValueError("one of them is in API_TOKENS, too; a token has one role")
        return value

    @field_validator("cloudflare_api_token", "r2_access_key_id", "r2_secret_access_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("holds a blank, a line end or another character that no key has")
        return value

    @field_validator("cloudflare_api_url", "r2_endpoint_url", "r2_public_url", "public_base_url", "cdn_base")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _parts(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("must be an http or https address without user name and query")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
            raise ValueError("must be https unless it is this machine: keys would travel in the clear")
        return value.rstrip("/")

    @field_validator("r2_endpoint_url")
    @classmethod
    def _has_a_store(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and not info.data.get("r2_account_id"):
            raise ValueError("this or R2_ACCOUNT_ID must be set")
        return value

    @field_validator("host")
    @classmethod
    def _is_guarded(cls, value: str, info: ValidationInfo) -> str:
        if value not in LOOPBACK_HOSTS and not info.data.get("api_tokens", True):
            raise ValueError("other machines could move clips: set API_TOKENS, or listen on 127.0.0.1")
        return value

    @property
    def outputs_in_bucket(self) -> bool:
        """Whether the clips of the cut pipeline are served from the bucket."""
        return str(self.output_root) == "bucket"

    @property
    def bucket_endpoint(self) -> str:
        """The object store's address."""
        return self.r2_endpoint_url or f"https://{self.r2_account_id}.r2.cloudflarestorage.com"

    @property
    def bucket_public_url(self) -> str:
        """The public base of finished objects."""
        return self.r2_public_url or f"{self.bucket_endpoint}/{self.r2_bucket_name}"


def _parts(address: str) -> SplitResult:
    """The parts of an address; a refusal does not quote it, as urlsplit's own does, since it may hold a password."""
    try:
        return urlsplit(address)
    except ValueError:
        raise ValueError("is not an address") from None


def _fault(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"][:1]).upper()
    text = "is not set" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else f"{text[0].upper()}{text[1:]}"
