"""The compiled extension: loads it, checks this CPU against it, and tells what it was built from."""

from __future__ import annotations

import os
from typing import Any

from toynn import _tinynn, arguments
from toynn.errors import TinyNNValueError

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


def tnn_gemm_kernel() -> str:
    """The kernel that computes the products of the fused operators: "v8", or "avx512" where this CPU has it.

    The process chooses its CPU's fastest, or what the environment variable TOYNN_GEMM_KERNEL names. All give the same
    bits.
    """
    return text(lib.tnn_gemm_kernel())


def tnn_gemm_kernel_at(i: int) -> str | None:
    """The kernels that this CPU can run, the fastest at 0; None where there is none. i: an int32."""
    pointer = lib.tnn_gemm_kernel_at(arguments.int32("i", i))
    return None if pointer == ffi.NULL else text(pointer)


def tnn_gemm_use_kernel(name: str) -> None:
    """Computes all products of this process with that kernel from now on; no bit changes.

    Raises:
        TinyNNValueError: this CPU, or this build, has no kernel of that name.
        TinyNNTypeError: name is not a str.
    """
    kernel = arguments.text("name", name)
    if kernel not in _gemm_kernels():
        raise TinyNNValueError(f"name must be one of {', '.join(_gemm_kernels())} on this CPU, got {kernel!r}")
    lib.tnn_gemm_use_kernel(kernel.encode())


def _gemm_kernels() -> list[str]:
    """The kernels that this CPU can run, the fastest first."""
    names: list[str] = []
    while (name := tnn_gemm_kernel_at(len(names))) is not None:
        names.append(name)
    return names


def _choose_gemm_kernel() -> None:
    """Raises ImportError where TOYNN_GEMM_KERNEL names a kernel that is not there."""
    name = os.environ.get("TOYNN_GEMM_KERNEL", "")
    if name:
        try:
            tnn_gemm_use_kernel(name)
        except TinyNNValueError as error:
            raise ImportError(f"TOYNN_GEMM_KERNEL: {error}") from error


_choose_gemm_kernel()


def build_info() -> dict[str, str]:
    """What the extension was built from and for: ggml_version, ggml_commit, profile, compiler, build_type,
    options and cpu_features (separated by spaces); and gemm_kernel, which this CPU chooses."""
    return {
        "ggml_version": tnn_ggml_version(),
        "ggml_commit": tnn_ggml_commit(),
        "profile": tnn_profile(),
        "compiler": tnn_compiler(),
        "build_type": tnn_build_type(),
        "options": tnn_build_options(),
        "cpu_features": tnn_cpu_features(),
        "gemm_kernel": tnn_gemm_kernel(),
    }
