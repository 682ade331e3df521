from __future__ import annotations

import pytest

from orchestrator.local.dev_environment import (
    DATABASE_VARIABLES,
    PROVIDER_VARIABLES,
    STORE_VARIABLES,
    bucket_environment,
    names_one_of,
    page_environment,
    page_url,
    stand_in_environment,
)
from orchestrator.local.dev_state import DevState
from orchestrator.settings import Settings


@pytest.mark.parametrize(
    ("environment", "found"),
    [({}, None), ({"R2_ENDPOINT_URL": ""}, None), ({"R2_ACCOUNT_ID": "a"}, "R2_ACCOUNT_ID"), ({"HOST": "::1"}, None)],
    ids=["nothing", "empty-is-unset", "one-is-enough", "others-do-not-count"],
)
def test_naming_one_variable_of_a_part_is_enough(environment: dict[str, str], found: str | None) -> None:
    assert names_one_of(environment, STORE_VARIABLES) == found


def test_what_the_programs_are_told_is_all_they_need_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    state = DevState("a" * 32, "token", "w" * 40, "k" * 32, "s" * 64)
    told = {
        "DATABASE_URL": "postgresql://postgres@/orchestrator?host=%2Ftmp",
        **stand_in_environment(state, "http://127.0.0.1:8081"),
        **bucket_environment(state, "http://127.0.0.1:8082", "http://127.0.0.1:8083/clips"),
        **page_environment("127.0.0.1", 8080),
    }
    for variable in (*DATABASE_VARIABLES, *PROVIDER_VARIABLES, *STORE_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(_env_file=None)
    assert settings.port == 8080
    assert settings.cloudflare_api_url == "http://127.0.0.1:8081/client/v4"
    assert settings.bucket_public_url == "http://127.0.0.1:8083/clips"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104 - compared, not bound
        ("::", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("desk.lan", "http://desk.lan:80"),
    ],
)
def test_the_page_is_named_as_this_machine_reaches_it(host: str, url: str) -> None:
    assert page_url(host, 80) == url
