"""The table of optional libraries and the extras that install them. The error for a missing library names the extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# The keys are module names. A test compares this table with the extras in pyproject.toml.
EXTRA_OF = {
    "click": "cli",
    "jinja2": "cli",
    "rich": "cli",
    "safetensors": "cli",
    "tokenizers": "cli",
    "tomli": "cli",
    "tomli_w": "cli",
    "zstandard": "cli",
    "matplotlib": "plot",
    "gguf": "interop",
    "pyarrow": "parquet",
    "tensorboardX": "tensorboard",
    "starlette": "serve",
    "uvicorn": "serve",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "mpi4py": "mpi",
}


def how_to_install(extra: str) -> str:
    """Return the end of an error message: the command that installs an extra from the source folder of toynn."""
    return f"run pip install '.[{extra}]' in the source folder of toynn"


@contextmanager
def naming_the_extra(extra: str | None = None) -> Iterator[None]:
    """If the block raises ModuleNotFoundError, add to its message which extra installs the missing library.

    extra: the extra to name, if several extras install the library. Other errors pass unchanged.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        raise ModuleNotFoundError(
            f"{library} is not installed; {how_to_install(extra or EXTRA_OF[library])}",
            name=error.name,
            path=error.path,
        ) from None
