"""The kernels of the matrix product: their names, the choice of a kernel, and the equality of their bits."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import toynn
from curves import CURVES, Curve, record
from gemm_kernels import kernel, kernels
from toynn import TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

FUSED = [curve for curve in CURVES if curve.opts.layout == "fused"]


several = pytest.mark.skipif(len(kernels()) < 2, reason=f"this CPU runs one kernel only, {kernels()[0]}")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


# ---- the choice of a kernel ----


def test_every_cpu_can_run_the_kernel_with_eight_lanes() -> None:
    assert kernels()[-1] == "v8"
    x86: tuple[list[str], ...] = ([], ["avx512"], ["avx512", "avx512_bf16"], ["avx512_bf16", "avx512"])
    others = {"x86-64-v3": x86, "aarch64": (["neon"],)}
    profile = toynn.build_info()["profile"]
    assert kernels()[:-1] in others.get(profile, (*x86, ["neon"])), profile
    assert nn.tnn_gemm_kernel_at(-1) is None
    assert nn.tnn_gemm_kernel_at(2**31 - 1) is None


def test_an_index_that_is_not_an_integer_is_refused_by_name() -> None:
    with pytest.raises(TinyNNTypeError, match="i must be an int"):
        nn.tnn_gemm_kernel_at("0")  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match="i must be an integer from -2147483648 to 2147483647"):
        nn.tnn_gemm_kernel_at(2**31)


def test_build_info_names_the_kernel_in_use() -> None:
    for name in kernels():
        with kernel(name):
            assert nn.tnn_gemm_kernel() == name
            assert toynn.build_info()["gemm_kernel"] == name


def test_a_process_uses_the_fastest_kernel_or_the_one_in_the_environment() -> None:
    code = "import toynn; print(toynn.build_info()['gemm_kernel'])"
    assert python(code, TOYNN_GEMM_KERNEL="").stdout.split() == [kernels()[0]]
    for name in kernels():
        assert python(code, TOYNN_GEMM_KERNEL=name).stdout.split() == [name]


def test_an_unknown_kernel_is_refused_by_name() -> None:
    done = python("import toynn.tinynn", TOYNN_GEMM_KERNEL="avx9000")
    assert done.returncode == 1
    assert "ImportError: TOYNN_GEMM_KERNEL: name must be one of" in done.stderr
    assert "'avx9000'" in done.stderr
    before = nn.tnn_gemm_kernel()
    for name in ("avx9000", "", "v8\0"):
        with pytest.raises(TinyNNValueError, match=r"name must be one of .*v8"):
            nn.tnn_gemm_use_kernel(name)
    with pytest.raises(TinyNNTypeError, match="name must be a str, got None"):
        nn.tnn_gemm_use_kernel(None)  # type: ignore[arg-type]
    assert nn.tnn_gemm_kernel() == before


# ---- the bits ----


def products(rows: int, k: int, ms: list[int], bias: bool, n_threads: int, seed: int) -> list[bytes]:
    """Return the results of all products of these sizes, with operands in every orientation.

    The forward product is x W^T (+ bias) (+ add). The backward products are dy W, whose sum over all weights is one
    chain of fused multiply-adds, and dy^T x, which is added to the existing gradient if a weight is used twice.
    """
    draw = np.random.default_rng(seed)

    def upload(s: nn.Session, t: nn.Tensor, *shape: int) -> None:
        nn.tnn_upload_from_float_array(s, t, draw.standard_normal(shape, dtype=np.float32))

    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        x = nn.tnn_input_2d_f32_persistent(s, rows, k)
        ws = [nn.tnn_input_2d_f32_persistent(s, m, k) for m in ms]
        bs = [nn.tnn_input_1d_f32_persistent(s, m) for m in ms] if bias else []
        nn.tnn_finalize_weights(s)
        for t in (x, *ws, *bs):
            upload(s, t, *reversed(t.ne))
            nn.tnn_set_param(t)
        wanted = nn.tnn_input_1d_i32(s, rows)
        first = nn.tnn_fused_linear(s, x, ws, bs or None)
        second = nn.tnn_fused_linear(s, x, ws, None, first)
        loss = nn.tnn_fused_cross_entropy(s, second, wanted, -1)
        nn.tnn_set_loss(loss)
        for t in (first, second, loss):
            nn.tnn_set_output(t)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grads = [nn.tnn_tensor_grad(s, t) for t in (x, *ws, *bs)]
        for t in grads:
            nn.tnn_set_output(t)
        nn.tnn_realize_backward(s)
        nn.upload_int_array(s, wanted, draw.integers(sum(ms), size=rows))
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        return [nn.tnn_download(s, t).tobytes() for t in (first, second, loss, *grads)]


sizes = st.one_of(st.integers(1, 40), st.integers(1, 140), st.integers(370, 530), st.just(1024))


@several
@settings(max_examples=80, deadline=None)
@given(
    rows=sizes, k=sizes, ms=st.lists(sizes, min_size=1, max_size=3), bias=st.booleans(), n_threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(rows=1, k=1, ms=[1], bias=True, n_threads=1, seed=0)
@example(rows=33, k=1024, ms=[1024], bias=False, n_threads=2, seed=0)
@example(rows=1024, k=70, ms=[49, 1024], bias=True, n_threads=1, seed=0)
def test_products_of_any_shape_have_the_same_bits_under_every_kernel(
    rows: int, k: int, ms: list[int], bias: bool, n_threads: int, seed: int
) -> None:
    results: dict[str, Any] = {}
    for name in kernels():
        with kernel(name):
            results[name] = products(rows, k, ms, bias, n_threads, seed)
    for name, result in results.items():
        assert result == results["v8"], name


@several
@pytest.mark.parametrize("width", [4, 8, 12, 16, 24, 32, 40])
def test_tiles_of_every_height_and_width_have_the_same_bits_under_every_kernel_from_start_to_end(width: int) -> None:
    """The products have from 1 row to more than two tiles of rows, with bias and addend, and several blocks of k."""
    for rows in range(1, 27):
        results = {}
        for name in kernels():
            with kernel(name):
                results[name] = products(rows, 400, [width], True, 1, rows)
        assert all(result == results["v8"] for result in results.values()), rows


@several
@pytest.mark.parametrize("curve", FUSED, ids=lambda curve: curve.name)
def test_every_curve_has_the_same_losses_and_weights_under_every_kernel(curve: Curve) -> None:
    results = {}
    for name in kernels():
        with kernel(name):
            results[name] = record(curve)
    for name, result in results.items():
        assert result == results["v8"], name
