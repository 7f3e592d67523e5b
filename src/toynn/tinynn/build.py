"""Describe this build, and choose the kernel that computes matrix products."""

from __future__ import annotations

import os

from toynn.arguments import text
from toynn.errors import TinyNNValueError
from toynn.tinynn.calls import build
from toynn.tinynn.native import lib

__all__ = ["build_info", "ggml_version", "tnn_gemm_use_kernel"]


def ggml_version() -> str:
    """Return the version of the ggml compiled in, for example "0.20.2"."""
    return build.tnn_ggml_version()


def tnn_gemm_use_kernel(name: str) -> None:
    """Use the named kernel for all matrix products of this process from now on. All kernels give the same bits.

    Raises:
        TinyNNValueError: this CPU, or this build, has no kernel of that name.
        TinyNNTypeError: name is not a str.
    """
    kernel = text("name", name)
    if kernel not in _gemm_kernels():
        raise TinyNNValueError(f"name must be one of {', '.join(_gemm_kernels())} on this CPU, got {kernel!r}")
    lib.tnn_gemm_use_kernel(kernel.encode())


def _gemm_kernels() -> list[str]:
    """Return the names of the matrix product kernels that this CPU can run, the fastest first."""
    names: list[str] = []
    while (name := build.tnn_gemm_kernel_at(len(names))) is not None:
        names.append(name)
    return names


def _choose_gemm_kernel() -> None:
    """Use the kernel in the environment variable TOYNN_GEMM_KERNEL. Raise ImportError if this CPU cannot run it."""
    name = os.environ.get("TOYNN_GEMM_KERNEL", "")
    if name:
        try:
            tnn_gemm_use_kernel(name)
        except TinyNNValueError as error:
            raise ImportError(f"TOYNN_GEMM_KERNEL: {error}") from error


_choose_gemm_kernel()


def build_info() -> dict[str, str]:
    """Return what the extension was built from, and for which machines.

    The keys are ggml_version, ggml_commit, profile, compiler, build_type, options, cpu_features (separated by spaces),
    and gemm_kernel, the kernel in use.
    """
    return {
        "ggml_version": build.tnn_ggml_version(),
        "ggml_commit": build.tnn_ggml_commit(),
        "profile": build.tnn_profile(),
        "compiler": build.tnn_compiler(),
        "build_type": build.tnn_build_type(),
        "options": build.tnn_build_options(),
        "cpu_features": build.tnn_cpu_features(),
        "gemm_kernel": build.tnn_gemm_kernel(),
    }
