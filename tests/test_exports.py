"""What Showtell exports: every name there, documented, in order, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import types
from pathlib import Path

import pytest

import showtell

SOURCE = Path(showtell.__file__).parent
PACKAGES = sorted(
    ".".join(file.relative_to(SOURCE.parent).parent.parts) for file in SOURCE.rglob("__init__.py")
)


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by name: the order that the linter wants too."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_resolves_and_is_in_order(name: str) -> None:
    package = importlib.import_module(name)
    exported = list(getattr(package, "__all__", []))
    assert [item for item in exported if not hasattr(package, item)] == []
    assert exported == sorted(set(exported), key=sort_key)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_class_and_function_is_documented_and_public(name: str) -> None:
    package = importlib.import_module(name)
    assert len(package.__doc__ or "") > 20, f"{name} has no docstring"
    for item in getattr(package, "__all__", []):
        value = getattr(package, item)
        assert not item.startswith("_") or item == "__version__"
        if inspect.isclass(value) or inspect.isroutine(value):
            # A dataclass without a docstring gets its signature for one.
            text = inspect.getdoc(value) or ""
            assert text, f"{name}.{item} has no docstring"
            assert not text.startswith(f"{item}("), f"{name}.{item} has no docstring of its own"


def test_showtell_exports_all_its_public_names_and_no_others() -> None:
    exported = showtell.__all__
    public = {
        name
        for name, value in vars(showtell).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }
    assert public <= set(exported), "a public name of showtell is missing in __all__, or should be private"
    assert set(exported) <= set(dir(showtell))


def test_the_root_of_all_errors_is_exported() -> None:
    assert issubclass(showtell.ShowtellError, Exception)
