"""Which statements the program asks, and whether the plan of each goes by an index."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

# Tables that grow with the age of the house. All others are bounded, and may be read whole.
LARGE = frozenset({"clips", "clip_events", "transfers", "idempotency_keys"})
# Since then a plan can be asked for whatever the values: the one that a prepared statement ends up with.
_GENERIC_PLAN_VERSION = 16
_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


class ScannedWhole(Exception):
    """A statement reads a large table from end to end."""


class WatchedPool:
    """A pool that keeps what is asked through it: each statement once, with the values of the last time."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.asked: dict[str, tuple[Any, ...]] = {}

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Any]:
        """As the pool has it."""
        async with self._pool.acquire(timeout=timeout) as connection:
            with connection.query_logger(self._note):
                yield connection

    def _note(self, record: Any) -> None:
        query = record.query.strip()
        if query.lstrip().removeprefix("(").startswith(_PLANNED) and not query.startswith("SELECT pg_"):
            self.asked[query] = record.args or ()


async def explain(connection: asyncpg.Connection, asked: Mapping[str, tuple[Any, ...]]) -> tuple[str, list[str]]:
    """The plans of all statements as text, and those that read a large table whole, in a line each."""
    kinds = {"for these values": "FORMAT JSON"}
    if connection.get_server_version().major >= _GENERIC_PLAN_VERSION:
        kinds["for any values"] = "FORMAT JSON, GENERIC_PLAN"
    text, scanned = [], []
    for query, values in asked.items():
        text.append(query)
        for kind, options in kinds.items():
            plan = json.loads(await connection.fetchval(f"EXPLAIN ({options}) {query}", *values))[0]["Plan"]
            text += [f"  {kind}:", *(f"    {line}" for line in _lines(plan))]
            for table in sorted(set(_sequential(plan)) & LARGE):
                scanned.append(f"{table} ({kind}): {' '.join(query.split())[:160]}")
        text.append("")
    return "\n".join(text), scanned


def _sequential(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _sequential(child)


def _lines(node: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """A plan in the form people know."""
    by = f" using {node['Index Name']}" if "Index Name" in node else ""
    on = f" on {node['Relation Name']}" if "Relation Name" in node else ""
    yield f"{'  ' * depth}{node['Node Type']}{by}{on} (rows {node['Plan Rows']}, cost {node['Total Cost']})"
    for name in ("Index Cond", "Recheck Cond", "Filter", "Hash Cond"):
        if name in node:
            yield f"{'  ' * depth}  {name}: {node[name][:200]}"
    for child in node.get("Plans", ()):
        yield from _lines(child, depth + 1)
