"""The command line, one file or folder for each group of commands; nobody else in the house imports it."""

import importlib
import sys

# structlog loads rich wherever it finds it, and each process would pay four megabytes and a tenth of a second for
# tracebacks that show local variables, and so secrets: none is ever drawn here. None says that there is no such module,
# and only while structlog, which every command loads, looks for it; whoever else wants rich gets it.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
