"""Which extra a library comes with, so that the error for one that is missing says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# By the module's name. pyproject.toml lists them by extra; a test compares the two.
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
    """Inside it, the ModuleNotFoundError of a library that an extra brings says which one; its `name` stays.

    extra: that one, where several bring it. Any other error goes through as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        raise ModuleNotFoundError(
            f"{library} is not installed; it comes with an extra: pip install 'toynn[{extra or EXTRA_OF[library]}]'",
            name=error.name,
            path=error.path,
        ) from None
