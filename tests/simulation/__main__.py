"""``python -m simulation SEED``: one run again, its journal and what was wrong with it."""

from __future__ import annotations

import sys
import time

from simulation.world import run_seed


def main() -> int:
    """Print the journal of each seed; 1 when something was wrong."""
    is_wrong = False
    for text in sys.argv[1:]:
        before = time.perf_counter()
        outcome = run_seed(int(text))
        print(*outcome.journal, sep="\n")
        print(f"seed {outcome.seed}: {outcome.virtual_seconds:.0f} s in {time.perf_counter() - before:.2f} s,", end=" ")
        print(f"{outcome.steps} steps, journal {outcome.digest[:16]}")
        for violation in outcome.violations:
            print(f"VIOLATION {violation}")
        is_wrong = is_wrong or bool(outcome.violations)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
