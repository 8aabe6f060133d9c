"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Who is told how a run goes, as a progress bar."""

    def stage(self, description: str, total: int, unit: str) -> None:
        """A new stage begins: so many units are ahead."""
        ...

    def advance(self, amount: int, **values: float) -> None:
        """So many units are done; values, as the loss, are to be shown."""
        ...

    def note(self, message: str) -> None:
        """Something worth a line."""
        ...


class SilentWatcher:
    """Tells nobody."""

    def stage(self, description: str, total: int, unit: str) -> None:
        """Ignores the stage."""

    def advance(self, amount: int, **values: float) -> None:
        """Ignores the progress."""

    def note(self, message: str) -> None:
        """Ignores the note."""
