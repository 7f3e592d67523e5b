"""Initialised: the base of classes whose objects cannot be used before `__init__` has run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toynn.errors import UninitialisedError


class Initialised:
    """Base class: if `__init__` did not run, reading an attribute that is therefore missing raises UninitialisedError.

    Such an object comes from `cls.__new__(cls)`, or from a subclass that does not call `super().__init__()`. Python
    calls `__getattr__` only for a missing attribute, so access to other attributes stays fast.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker that sees __getattr__ would accept every attribute

        def __getattr__(self, name: str) -> Any:
            """Raise UninitialisedError if `__init__` did not run, otherwise AttributeError. Reading a missing special
            attribute (`__name`) always raises AttributeError.
            """
            kind = type(self)
            if not name.startswith("__") and not _has_values(self):
                raise UninitialisedError(
                    f"{name} cannot be read, because __init__ of this {kind.__name__} did not run; create the "
                    f"object with {kind.__name__}(...)"
                )
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}", name=name, obj=self)


def _has_values(instance: object) -> bool:
    """Return whether any attribute of the object was set."""
    if getattr(instance, "__dict__", None):
        return True
    slots = (slot for kind in type(instance).__mro__ for slot in kind.__dict__.get("__slots__", ()))
    for slot in slots:
        try:
            object.__getattribute__(instance, slot)
        except AttributeError:
            continue
        if slot != "__weakref__":
            return True
    return False
