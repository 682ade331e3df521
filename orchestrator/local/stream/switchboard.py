"""The live side of the faults: which are set, how often each has bitten, and who waits for a change."""

from __future__ import annotations

import asyncio
import json
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.local.stream.faults import Fault, Faults

F = TypeVar("F", bound=Fault)


class UnknownFault(ValueError):
    """A fault that does not exist or is written wrongly; the text names every problem."""


class FaultSwitches:
    """The faults of a running stand-in; they can be changed at any moment."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._occasions: dict[str, int] = {}
        self._bites: dict[str, int] = {}
        self._changed = asyncio.Event()

    @property
    def current(self) -> Faults:
        """The faults that are set, as they were given."""
        return self._faults

    def set(self, faults: Faults | None = None, /, **named: Any) -> None:
        """Replace all faults: by *faults*, or by name with a fault, a dict or None each.

        Counts start again. Raises UnknownFault, and changes nothing then.
        """
        self._install(_parsed(named) if faults is None else faults)

    def update(self, **named: Any) -> None:
        """Set or (with None) clear single faults and leave the others; their counts start again too."""
        kept = {name: fault for name, fault in _named(self._faults).items() if name not in named}
        self._install(_parsed({**kept, **named}), keep_counts_of=frozenset(kept))

    def clear(self) -> None:
        """Take every fault away; what is stuck moves on."""
        self._install(Faults())

    def bite(self, kind: type[F], *names: str) -> F | None:
        """The fault of *kind* if it is set, concerns an occasion known under *names*, and bites now."""
        name = _NAME_OF[kind]
        fault = getattr(self._faults, name)
        if not isinstance(fault, kind) or not fault.concerns(names):
            return None
        occasion = self._occasions.get(name, 0)
        self._occasions[name] = occasion + 1
        if occasion < fault.skip or (fault.times is not None and occasion >= fault.skip + fault.times):
            return None
        self._bites[name] = self._bites.get(name, 0) + 1
        return fault

    async def hold(self, kind: type[Fault], *names: str) -> bool:
        """If *kind* bites, wait until that fault is taken away or replaced; whether it did bite."""
        fault = self.bite(kind, *names)
        if fault is None:
            return False
        while getattr(self._faults, _NAME_OF[kind]) is fault:
            await self._changed.wait()
        return True

    def as_json(self) -> dict[str, Any]:
        """`{"set": {name: fault}, "bitten": {name: times}}`"""
        return {"set": self._faults.model_dump(exclude_none=True), "bitten": dict(self._bites)}

    def _install(self, faults: Faults, keep_counts_of: frozenset[str] = frozenset()) -> None:
        self._faults = faults
        for counts in (self._occasions, self._bites):
            for name in [name for name in counts if name not in keep_counts_of]:
                del counts[name]
        self._changed.set()
        self._changed = asyncio.Event()


def _named(faults: Faults) -> dict[str, Fault]:
    return {name: getattr(faults, name) for name in _NAME_OF.values() if getattr(faults, name) is not None}


def faults_from_json(text: str) -> Faults:
    """The faults written as JSON. Raises UnknownFault."""
    try:
        named = json.loads(text)
    except ValueError as exc:
        raise UnknownFault("the faults are not JSON") from exc
    if not isinstance(named, dict):
        raise UnknownFault("the faults are not a JSON object")
    return _parsed(named)


def _parsed(named: dict[str, Any]) -> Faults:
    try:
        return Faults.model_validate(named)
    except ValidationError as exc:
        problems = [f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()]
        unknown = [str(error["loc"][0]) for error in exc.errors() if len(error["loc"]) == 1]
        if any(name not in Faults.model_fields for name in unknown):
            problems.append(f"known faults: {', '.join(sorted(Faults.model_fields))}")
        raise UnknownFault("; ".join(problems)) from exc


def _fault_class(annotation: Any) -> type[Fault]:
    return next(part for part in annotation.__args__ if part is not type(None))  # type: ignore[no-any-return]


_NAME_OF: dict[type[Fault], str] = {_fault_class(field.annotation): name for name, field in Faults.model_fields.items()}
