"""Photographs to try things on: real ones, inside two Python packages that many have installed.

Nothing is downloaded, and the packages are not even imported, which would take a second. Where they come from and what
may be done with them stands beside them, in each package's README.txt.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "photographer": ("skimage", "data/camera.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "palace": ("sklearn", "datasets/images/china.jpg"),
}
INSTALL = "pip install scikit-image scikit-learn"  # what brings them


def find_photographs() -> dict[str, Path]:
    """Returns the photographs whose package is installed, by name."""
    places = {name: _find(package) / file for name, (package, file) in PHOTOGRAPHS.items()}
    return {name: path for name, path in places.items() if path.is_file()}


def _find(package: str) -> Path:
    found = importlib.util.find_spec(package)
    return (
        Path(found.origin).parent if found is not None and found.origin is not None else Path("/nonexistent")
    )
