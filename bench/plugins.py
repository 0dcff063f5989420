"""What a plug-in's class must be before anything is run with it: told at once, not after the models are trained."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

REQUIRED = {"Method": "unlearn", "Attack": "score"}  # the function without which there is nothing to run


def require_sound(cls: type[Any], base: Any) -> None:
    """Raise TypeError, with what is wrong, for a subclass of `base` that cannot be run.

    Functions are callable as the base's are, class attributes have the base's types, defaults are what fields allow.
    """
    for name, function in vars(base).items():
        if not name.startswith("_") and inspect.isfunction(function):
            _require_callable(cls, name, function)
    for name, kind in _attributes(base).items():
        try:
            kind.validate_python(getattr(cls, name), strict=True)
        except ValidationError as error:
            raise TypeError(f"{name} = {getattr(cls, name)!r}: {error.errors()[0]['msg']}") from error
    try:
        cls(**{name: field.default for name, field in cls.model_fields.items() if not field.is_required()})
    except ValidationError as error:
        if wrong := [one for one in error.errors() if one["type"] != "missing"]:
            raise TypeError(f"its defaults: {'.'.join(map(str, wrong[0]['loc']))}: {wrong[0]['msg']}") from error
    except Exception as error:  # a plug-in's class may fail in any way, such as with a type that is not imported
        raise TypeError(str(error)) from error


def _require_callable(cls: type[Any], name: str, function: Any) -> None:
    own, wanted = getattr(cls, name), inspect.signature(function)
    if own is function and REQUIRED.get(cls.__mro__[1].__name__) == name:
        raise TypeError(f"it has no function {name}{wanted.replace(return_annotation=inspect.Signature.empty)}")
    try:
        inspect.signature(own).bind(*wanted.parameters)
    except TypeError as error:
        arguments = ", ".join(wanted.parameters)
        raise TypeError(f"{name} must take ({arguments}), as in bench.interface: {error}") from error


@functools.cache
def _attributes(base: Any) -> dict[str, TypeAdapter[Any]]:
    """The class attributes that the base declares, with what checks their types."""
    hints = get_type_hints(base)
    return {name: TypeAdapter(get_args(hint)[0]) for name, hint in hints.items() if get_origin(hint) is ClassVar}
