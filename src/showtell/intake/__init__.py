"""What to caption: words of a command line, lists of paths, folders and patterns become a stream of items."""

from __future__ import annotations

from showtell.intake.counting import Counted
from showtell.intake.intake import Intake
from showtell.intake.items import Item
from showtell.intake.scan import expand_pattern, has_wildcards, scan_folder

__all__ = ["Counted", "Intake", "Item", "expand_pattern", "has_wildcards", "scan_folder"]
