"""Write ``catalog.json`` anew: ``python -m brickyard.catalog``."""

from brickyard.catalog.shelf import CATALOG, check, generate

CATALOG.write_text(generate(), encoding="utf-8")
problems = check()
print("\n".join(problems) or f"wrote {CATALOG.name}: all cards are in order")
raise SystemExit(1 if problems else 0)
