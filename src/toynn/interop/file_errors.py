"""Errors of a file that was given: they name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toynn.errors import TinyNNError, TinyNNMemoryError, TinyNNValueError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside it, toynn's errors about a value or a type become a TinyNNValueError that begins with the path, and memory
    that cannot be had a TinyNNMemoryError that does."""
    try:
        yield
    except MemoryError as error:
        raise TinyNNMemoryError(f"{path}: {str(error) or 'no memory for its weights'}") from None
    except TinyNNError as error:
        raise TinyNNValueError(f"{path}: {error}") from None
