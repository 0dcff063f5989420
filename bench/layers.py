"""The layers that "the last k layers" counts: the list that an architecture's file publishes, read and held against it.

A residual network has more convolutions than the papers count: 1 x 1 convolutions on its shortcuts are no layers to
them. An architecture says which are, in `LAYERS`, a tuple of module names in the order they run.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench import registry
from bench.interface import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def published(architecture: str) -> tuple[str, ...]:
    """The module names in `LAYERS` of an architecture's file; empty where it defines none. Imports nothing.

    Raises UsageError for anything but names that are written out, which a reader without torch could not look up.
    """
    path = registry.source("architectures", registry.variant(architecture)[0])
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path else ():
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "LAYERS" for target in targets):
                return _names(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, TypeError) as error:
        raise UsageError(
            f"cannot read LAYERS in {path}: it must be a tuple of module names, written out, in the order they run"
        ) from error
    return ()


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(name, str) for name in value):
        raise TypeError("no names")
    return tuple(value)


def require_sound(model: nn.Module, names: Sequence[str], x: Tensor) -> None:
    """Raise ValueError unless the names are convolutions and linear layers of `model` that run on `x` in this order."""
    from torch import nn

    modules, ran = dict(model.named_modules()), dict[str, None]()
    for name in names:
        if name not in modules:
            raise ValueError(f"LAYERS names {name!r}, which is no module of the network")
        if not isinstance(modules[name], nn.Conv2d | nn.Linear):
            kind = type(modules[name]).__name__
            raise ValueError(f"LAYERS names {name!r}, a {kind}; only convolutions and linear layers count")
    hooks = [modules[name].register_forward_pre_hook(lambda *_, name=name: ran.setdefault(name)) for name in names]
    model(x)
    for hook in hooks:
        hook.remove()
    if list(ran) != list(names):
        raise ValueError(
            f"LAYERS lists {', '.join(names)}, but of these run, in this order, {', '.join(ran) or 'none'}"
        )
