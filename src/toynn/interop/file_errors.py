"""Put the path of a file in front of errors about its content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toynn.errors import FileFormatError, TinyNNError, TinyNNMemoryError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prefix the errors of the block with the path.

    A TinyNNError becomes a FileFormatError, a MemoryError becomes a TinyNNMemoryError. Other errors pass unchanged.
    """
    try:
        yield
    except MemoryError as error:
        raise TinyNNMemoryError(f"{path}: {str(error) or 'there is not enough memory for the weights'}") from None
    except TinyNNError as error:
        raise FileFormatError(f"{path}: {error}") from None
