"""Build dataclasses from the content of a JSON or TOML file. The fields of a dataclass are the keys of the file.

A key that is not in the file gets the default of its field. So old files can still be read after a field with a default
was added. The error for an unknown key, a missing key or a wrong type names the key, like "training.windows".
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, TypeAlias, TypeVar

from toynn.errors import TinyNNTypeError, TinyNNValueError

T = TypeVar("T")
Similar: TypeAlias = Callable[[str], str | None]
_TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 60
_REPR.maxlevel = 2


def from_plain(kind: type[T], content: object, name: str = "", similar: Similar | None = None) -> T:
    """Return an object of the dataclass `kind` with the values of `content`.

    kind: a dataclass. The type of each field is bool, int, float, str, a dataclass, `list[X]`, `tuple[X, ...]` or
        `dict[str, X]`, or the union of one of these types and None.
    content: a dict from a JSON or TOML file.
    name: the key of `content` in its file, for messages. "": `content` is the whole file.
    similar: a function that returns the key that the user probably means by an unknown key, or None.

    Raises:
        TinyNNTypeError: a value has the wrong type. TinyNNValueError: a key is unknown or missing.
        The errors of the dataclasses, with the name of the section in front.
    """
    if not isinstance(content, dict):
        raise TinyNNTypeError(f"{name or 'the content'} must be a table of keys and values, got {_REPR.repr(content)}")
    prefix = f"{name}." if name else ""
    hints, known = typing.get_type_hints(kind), keys_of(kind)
    for key in content:
        if key not in known:
            raise TinyNNValueError(f"unknown key {prefix + key!r:.80}{_suggestion(key, prefix, known, similar)}")
    values = {key: _converted(hints[key], value, prefix + key, similar) for key, value in content.items()}
    for key, field in known.items():
        if key not in values and not _has_default(field):
            raise TinyNNValueError(f"the key {prefix + key!r} is missing")
    try:
        return kind(**values)
    except TinyNNTypeError as error:
        raise TinyNNTypeError(_named(error, name)) from None
    except TinyNNValueError as error:
        raise TinyNNValueError(_named(error, name)) from None


def keys_of(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass that are keys of a file. These are the arguments of its constructor."""
    return {field.name: field for field in dataclasses.fields(kind) if field.init}


def dataclass_in(hint: Any) -> type[Any] | None:
    """Return the dataclass X if the type of a field is X or `X | None`. Return None for other types."""
    kinds = (option for option in _options(hint) if isinstance(option, type))
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _converted(hint: Any, value: object, name: str, similar: Similar | None) -> Any:
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    kind = options[0]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_plain(typing.cast("type[Any]", kind), value, name, similar)
    if origin is dict:
        if not isinstance(value, dict):
            raise TinyNNTypeError(f"{name} must be a table of keys and values, got {_REPR.repr(value)}")
        return {key: _converted(arguments[1], one, f"{name}.{key:.60}", similar) for key, one in value.items()}
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise TinyNNTypeError(f"{name} must be a list, got {_REPR.repr(value)}")
        return origin(_converted(arguments[0], one, f"{name}[{i}]", similar) for i, one in enumerate(value))
    # In Python a bool is an int, but a key for a number must not contain a bool. A key for a float may contain an int.
    fits = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if not fits:
        raise TinyNNTypeError(f"{name} must be {_TYPE_NAMES[kind]}, got {_REPR.repr(value)}")
    return value


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _named(error: Exception, name: str) -> str:
    """Return the message of an error, with the name of the section in front if it does not start with this name."""
    message = str(error)
    return message if not name or message.startswith(name) else f"{name}: {message}"


def _suggestion(key: str, prefix: str, known: Collection[str], similar: Similar | None) -> str:
    if similar is not None and (meant := similar(prefix + key)) is not None:
        return f"; did you mean {meant!r}?"
    import difflib  # only this message needs the module

    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"; did you mean {prefix + close[0]!r}?"
    return f"; known keys are {', '.join(prefix + name for name in known)}"
