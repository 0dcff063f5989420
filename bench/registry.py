"""Names to plug-ins: the files of a folder, then entry points, then a path to a file; loaded on first use.

A plug-in is one file. Its name is the file's name; its one-line summary is the first line of its docstring. Files
whose names begin with `_` are helpers. `import torch` in a plug-in stays lazy until the plug-in uses it, so that
names, needs and hyper-parameters can be listed and checked without paying two seconds for torch.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import plugins
from bench.attack import Attack
from bench.interface import Method, UsageError

ROOT = Path(__file__).resolve().parent.parent
# kind -> (package, what a file must define: a subclass of a base, or a function of that name)
KINDS: dict[str, tuple[str, type | str]] = {
    "methods": ("methods", Method),
    "attacks": ("attacks", Attack),
    "datasets": ("bench.datasets", "load"),
    "architectures": ("bench.architectures", "build"),
}


def names(kind: str) -> list[str]:
    """Names of the plug-ins of a kind: built-in files and installed entry points, sorted."""
    return sorted({path.stem for path in _files(kind)} | {point.name for point in _points(kind)})


def shipped(kind: str) -> list[str]:
    """Names of the plug-ins that come with the benchmark, sorted."""
    return [path.stem for path in _files(kind)]


def load(kind: str, name: str) -> Any:
    """The class or function that `name` stands for; `name` may be a path to a Python file.

    Raises UsageError for an unknown name (with the nearest known one), a file that does not import, and a file
    without exactly one plug-in of this kind.
    """
    module = _module(kind, name)
    wanted = KINDS[kind][1]
    if isinstance(wanted, str):
        if not callable(getattr(module, wanted, None)):
            raise UsageError(f"{name} defines no function `{wanted}`, which makes a file one of the {kind}")
        return getattr(module, wanted)
    if inspect.isclass(module):
        return module
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, wanted) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        plural = ", ".join(value.__name__ for value in found) or "none"
        raise UsageError(f"{name} must define exactly one subclass of {wanted.__name__}; it defines {plural}")
    try:
        plugins.require_sound(found[0], wanted)
    except TypeError as error:
        raise UsageError(f"{name} cannot be used as one of the {kind}: {error}") from error
    return found[0]


def short_name(name: str) -> str:
    """The name under which results are kept: a path's stem, any other name as it is."""
    return Path(name).stem if name.endswith(".py") else name


def variant(entry: str) -> tuple[str, dict[str, str]]:
    """What the user typed for a plug-in, `scrub+rewind=true+epochs=5`, as its name and the texts of its changes."""
    base, *changes = re.split(r"\+(?=[A-Za-z_]\w*=)", entry)
    found = dict(change.split("=", 1) for change in changes)
    if len(found) < len(changes):
        raise UsageError(f"{entry} sets one thing twice; name each setting once")
    return base, found


def value(text: str) -> Any:
    """The TOML value that the text writes, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # not TOML, or beyond what its reader can hold
        return text


def function(kind: str, entry: str, besides: Iterable[str] = ()) -> Callable[..., Any]:
    """The function that `allcnn+width=0.5` stands for: the plug-in's own, with these arguments set.

    Settings named in `besides` are somebody else's and left out. Raises UsageError, with the nearest known one, for a
    setting that is neither an argument with a default nor among those.
    """
    base, changes = variant(entry)
    found: Callable[..., Any] = load(kind, base)
    if not changes:
        return found
    parameters = list(inspect.signature(found).parameters.values())
    own = [one.name for one in parameters if one.default is not inspect.Parameter.empty]
    known = [*own, *besides]
    if not known:
        raise UsageError(f"{short_name(base)} has no settings, but +{'+'.join(changes)} is given")
    if strange := [name for name in changes if name not in known]:
        raise unknown(f"setting of {short_name(base)}", strange[0], known)
    return functools.partial(found, **{name: value(text) for name, text in changes.items() if name in own})


def row_name(entry: str) -> str:
    """The name under which results of what the user typed for a plug-in are kept: its short name with the changes."""
    base, _ = variant(entry)
    return short_name(base) + entry[len(base) :]


def summary(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring; reads the file, imports nothing."""
    path = source(kind, name)
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path else None
    return (text or "no description").split("\n")[0].rstrip(".")


def source(kind: str, name: str) -> Path | None:
    """The file that defines a plug-in, or None where an entry point's module has no file."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UsageError(f"no such file: {name}")
        return Path(name).resolve()
    for path in _files(kind):
        if path.stem == name:
            return path
    for point in _points(kind):
        if point.name == name:
            spec = importlib.util.find_spec(point.module)
            return Path(spec.origin) if spec and spec.origin else None
    raise unknown(kind, name, names(kind))


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones: says what is near and what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    singular = {"methods": "method", "attacks": "attack", "datasets": "data set", "architectures": "architecture"}
    return UsageError(f"unknown {singular.get(kind, kind)} '{name}'; {hint}known: {', '.join(known) or 'none'}")


def _files(kind: str) -> list[Path]:
    folder = ROOT.joinpath(*KINDS[kind][0].split("."))
    return sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _points(kind: str) -> Iterable[EntryPoint]:
    return entry_points(group=f"unlearning_bench.{kind}")


def _module(kind: str, name: str) -> ModuleType | Any:
    lazy_torch()
    path = source(kind, name)
    try:
        if name.endswith(".py"):
            return _from_path(Path(name))
        if any(file.stem == name for file in _files(kind)):
            return importlib.import_module(f"{KINDS[kind][0]}.{name}")
        return next(point for point in _points(kind) if point.name == name).load()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a plug-in's file may fail in any way; the user needs one line
        raise UsageError(f"cannot load {path or name}: {type(error).__name__}: {error}") from error


def _from_path(path: Path) -> ModuleType:
    # The name holds the path, so that two files of one name do not replace each other.
    name = "plugin_" + "".join(c if c.isalnum() else "_" for c in str(path.resolve()))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Lazy(ModuleType):
    """A module that runs its code when an attribute is first missed.

    `importlib.util.LazyLoader` would load at the next `import` statement already, which looks at `__spec__`.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary module
        self.__path__ = list(spec.submodule_search_locations or [])
        real = sys.modules.setdefault(spec.name, self)
        if real is not self:  # somebody imported it while this stand-in was hidden
            self.__dict__.update(real.__dict__)
            return getattr(real, name)
        try:
            spec.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(spec.name, None)
            raise
        return getattr(self, name)


def lazy_torch() -> None:
    """Make `import torch` cost nothing until an attribute of torch is used."""
    if "torch" in sys.modules:
        return
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.loader is None:
        raise UsageError("torch is not installed; run: make setup (or pip install torch)")
    module = _Lazy("torch")
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    sys.modules["torch"] = module


@contextlib.contextmanager
def no_lazy_torch() -> Iterator[None]:
    """Hide a torch that nothing has used yet: matplotlib asks every module called torch for its Tensor."""
    module = sys.modules.get("torch")
    if not isinstance(module, _Lazy):
        yield
        return
    del sys.modules["torch"]
    try:
        yield
    finally:
        sys.modules.setdefault("torch", module)
