"""Run at the start of a python that a watched script started; leaves no trace of itself.

The environment and ``sys.path`` are put back to what the script meant, and a ``sitecustomize`` of
the user's, which this one hides, runs as it would have.
"""

import os
import sys

import brickyard_hook  # pyright: ignore[reportMissingImports]

brickyard_hook.arrive()

for _name in [p for p in sys.path if os.path.abspath(p or ".") == brickyard_hook.HERE]:
    sys.path.remove(_name)
_mine = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401  # pyright: ignore[reportMissingImports]
except ImportError as _error:
    if _error.name != "sitecustomize":
        raise
finally:
    sys.modules.setdefault("sitecustomize", _mine)
