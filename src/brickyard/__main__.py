"""Run the command line: ``python -m brickyard``."""

from brickyard.cli import main

raise SystemExit(main())
