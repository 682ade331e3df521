"""One run again, from the command line, with its journal and what was wrong with it.

PYTHONPATH=tests .venv/bin/python -m simulation SEED                    the run of a seed
PYTHONPATH=tests .venv/bin/python -m simulation crash url STEP [STEP]       the happy way, killed at a step, and again
PYTHONPATH=tests .venv/bin/python -m simulation crash cut STEP [STEP]       the same of a job that cuts an upload
"""

from __future__ import annotations

import sys
import time

from simulation.batch import answer_jobs


def main(arguments: list[str]) -> int:
    """Print the journal; 1 when something was wrong."""
    from simulation.crashing import Kill, run_crash
    from simulation.cutting import run_cut_crash
    from simulation.world import run_seed

    numbers = arguments[2:] if arguments[:1] == ["crash"] else arguments
    if not numbers or not all(text.isdigit() for text in numbers):
        print(__doc__)
        return 2
    before = time.perf_counter()
    if arguments[0] == "crash":
        kill = Kill(*map(int, numbers[:2]))
        outcome = (run_cut_crash(kill) if arguments[1] == "cut" else run_crash(kill, arguments[1])).outcome
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
