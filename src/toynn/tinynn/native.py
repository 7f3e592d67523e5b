"""The compiled extension: loads it, checks this CPU against it, and tells what it was built from."""

from __future__ import annotations

from typing import Any

from toynn import _tinynn

ffi: Any = _tinynn.ffi
lib: Any = _tinynn.lib


def text(pointer: Any) -> str:
    """The str behind a `const char *` that is not NULL."""
    raw: bytes = ffi.string(pointer)
    return raw.decode("utf-8", "replace")


def _refuse_unfit_cpu() -> None:
    """Raises ImportError where the profile's instructions would end in SIGILL.

    The extension promises that `tnn_cpu_missing` itself runs on any CPU of the architecture.
    """
    missing = text(lib.tnn_cpu_missing())
    if missing:
        raise ImportError(
            f"this build of toynn is for the instruction-set profile {text(lib.tnn_profile())!r}, and this CPU lacks "
            f"{missing}. Build it from source for this machine instead: "
            "pip install --no-binary toynn --config-settings=cmake.define.TOYNN_NATIVE=ON toynn"
        )


_refuse_unfit_cpu()
# The first session sets the process up (ggml's tables, what happens at a fork): now, while no other thread is at it.
lib.tnn_session_free(lib.tnn_session_new(0))


def tnn_ggml_version() -> str:
    """Version of the ggml compiled in, e.g. "0.20.2"."""
    return text(lib.tnn_ggml_version())


def tnn_ggml_commit() -> str:
    """What ggml calls its commit."""
    return text(lib.tnn_ggml_commit())


def tnn_profile() -> str:
    """Instruction-set profile of this build: same profile and inputs, same bits."""
    return text(lib.tnn_profile())


def tnn_compiler() -> str:
    """Compiler that made this build."""
    return text(lib.tnn_compiler())


def tnn_build_type() -> str:
    """CMake's build type."""
    return text(lib.tnn_build_type())


def tnn_build_options() -> str:
    """Options this build was configured with."""
    return text(lib.tnn_build_options())


def tnn_cpu_features() -> str:
    """CPU features compiled in, separated by spaces."""
    return text(lib.tnn_cpu_features())


def tnn_cpu_missing() -> str:
    """Features this CPU lacks for the profile; always "" once the import has succeeded."""
    return text(lib.tnn_cpu_missing())


def tnn_available_cores() -> int:
    """Cores this process may run on: affinity mask and cgroup quota, at least 1."""
    return int(lib.tnn_available_cores())


def tnn_available_memory() -> int:
    """Bytes that may still be had: of the machine, and of the cgroup this process is in."""
    return int(lib.tnn_available_memory())


def ggml_version() -> str:
    """Version of the ggml compiled in, e.g. "0.20.2"."""
    return tnn_ggml_version()


def build_info() -> dict[str, str]:
    """What the extension was built from and for: ggml_version, ggml_commit, profile, compiler, build_type,
    options and cpu_features (separated by spaces)."""
    return {
        "ggml_version": tnn_ggml_version(),
        "ggml_commit": tnn_ggml_commit(),
        "profile": tnn_profile(),
        "compiler": tnn_compiler(),
        "build_type": tnn_build_type(),
        "options": tnn_build_options(),
        "cpu_features": tnn_cpu_features(),
    }
