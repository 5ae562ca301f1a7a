"""Packages that a script imports and that are not installed."""

import ast
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from earnest.loops.stage import codecs
from earnest.loops.stage.replaced import tell, tell_package

TRACKERS = (  # stand-ins, installed or not
    "torch.utils.tensorboard",
    "tensorboardX",
    "wandb",
    "swanlab",
    "mlflow",
    "trackio",
    "comet_ml",
    "neptune",
    "clearml",
    "aim",
)


class StandIn:
    """Whatever is asked of it, it is; whatever is called of it, it returns itself. A decorator leaves its function."""

    def __init__(self, name: Any = "stand-in", *args: Any, **kwargs: Any):
        self.__dict__["_name"] = str(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _known(str(self._name), name) or StandIn(f"{self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType | type) else self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __fspath__(self) -> str:
        return str(self._name)

    def __getitem__(self, key: Any) -> "StandIn":
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (StandIn,)


class StandInModule(types.ModuleType):
    """A package that is not there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _known(self.__name__, name) or StandIn(f"{self.__name__}.{name}")


def _known(module: str, name: str) -> Any:
    """What of a package does something: files of audio are read, codecs give codes, bitsandbytes' optimizers are
    torch's."""
    if (known := codecs.KNOWN.get(f"{module}.{name}")) is not None:
        return known
    if module.startswith("bitsandbytes"):
        import torch

        plain = name.removesuffix("8bit").removesuffix("32bit").removeprefix("Paged")
        if hasattr(torch.optim, plain):
            return lambda parameters, lr=1e-3, **more: getattr(torch.optim, plain)(parameters, lr=lr)
    return None


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last. An import in a `try` that expects its failure fails, as does a question whether a package is
    there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent = fullname.rpartition(".")[0]
        if parent and not isinstance(sys.modules.get(parent), StandInModule):
            return None
        if not parent and _expected_to_fail():
            return None
        tell_package(fullname.partition(".")[0])
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class OwnFinder(importlib.abc.MetaPathFinder):
    """Asked before the stand-ins: packages of the script's own repository, which are found if it is installed, or if
    the script is run with ``python -m`` from above. folders: where they are looked for, in this order."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None:
            return None
        for folder in self.folders:
            if (folder / f"{fullname}.py").is_file() or any((folder / fullname).glob("*.py")):
                sys.path.append(str(folder))
                tell(f"package {fullname}: found in {folder}, which is put on the path")
                return importlib.machinery.PathFinder.find_spec(fullname, [str(folder)])
        return None


class TrackerFinder(Finder):
    """Asked first: nothing is logged."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in TRACKERS):
            return None
        tell("trackers: stand-ins that do nothing")
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)


def _expected_to_fail() -> bool:
    """Whether an import that is under way stands in a `try` that expects it to fail, here or in a module that imports
    this one; or whether it is only asked if the package is there. A module that is imported by a name in a variable, as
    hydra and LightningCLI do, says nothing of what it imports itself."""
    frame, importing, here = sys._getframe(2), True, True
    while frame is not None:
        path = frame.f_code.co_filename
        if ("importlib" in path and "util" in path) or path.endswith("pkgutil.py"):
            return True
        if "importlib" not in path:
            tries = _tried(path) if importing else ()
            if any(one.first <= frame.f_lineno <= one.last for one in tries if here or one.imports):
                return True
            importing, here = frame.f_code.co_name == "<module>", False
        frame = frame.f_back if importing else None
    return False


class Lines(NamedTuple):
    """Lines inside of a `try` that handles a failed import. imports: of one import statement, not of the whole."""

    first: int
    last: int
    imports: bool


@cache
def _tried(path: str) -> tuple[Lines, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return ()
    found: list[Lines] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(map(_of_import, node.handlers)):
            found.append(_lines(node.body[0], node.body[-1], False))
            inside = (one for part in node.body for one in ast.walk(part))
            found += [_lines(one, one, True) for one in inside if isinstance(one, ast.Import | ast.ImportFrom)]
    return tuple(found)


def _lines(first: ast.stmt, last: ast.stmt, imports: bool) -> Lines:
    return Lines(first.lineno, last.end_lineno or last.lineno, imports)


def _of_import(handler: ast.ExceptHandler) -> bool:
    words = ast.unparse(handler.type) if handler.type else "Exception"
    return any(word in words for word in ("ImportError", "ModuleNotFoundError", "Exception"))


def install(own: Sequence[Path] = ()) -> None:
    """From here on. own: folders in which the script's own packages may lie."""
    sys.meta_path.insert(0, TrackerFinder())
    sys.meta_path.append(OwnFinder(own))
    sys.meta_path.append(Finder())
