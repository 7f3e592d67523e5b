"""The kernels of the matrix product that this CPU can run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toynn import tinynn as nn


def kernels() -> list[str]:
    """Return the names of the kernels that this CPU can run, the fastest first."""
    names: list[str] = []
    while (name := nn.tnn_gemm_kernel_at(len(names))) is not None:
        names.append(name)
    return names


@contextmanager
def kernel(name: str) -> Iterator[None]:
    """Use a kernel inside the `with` block, and the previous kernel afterwards."""
    before = nn.tnn_gemm_kernel()
    nn.tnn_gemm_use_kernel(name)
    try:
        yield
    finally:
        nn.tnn_gemm_use_kernel(before)
