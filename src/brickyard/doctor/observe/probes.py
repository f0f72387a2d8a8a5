"""Ask a model questions on copies: does a sample see others, the future, its own label?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Call
    from brickyard.doctor.observe.watcher import Watcher


class Probes:
    """Run the probes of the first steps."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher

    def called(self, call: Call) -> None:
        """Hear of a finished call of a model."""

    def stepped(self, calls: list[Call]) -> None:
        """Hear of the end of a step."""
