"""Settings: complete or not at all, every fault at once, no secret in any text."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.settings import DatabaseSettings, Settings, SettingsError

SECRETS = {
    "DATABASE_URL": "postgresql://someone:hush-database@db.example/clips",
    "CLOUDFLARE_API_TOKEN": "hush-provider-token",
    "CLOUDFLARE_WEBHOOK_SECRET": "hush-webhook-secret-1,hush-webhook-secret-2",
    "R2_ACCESS_KEY_ID": "hush-access-key",
    "R2_SECRET_ACCESS_KEY": "hush-secret-key",
    "API_TOKENS": "hush-api-token-one, hush-api-token-two",
}
COMPLETE = SECRETS | {
    "CLOUDFLARE_ACCOUNT_ID": "account",
    "R2_ACCOUNT_ID": "store",
    "R2_BUCKET_NAME": "clips",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A complete environment, and nothing from outside."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def faults(**flags: object) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        Settings.load(**flags)
    return refused.value.faults


def test_a_complete_environment_is_read_with_its_defaults() -> None:
    settings = Settings.load()
    assert settings.database_url.get_secret_value() == COMPLETE["DATABASE_URL"]
    assert [secret.get_secret_value() for secret in settings.cloudflare_webhook_secret] == [
        "hush-webhook-secret-1",
        "hush-webhook-secret-2",
    ]
    assert [token.get_secret_value() for token in settings.api_tokens] == ["hush-api-token-one", "hush-api-token-two"]
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.cloudflare_api_url == "https://api.cloudflare.com/client/v4"
    assert settings.bucket_endpoint == "https://store.r2.cloudflarestorage.com"
    assert settings.bucket_public_url == "https://store.r2.cloudflarestorage.com/clips"


def test_without_secrets_nothing_is_accepted(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("CLOUDFLARE_WEBHOOK_SECRET")
    environment.delenv("API_TOKENS")
    settings = Settings.load()
    assert (settings.cloudflare_webhook_secret, settings.api_tokens) == ((), ())


def test_an_empty_environment_lists_all_that_is_missing_at_once(environment: pytest.MonkeyPatch) -> None:
    for name in COMPLETE:
        environment.delenv(name)
    assert set(faults()) == {
        "DATABASE_URL: is not set",
        "CLOUDFLARE_ACCOUNT_ID: is not set",
        "CLOUDFLARE_API_TOKEN: is not set",
        "R2_ENDPOINT_URL: this or R2_ACCOUNT_ID must be set",
        "R2_ACCESS_KEY_ID: is not set",
        "R2_SECRET_ACCESS_KEY: is not set",
        "R2_BUCKET_NAME: is not set",
    }


def test_missing_and_wrong_ones_are_listed_together(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("CLOUDFLARE_API_TOKEN")
    environment.setenv("PORT", "eighty")
    environment.setenv("R2_BUCKET_NAME", "My Bucket")
    environment.setenv("DATABASE_URL", "mysql://x")
    environment.setenv("R2_PUBLIC_URL", "ftp://x")
    assert [fault.split(":")[0] for fault in sorted(faults())] == [
        "CLOUDFLARE_API_TOKEN",
        "DATABASE_URL",
        "PORT",
        "R2_BUCKET_NAME",
        "R2_PUBLIC_URL",
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "sqlite:///x", "must start with postgresql://"),
        ("CLOUDFLARE_ACCOUNT_ID", "a/../b", "match"),
        ("CLOUDFLARE_API_URL", "http://api.example", "must be https"),
        ("CLOUDFLARE_API_URL", "https://user@api.example", "without user name"),
        ("CLOUDFLARE_API_URL", "https://api.example/?x=1", "without user name and query"),
        ("CLOUDFLARE_API_URL", "api.example", "must be an http"),
        ("CLOUDFLARE_API_URL", "https://", "must be an http"),
        ("CLOUDFLARE_API_URL", "https://[::1", ""),
        ("CLOUDFLARE_WEBHOOK_SECRET", "long-enough-to-be-one,short", "at least 16 characters"),
        ("API_TOKENS", "short", "at least 16 characters"),
        ("CLOUDFLARE_API_TOKEN", "", "at least 1 "),
        ("CLOUDFLARE_API_TOKEN", "copied-with-its-line-end\n", "a line end"),
        ("R2_SECRET_ACCESS_KEY", "two words", "a blank"),
        ("R2_BUCKET_NAME", "UPPER", "match"),
        ("R2_BUCKET_NAME", "a/b", "match"),
        ("R2_BUCKET_NAME", "ab\n", "match"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("PORT", "1.5", "integer"),
        ("LOOK_INTERVAL_SECONDS", "0", "greater than or equal to 0.1"),
        ("LOOK_INTERVAL_SECONDS", "nan", "600"),
        ("CLOUDFLARE_CALLS", "5", "greater than or equal to 10"),
        ("CLOUDFLARE_CALLS_WINDOW_SECONDS", "0", "greater than 0"),
        ("MAX_TRANSFERS", "0", "greater than or equal to 1"),
        ("LOG_JSON", "perhaps", "boolean"),
    ],
)
def test_each_wrong_value_is_named_with_what_is_wrong(
    environment: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    environment.setenv(name, value)
    (fault,) = faults()
    assert fault.startswith(f"{name}: ")
    assert says in fault


def test_other_machines_are_served_only_with_tokens(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOST", "0.0.0.0")  # noqa: S104
    assert Settings.load().host == "0.0.0.0"  # noqa: S104
    environment.delenv("API_TOKENS")
    (fault,) = faults()
    assert fault.startswith("HOST: other machines could move clips")
    for loopback in ("127.0.0.1", "::1", "localhost"):
        environment.setenv("HOST", loopback)
        assert Settings.load().host == loopback


def test_a_store_of_ones_own_stands_in_for_an_account(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("R2_ACCOUNT_ID")
    environment.setenv("R2_ENDPOINT_URL", "http://127.0.0.1:9000/")
    environment.setenv("R2_PUBLIC_URL", "https://files.example/")
    settings = Settings.load()
    assert settings.bucket_endpoint == "http://127.0.0.1:9000"
    assert settings.bucket_public_url == "https://files.example"


def test_flags_come_before_the_environment_and_that_before_the_file(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nMAX_TRANSFERS=2\nLOOK_INTERVAL_SECONDS=3\nUNKNOWN=1\n")
    environment.setenv("PORT", "2222")
    environment.setenv("MAX_TRANSFERS", "4")
    settings = Settings.load(port=3333, max_transfers=None)
    assert (settings.port, settings.max_transfers, settings.look_interval_seconds) == (3333, 4, 3.0)


def test_a_command_that_only_needs_the_database_asks_for_nothing_else(environment: pytest.MonkeyPatch) -> None:
    for name in COMPLETE:
        environment.delenv(name)
    environment.setenv("DATABASE_URL", "postgresql:///clips")
    assert DatabaseSettings.load().database_url.get_secret_value() == "postgresql:///clips"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc]


def test_no_text_made_of_settings_holds_a_secret() -> None:
    settings = Settings.load()
    texts = [repr(settings), str(settings), f"{settings}", settings.model_dump_json(), str(settings.model_dump())]
    assert not [text for text in texts if "hush" in text]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "hush://someone:hush@db/clips"),
        ("DATABASE_URL", "postgresql://someone:hush\u2100@db.example/clips"),
        ("DATABASE_URL", "postgresql://someone:hush@[db.example/clips"),
        ("CLOUDFLARE_API_TOKEN", ""),
        ("CLOUDFLARE_WEBHOOK_SECRET", "hush"),
        ("API_TOKENS", "hush,hush"),
        ("R2_ENDPOINT_URL", "https://someone:hush@store.example"),
        ("R2_ENDPOINT_URL", "https://someone:hush\u2100@store.example"),
        ("R2_PUBLIC_URL", "https://files.example/?signature=hush"),
        ("R2_SECRET_ACCESS_KEY", ""),
        ("CLOUDFLARE_ACCOUNT_ID", "hush hush"),
        ("PORT", "hush"),
    ],
)
def test_no_fault_holds_a_value(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    told = "".join(traceback.format_exception(refused.value)) + repr(refused.value) + str(refused.value)
    assert name in told
    assert "hush" not in told
    assert b"hush" not in pickle.dumps(refused.value.faults)


def test_the_servers_own_address_is_the_usual_one_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://pooler/db")
    assert DatabaseSettings.load().direct_url == "postgresql://pooler/db"
    monkeypatch.setenv("DATABASE_DIRECT_URL", "postgresql://server/db")
    assert DatabaseSettings.load().direct_url == "postgresql://server/db"
    monkeypatch.setenv("DATABASE_DIRECT_URL", "mysql://server/db")
    with pytest.raises(SettingsError, match="DATABASE_DIRECT_URL: must start with postgresql://"):
        DatabaseSettings.load()


@pytest.mark.parametrize(
    ("tokens", "readers", "fault"),
    [
        (None, "hush-a-reader-token", "without API_TOKENS nobody could act"),
        ("hush-api-token-one", "hush-a-reader-token,hush-api-token-one", "a token has one role"),
        ("hush-api-token-one", "short", "at least 16 characters"),
    ],
)
def test_tokens_that_may_only_look_stand_beside_those_that_may_act(
    environment: pytest.MonkeyPatch, tokens: str | None, readers: str, fault: str
) -> None:
    environment.delenv("API_TOKENS") if tokens is None else environment.setenv("API_TOKENS", tokens)
    environment.setenv("API_READ_TOKENS", readers)
    with pytest.raises(SettingsError) as refusal:
        Settings.load(_env_file=None)
    assert any(line.startswith("API_READ_TOKENS") and fault in line for line in refusal.value.faults)
    assert "hush" not in str(refusal.value)
