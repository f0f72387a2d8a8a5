"""Write ``catalog/figures.json`` anew: ``python -m brickyard.plots``."""

from brickyard.catalog.figures import FIGURES
from brickyard.plots.make import generate

FIGURES.write_text(generate(), encoding="utf-8")
print(f"wrote {FIGURES.name}")
