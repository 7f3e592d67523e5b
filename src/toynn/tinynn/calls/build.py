# Generated from csrc/tinynn.h by `make generate`. Change the header instead.
"""Describe this build and this machine. These calls need no session. Their strings are static."""

from __future__ import annotations

from toynn.arguments import int32
from toynn.tinynn.native import lib, optional_text, text


def tnn_ggml_version() -> str:
    """Return the version of the compiled ggml, for example "0.20.2"."""
    return text(lib.tnn_ggml_version())


def tnn_ggml_commit() -> str:
    """Return the commit of ggml, as stated by ggml."""
    return text(lib.tnn_ggml_commit())


def tnn_profile() -> str:
    """Return the instruction-set profile, for example "x86-64-v3".

    The same profile and inputs give the same bits.
    """
    return text(lib.tnn_profile())


def tnn_compiler() -> str:
    """Return the compiler that made this build."""
    return text(lib.tnn_compiler())


def tnn_build_type() -> str:
    """Return CMake's build type."""
    return text(lib.tnn_build_type())


def tnn_build_options() -> str:
    """Return the options that this build was configured with."""
    return text(lib.tnn_build_options())


def tnn_cpu_features() -> str:
    """Return the CPU features compiled in, separated by spaces."""
    return text(lib.tnn_cpu_features())


def tnn_cpu_missing() -> str:
    """Return the features of the profile that this CPU lacks, separated by spaces; "" if the CPU can run this build.

    If a feature is missing, no other call is safe. In Python, the import makes this call first and raises ImportError.
    """
    return text(lib.tnn_cpu_missing())


def tnn_gemm_kernel() -> str:
    """Return the name of the kernel that computes the matrix products of the fused operators, for example "v8".

    At its first matrix product, a process chooses the fastest kernel that its CPU can run. In Python the environment
    variable TOYNN_GEMM_KERNEL can name another kernel. All kernels give the same bits.
    """
    return text(lib.tnn_gemm_kernel())


def tnn_gemm_kernel_at(i: int) -> str | None:
    """Return the name of kernel i in the list of kernels that this CPU can run, or None.

    The fastest kernel is the first one.
    """
    return optional_text(lib.tnn_gemm_kernel_at(int32("i", i)))


def tnn_available_cores() -> int:
    """Return the number of cores (at least 1) that this process may use, limited by its affinity mask and cgroup
    quotas.
    """
    return lib.tnn_available_cores()


def tnn_available_memory() -> int:
    """Return the number of bytes that this process can still allocate, on the machine and within its cgroups."""
    return lib.tnn_available_memory()
