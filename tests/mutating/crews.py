"""Workers that try changes side by side, each with a checkout and a PostgreSQL server of its own.

A server of its own, for some tests cut every connection there is.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mutating.trees import Tree
from mutating.warm import Warm
from orchestrator.local.postgres import EmbeddedPostgres, PostgresOptions

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Worker:
    """A private checkout, and a process that runs tests in it, on a private server."""

    tree: Tree
    warm: Warm


@contextmanager
def hired(number: int) -> Iterator[Sequence[Worker]]:
    """So many workers; what they had is removed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(_worker()) for _ in range(number)]


@contextmanager
def _worker() -> Iterator[Worker]:
    # Not pytest's own directory: it is private, and root's server runs as somebody who could not enter it.
    directory = Path(tempfile.mkdtemp(prefix="mutants-"))
    directory.chmod(0o711)
    server = EmbeddedPostgres(directory / "postgres", PostgresOptions(durable=False))
    try:
        tree = Tree.copy(directory / "tree")
        asyncio.run(server.start())
        with Warm(tree.root, _environment(tree, server.dsn("postgres"))) as warm:
            yield Worker(tree, warm)
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(directory, ignore_errors=True)


def _environment(tree: Tree, dsn: str) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{tree.root}{os.pathsep}{tree.root / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Nothing is left to chance that need not be.
        "PYTHONHASHSEED": "0",
        "TEST_DATABASE_URL": dsn,
    }


def carry_out(workers: Sequence[Worker], jobs: Mapping[Name, Callable[[Worker], Result]]) -> dict[Name, Result]:
    """The result of each of *jobs* by its name. The first failure of a job ends them all, and is raised."""
    todo: queue.SimpleQueue[tuple[Name, Callable[[Worker], Result]]] = queue.SimpleQueue()
    for job in jobs.items():
        todo.put(job)
    results: dict[Name, Result] = {}
    failures: list[BaseException] = []

    def work(worker: Worker) -> None:
        while not failures:
            try:
                name, job = todo.get_nowait()
            except queue.Empty:
                return
            try:
                results[name] = job(worker)
            except BaseException as failure:  # raised where it can be seen
                failures.append(failure)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
