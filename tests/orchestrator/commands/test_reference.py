"""The page about the command line knows every command and flag, and help knows every setting."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.__main__ import _parser
from orchestrator.settings import DatabaseSettings, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text("utf-8")


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(path), parser
    for group in groups:
        for name, inner in group.choices.items():
            yield from commands(inner, (*path, name))


ALL = dict(commands(_parser()))


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


TWINS = {"--" + name.replace("_", "-") for name in Settings.model_fields}


@pytest.mark.parametrize("command", ALL)
def test_the_page_names_every_command_and_flag(command: str) -> None:
    assert f"`{command}`" in PAGE or f"orchestrator {command} " in PAGE
    own = flags(ALL[command]) - {"--help", "--data-dir"}
    assert {flag for flag in own if flag not in PAGE and flag not in TWINS} == set()


@pytest.mark.parametrize("command", ALL)
def test_every_setting_a_command_needs_is_a_flag_of_it(command: str) -> None:
    settings = ALL[command].get_default("settings")
    if command == "dev":
        assert settings is None
        return
    wanted = {"doctor": Settings}.get(command, settings)
    needed = {name for name, field in wanted.model_fields.items() if field.is_required()}
    assert {"--" + name.replace("_", "-") for name in needed} <= flags(ALL[command])


@pytest.mark.parametrize("command", [name for name in ALL if name.startswith("clips")])
def test_clips_need_the_database_alone_and_speak_json(command: str) -> None:
    assert ALL[command].get_default("settings") is DatabaseSettings
    assert "--json" in flags(ALL[command])


@pytest.mark.parametrize("command", ALL)
def test_help_fits_a_terminal_and_says_what_everything_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = ALL[command].format_help()
    assert all(len(line) <= 100 for line in text.splitlines())
    assert all(action.help for action in ALL[command]._actions)
    assert ALL[command].description is not None
