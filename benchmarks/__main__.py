"""Runs benchmarks one after another, each in a process of its own, and prints their table.

    python3 run.py bench                  all of them, quickly (five minutes)
    python3 run.py bench --full           in the amounts of the goals
    python3 run.py bench drain http       these alone
    python3 run.py bench --list           what each one measures
    python3 run.py bench --page FILE      write the kept results as a page, and run nothing

Results stay in build/benchmarks until the same one runs again. A goal that is missed is told; it is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import Place, Row, Scale
from benchmarks.page import as_page
from benchmarks.registry import BENCHMARKS, Benchmark

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "benchmarks"


def main() -> int:
    """Run what was asked for; 0 when all of it could be measured."""
    options = _options()
    if options.list:
        for each in BENCHMARKS:
            print(f"{each.name:12} {each.measures}")
        return 0
    if options.page:
        options.page.write_text(as_page(kept_results(), {each.name: each.misses for each in BENCHMARKS}))
        return 0
    scale = Scale.FULL if options.full else Scale.QUICK
    if options.here:
        return _measure_here(options.names[0], scale)
    wanted = [each for each in BENCHMARKS if not options.names or each.name in options.names]
    broken = [each.name for each in wanted if not _run(each, scale)]
    if broken:
        print(f"could not be measured: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def kept_results() -> list[dict[str, object]]:
    """What was measured last by each benchmark, in the order of the registry."""
    files = (KEPT / each.name / "result.json" for each in BENCHMARKS)
    return [json.loads(file.read_text()) for file in files if file.exists()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the benchmarks to run; all when none is named")
    parser.add_argument("--full", action="store_true", help="the amounts of the goals")
    parser.add_argument("--list", action="store_true", help="say what each one measures")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the kept results as a page")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = [each.name for each in BENCHMARKS]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return options


def _run(benchmark: Benchmark, scale: Scale) -> bool:
    """One benchmark in a process of its own, so that none inherits another's memory; whether it came to its end."""
    print(f"{benchmark.name}: {benchmark.measures}", flush=True)
    command = [sys.executable, "-m", "benchmarks", "--here", benchmark.name]
    if scale is Scale.FULL:
        command.append("--full")
    minutes = benchmark.full_limit_minutes if scale is Scale.FULL else benchmark.limit_minutes
    # A group of its own: what it started ends with it.
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=minutes * 60) == 0
    except subprocess.TimeoutExpired:
        print(f"{benchmark.name} was ended: it had not finished after {minutes:g} minutes", flush=True)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _measure_here(name: str, scale: Scale) -> int:
    directory = KEPT / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    module = importlib.import_module(f"benchmarks.{name}")
    began = time.monotonic()
    rows: list[Row] = asyncio.run(module.measure(Place(scale, directory)))
    result = {
        "name": name,
        "measures": next(each.measures for each in BENCHMARKS if each.name == name),
        "scale": scale,
        "seconds": round(time.monotonic() - began),
        "machine": f"{os.cpu_count()} processors, Python {platform.python_version()}",
        "commit": _commit(),
        "rows": [row.as_document() for row in rows],
    }
    (directory / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))
    for row in rows:
        print(f"  {_line(row)}", flush=True)
    return 0


def _line(row: Row) -> str:
    verdict = "" if row.goal is None else f" ({'reached' if row.is_met else 'MISSED'}: {row.goal})"
    beside = "".join(f", {value} {name}" for name, value in row.figures.items())
    return f"{row.what}: {row.value:.3g}{' ' + row.unit if row.unit else ''}{verdict}{beside}"


def _commit() -> str:
    called = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return called.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
