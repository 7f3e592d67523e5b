"""Declare a function with the arguments of another function, so that the arguments are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def same_arguments(other: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Return a decorator for a function that passes all its arguments to `other`.

    Type checkers, `help` and `inspect.signature` show the arguments of `other` and the return type of the decorated
    function.
    """

    def declared(function: Callable[..., R]) -> Callable[P, R]:
        result = inspect.signature(function).return_annotation
        signature = inspect.signature(other).replace(return_annotation=result)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return cast("Callable[P, R]", function)

    return declared
