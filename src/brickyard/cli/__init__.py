"""The command line; each command is a thin function that imports what it needs when it runs."""

import brickyard.cli.bench
import brickyard.cli.catalog
import brickyard.cli.doctor
import brickyard.cli.export
import brickyard.cli.plan
import brickyard.cli.train  # noqa: F401  importing a module registers its commands
from brickyard.cli.frame import main

__all__ = ["main"]
