"""`doctor`: all checks, those that need another's result after it, and the table of what they found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog

from orchestrator.commands.doctor.bucket_checks import check_bucket
from orchestrator.commands.doctor.database_checks import check_database
from orchestrator.commands.doctor.findings import Finding, Verdict, fail, ok, warn, within
from orchestrator.commands.doctor.provider_checks import check_provider
from orchestrator.commands.failures import NOT_DONE
from orchestrator.commands.printing import fill, has_colour, plain, say, say_json
from orchestrator.observability import configure_logging
from orchestrator.settings import DatabaseSettings, Settings, SettingsError

# A dozen statements, each of which ends in milliseconds.
_DATABASE_SECONDS = 15.0
# Two calls of eight seconds at most, and the wait for the budget.
_PROVIDER_SECONDS = 25.0
# One call, and about a second to load its client; a write is eight calls.
_BUCKET_SECONDS, _WRITE_SECONDS = 20.0, 60.0

_COLOURS: Mapping[Verdict, str] = {"ok": "32", "warn": "33", "fail": "31"}
_WHAT_CELLS = 26


async def examine(flags: Mapping[str, Any], *, as_json: bool, write: bool) -> int:
    """Print what all checks found; 0 if nothing has to be mended."""
    configure_logging(as_json=False)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    findings = await find(flags, write=write)
    failed = sum(finding.verdict == "fail" for finding in findings)
    if as_json:
        say_json({"ok": failed == 0, "findings": [asdict(finding) for finding in findings]})
    else:
        for line in _lines(findings):
            say(line)
    return NOT_DONE if failed else 0


async def find(flags: Mapping[str, Any], *, write: bool) -> list[Finding]:
    """What all checks found, in the order in which things depend on each other."""
    settings, findings = _settings(flags)
    stated = _database(flags)
    database = await within("database", _DATABASE_SECONDS, partial(check_database, stated)) if stated else []
    findings += database
    if settings is None:
        return [
            *findings,
            _unchecked("provider", "mend the settings first"),
            _unchecked("bucket", "mend the settings first"),
        ]
    bucket = partial(check_bucket, settings, write=write)
    # Calls to the provider are counted in the database; without one, none is made.
    counted = any(finding.what == "migrations" and finding.verdict == "ok" for finding in database)
    provider = within("provider", _PROVIDER_SECONDS, partial(check_provider, settings)) if counted else _not_counted()
    for found in await asyncio.gather(provider, within("bucket", _WRITE_SECONDS if write else _BUCKET_SECONDS, bucket)):
        findings += found
    return findings


async def _not_counted() -> list[Finding]:
    return [_unchecked("provider", "mend the database first, which counts the calls")]


def _unchecked(what: str, remedy: str) -> Finding:
    return warn(what, "not checked", remedy)


def _settings(flags: Mapping[str, Any]) -> tuple[Settings | None, list[Finding]]:
    """The settings, or every fault in them."""
    try:
        settings = Settings.load(**flags)
    except SettingsError as problem:
        return None, [_fault(fault) for fault in problem.faults]
    set_here = len(settings.model_fields_set)
    return settings, [ok("settings", f"all are usable; {set_here} are set, the others have their defaults")]


def _fault(fault: str) -> Finding:
    name, colon, text = fault.partition(": ")
    if not colon:
        return fail("settings", fault, "mend it in the environment or .env")
    return fail(name, text, f"set {name} in the environment or .env, or --{name.lower().replace('_', '-')}")


def _database(flags: Mapping[str, Any]) -> DatabaseSettings | None:
    """Where the database is, though other settings may be wrong."""
    try:
        named = {name: flags.get(name) for name in DatabaseSettings.model_fields}
        return DatabaseSettings.load(**named)
    except SettingsError:
        return None


def _lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"{_painted(finding.verdict)}  {fill(plain(finding.what), _WHAT_CELLS)}  {plain(finding.text)}")
        if finding.remedy:
            lines.append(f"{'':4}  {'':{_WHAT_CELLS}}  -> {plain(finding.remedy)}")
    failed = sum(finding.verdict == "fail" for finding in findings)
    warned = sum(finding.verdict == "warn" for finding in findings)
    return [*lines, "", f"{failed} to mend, {warned} to know of, {len(findings) - failed - warned} as they should be."]


def _painted(verdict: Verdict) -> str:
    text = f"{verdict:<4}"
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if has_colour() else text
