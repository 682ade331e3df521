"""Third-party modules for browsers, each in one file: made by hatch_build.py, never committed, loaded on demand.

Where they are absent (an editable install on a machine without Node) the pages do without, and say so.
"""

from pathlib import Path

# Modules, and `licenses/` with the texts of everything that went into them.
BUILT = Path(__file__).parent / "built"
