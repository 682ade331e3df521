"""A plugin for pytest: tests that draw their cases draw the same ones each time, and do not simplify what they found.

Whether a deliberate bug is noticed must not be chance, and shrinking a failure takes minutes on a busy machine.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")
