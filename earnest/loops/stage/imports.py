"""Changing a package right after it is imported, so that nothing is imported that the script does not import."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class OnImport(importlib.abc.MetaPathFinder):
    """Calls a function with each of these modules when they have been loaded."""

    def __init__(self, changes: Mapping[str, Callable[[Any], None]]):
        self.changes = dict(changes)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = self.changes.pop(fullname, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            load(module)
            change(sys.modules[fullname])

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install(changes: Mapping[str, Callable[[Any], None]]) -> None:
    """Apply each change to its module: now if it is imported already, else when it is."""
    for name in list(changes):
        if name in sys.modules:
            changes[name](sys.modules[name])
    sys.meta_path.insert(0, OnImport({name: change for name, change in changes.items() if name not in sys.modules}))
