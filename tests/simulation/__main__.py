"""One run again, from the command line, with its journal and what was wrong with it.

PYTHONPATH=tests .venv/bin/python -m simulation SEED             the run of a seed
PYTHONPATH=tests .venv/bin/python -m simulation crash STEP [STEP]    the happy way, killed at a step, and again
"""

from __future__ import annotations

import sys
import time

from simulation.batch import answer_jobs


def main(arguments: list[str]) -> int:
    """Print the journal; 1 when something was wrong."""
    from simulation.crashing import Kill, run_crash
    from simulation.world import run_seed

    if not arguments or not all(text.isdigit() for text in arguments[arguments[0] == "crash" :]):
        print(__doc__)
        return 2
    before = time.perf_counter()
    if arguments[0] == "crash":
        outcome = run_crash(Kill(*map(int, arguments[1:3]))).outcome
    else:
        outcome = run_seed(int(arguments[0]))
    print(*outcome.journal, sep="\n")
    for violation in outcome.violations:
        print(f"VIOLATION {violation}")
    print(
        f"{' '.join(arguments)}: {outcome.virtual_seconds:.0f} simulated seconds in"
        f" {time.perf_counter() - before:.2f} s, {outcome.steps} steps, journal {outcome.digest[:16]},"
        f" {len(outcome.violations)} violations"
    )
    return int(bool(outcome.violations))


if __name__ == "__main__":
    if sys.argv[1:] == ["--jobs"]:
        answer_jobs()
    else:
        sys.exit(main(sys.argv[1:]))
