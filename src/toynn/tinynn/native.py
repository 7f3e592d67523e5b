"""The compiled extension: `ffi` and `lib`, after a check that this CPU can run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toynn import _tinynn

if TYPE_CHECKING:
    from toynn._tinynn import CharPointer

__all__: list[str] = []  # nothing in this module is for users of toynn.tinynn

ffi = _tinynn.ffi
lib = _tinynn.lib


def text(pointer: CharPointer) -> str:
    """Return the str to which a `const char *` points. The pointer must not be NULL."""
    return ffi.string(pointer).decode("utf-8", "replace")


def optional_text(pointer: CharPointer) -> str | None:
    """Return the str to which a `const char *` points, or None for NULL."""
    return None if pointer == ffi.NULL else text(pointer)


def _refuse_unfit_cpu() -> None:
    """Raise ImportError if this CPU lacks instructions of the build's profile.

    Such an instruction would end the process with SIGILL.

    `tnn_cpu_missing` itself runs on any CPU of the architecture.
    """
    missing = text(lib.tnn_cpu_missing())
    if missing:
        raise ImportError(
            f"this build of toynn is for the instruction-set profile {text(lib.tnn_profile())!r}, and this CPU lacks "
            f"{missing}; build toynn from source for this machine instead: "
            "pip install --no-binary toynn --config-settings=cmake.define.TOYNN_NATIVE=ON toynn"
        )


_refuse_unfit_cpu()
# The first session sets up the process (ggml's tables, the fork handlers). Make it now, before other threads make
# sessions.
lib.tnn_session_free(lib.tnn_session_new(0))
