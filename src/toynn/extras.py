"""The extra that installs each optional library, so that the error for a missing library says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# By module name. A test compares this table with the extras in pyproject.toml.
EXTRA_OF = {
    "click": "cli",
    "rich": "cli",
    "safetensors": "cli",
    "tokenizers": "cli",
    "tomli": "cli",
    "tomli_w": "cli",
    "matplotlib": "plot",
    "gguf": "interop",
    "tensorboardX": "tensorboard",
}


@contextmanager
def naming_the_extra(extra: str | None = None) -> Iterator[None]:
    """Make a ModuleNotFoundError of the block say which extra of toynn installs the missing library.

    extra: the extra to name, if several install it. Other errors pass unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        raise ModuleNotFoundError(
            f"{library} is not installed; install it with: pip install 'toynn[{extra or EXTRA_OF[library]}]'",
            name=error.name,
            path=error.path,
        ) from None
