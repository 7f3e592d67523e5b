"""The fused operators with stored weights: the bits are those of the same weights in f32, for every type of ggml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType

from quantized import TYPES, random_blocks
from toynn import Session, Tensor, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

STORED = [kind for kind in TYPES if kind != GGMLQuantizationType.F32]
BY_NAME = pytest.mark.parametrize("kind", STORED, ids=lambda kind: str(kind.name))
KERNELS = [name for i in range(4) if (name := nn.tnn_gemm_kernel_at(i)) is not None]
D, HEADS, KV, D_HEAD, VOCAB = 256, 2, 1, 128, 70  # D elements are one block of the types with the largest blocks

Matrices = dict[str, tuple[bytes, npt.NDArray[np.float32]]]


def matrices(kind: GGMLQuantizationType, sizes: dict[str, tuple[int, int]]) -> Matrices:
    found = {}
    for i, (name, (rows, cols)) in enumerate(sizes.items()):
        stored, values = random_blocks(kind, rows, seed=100 * int(kind) + i, cols=cols)
        found[name] = (stored.tobytes(), values)
    return found


def in_pairs(raw: bytes, rows: int) -> bytes:
    """Return stored rows in the order in which llama.cpp stores q and k: 0, D_HEAD / 2, 1, D_HEAD / 2 + 1, ..."""
    halves = np.frombuffer(raw, np.uint8).reshape(rows // D_HEAD, 2, D_HEAD // 2, -1)
    return bytes(halves.swapaxes(1, 2).tobytes())


@contextmanager
def weights(
    kind: GGMLQuantizationType,
    content: Matrices,
    folder: Path,
    stored: bool,
    n_threads: int,
    interleaved: tuple[str, ...] = (),
) -> Iterator[tuple[Session, dict[str, Tensor], Callable[[], None]]]:
    """Yield a session, its matrices (stored in a file, or f32 tensors), and a function that finalizes the weights."""
    with Session(n_threads=n_threads, oversubscribe=True) as s:
        found: dict[str, Tensor] = {}
        for name, (raw, values) in content.items():
            rows, cols = values.shape
            if stored:
                (folder / name).write_bytes(in_pairs(raw, rows) if name in interleaved else raw)
                with (folder / name).open("rb") as file:
                    nn.tnn_session_attach_weight_mmap(s, nn.MappedFile(file))
                found[name] = nn.tnn_input_2d_persistent_mmap(s, rows, cols, int(kind), 0)
                if name in interleaved:
                    nn.tnn_tensor_set_interleaved(found[name], D_HEAD)
            else:
                found[name] = nn.tnn_input_2d_f32_persistent(s, rows, cols)

        def finalize() -> None:
            nn.tnn_finalize_weights(s)
            for name, (_, values) in content.items():
                if not stored:
                    nn.upload_row_major(s, found[name], values)

        yield s, found, finalize


# ---- products of many shapes ----


def product(
    kind: GGMLQuantizationType, content: Matrices, folder: Path, stored: bool, n_threads: int, rows: int
) -> list[bytes]:
    """Return the bytes of the product of x and two weights side by side, and of the gradients of x and of a bias."""
    k = content["one"][1].shape[1]
    columns = sum(values.shape[0] for _, values in content.values())
    rng = np.random.default_rng(rows)
    with weights(kind, content, folder, stored, n_threads) as (s, w, finalize):
        x, bias = nn.tnn_input_2d_f32_persistent(s, rows, k), nn.tnn_input_1d_f32_persistent(s, w["two"].ne[1])
        first = nn.tnn_input_1d_f32_persistent(s, w["one"].ne[1])
        head = nn.tnn_input_2d_f32_persistent(s, 5, columns)
        finalize()
        for t in (x, bias, first, head):  # small numbers, so that no probability becomes 1
            nn.tnn_upload_from_float_array(s, t, rng.standard_normal(int(np.prod(t.ne))) / 1000)
            if t != head:
                nn.tnn_set_param(t)
        targets = nn.tnn_input_1d_i32(s, rows)
        y = nn.tnn_fused_linear(s, x, [w["one"], w["two"]], [first, bias])
        nn.tnn_set_output(y)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, y, [head]), targets, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        results = [y, nn.tnn_tensor_grad(s, x), nn.tnn_tensor_grad(s, bias)]
        for t in results[1:]:
            nn.tnn_set_output(t)
        nn.tnn_realize_backward(s)
        nn.tnn_graph_reset(s)
        nn.tnn_upload_from_int_array(s, targets, np.arange(rows) % 5)
        nn.tnn_compute_backward(s)
        got = [nn.tnn_download(s, t) for t in results]
        assert all(np.isfinite(one).all() and one.std() > 0 for one in got)
        return [one.tobytes() for one in got]


@BY_NAME
def test_products_and_their_gradients_have_the_bits_of_the_values_in_f32(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    """Rows are longer than the part that a kernel multiplies at once, and sizes are not multiples of a tile.

    A product with one row packs no weights; a product with many rows packs them.
    """
    content = matrices(kind, {"one": (67, 768), "two": (9, 768)})
    for rows in (1, 2, 90):
        want = product(kind, content, tmp_path, stored=False, n_threads=1, rows=rows)
        for n_threads in (1, 3):
            assert product(kind, content, tmp_path, stored=True, n_threads=n_threads, rows=rows) == want, rows


@contextmanager
def kernel_in_use(name: str) -> Iterator[None]:
    before = nn.tnn_gemm_kernel()
    nn.tnn_gemm_use_kernel(name)
    try:
        yield
    finally:
        nn.tnn_gemm_use_kernel(before)


@pytest.mark.parametrize("name", ["Q4_1", "Q4_K", "F16", "MXFP4"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_gives_these_bits(name: str, kernel: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    # these matrices have more columns than are packed at once
    content = matrices(kind, {"one": (530, 768), "two": (33, 768)})
    want = product(kind, content, tmp_path, stored=False, n_threads=2, rows=70)
    with kernel_in_use(kernel):
        for n_threads in (1, 3):
            assert product(kind, content, tmp_path, stored=True, n_threads=n_threads, rows=70) == want


@pytest.mark.threads
@pytest.mark.parametrize("kernel", KERNELS)
@BY_NAME
def test_every_kernel_gives_these_bits_for_one_row(kind: GGMLQuantizationType, kernel: str, tmp_path: Path) -> None:
    # the columns fill some vectors completely and the last vector partly
    content = matrices(kind, {"one": (131, 512), "two": (64, 512)})
    want = product(kind, content, tmp_path, stored=False, n_threads=1, rows=1)
    with kernel_in_use(kernel):
        for n_threads in (1, 2):
            assert product(kind, content, tmp_path, stored=True, n_threads=n_threads, rows=1) == want


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("k", [1, 7, 12, 131])
def test_rows_of_any_length_give_these_bits(name: str, k: int, kernel: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    content = matrices(kind, {"one": (35, k), "two": (16, k)})
    want = product(kind, content, tmp_path, stored=False, n_threads=1, rows=2)
    with kernel_in_use(kernel):
        assert product(kind, content, tmp_path, stored=True, n_threads=1, rows=2) == want


# ---- a model of one layer with a tied output head ----

SIZES = {
    "table": (VOCAB, D), "q": (HEADS * D_HEAD, D), "k": (KV * D_HEAD, D), "v": (KV * D_HEAD, D), "o": (D, D),
    "gate": (256, D), "up": (256, D), "down": (D, 256),
}  # fmt: skip
TOKENS = np.random.default_rng(5).integers(0, VOCAB, 17).astype(np.int32)


class Model:
    """A llama model with one layer. Its matrices are scaled by small norms, so that the numbers stay moderate."""

    def __init__(self, s: Session, w: dict[str, Tensor], finalize: Callable[[], None]) -> None:
        self.s, self.w = s, w
        self.norms = [nn.tnn_input_1d_f32_persistent(s, D) for _ in range(3)]
        self.cache = nn.tnn_input_2d_f32_persistent(s, TOKENS.size, 2 * KV * D_HEAD)
        finalize()
        for i, norm in enumerate(self.norms):
            nn.tnn_set_param(norm)
            nn.tnn_upload_from_float_array(s, norm, np.random.default_rng(i).standard_normal(D) / 1000)

    def logits(self, ids: Tensor, positions: Tensor, n_past: Tensor | None) -> Tensor:
        s, w = self.s, self.w
        turn = nn.tnn_fused_rope_table(s, positions, None, D_HEAD, 1e4, 1.0, 1.0)
        x = nn.tnn_get_rows(s, w["table"], ids)
        qkv = nn.tnn_fused_linear(s, nn.tnn_fused_rms_norm(s, x, self.norms[0], 1e-5), [w["q"], w["k"], w["v"]])
        if n_past is None:
            a = nn.tnn_fused_attention(s, qkv, turn, HEADS, KV, TOKENS.size)
        else:
            a = nn.tnn_fused_attention_cached(s, qkv, turn, self.cache, n_past, HEADS, KV)
        x = nn.tnn_fused_linear(s, a, [w["o"]], None, x)
        h = nn.tnn_fused_linear(s, nn.tnn_fused_rms_norm(s, x, self.norms[1], 1e-5), [w["gate"], w["up"]])
        x = nn.tnn_fused_linear(s, nn.tnn_fused_swiglu(s, h), [w["down"]], None, x)
        return nn.tnn_fused_linear(s, nn.tnn_fused_rms_norm(s, x, self.norms[2], 1e-5), [w["table"]])

    def trained(self) -> list[bytes]:
        """Return the bytes of the loss and of the gradients of the norms."""
        s = self.s
        nn.tnn_reset_for_rebuild(s)
        ids, positions, targets = (nn.tnn_input_1d_i32(s, TOKENS.size) for _ in range(3))
        loss = nn.tnn_fused_cross_entropy(s, self.logits(ids, positions, None), targets, -1)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        results = [loss, *(nn.tnn_tensor_grad(s, norm) for norm in self.norms)]
        for t in results[1:]:
            nn.tnn_set_output(t)
        nn.tnn_realize_backward(s)
        nn.tnn_graph_reset(s)
        for t, values in ((ids, TOKENS), (positions, np.arange(TOKENS.size)), (targets, np.roll(TOKENS, -1))):
            nn.tnn_upload_from_int_array(s, t, values)
        nn.tnn_compute_backward(s)
        got = [nn.tnn_download(s, t) for t in results]
        assert all(np.isfinite(one).all() and one.any() for one in got)
        return [one.tobytes() for one in got]

    def decoded(self) -> list[bytes]:
        """Read the tokens in parts, and return the logits of the last token of each part, as bytes."""
        s, found = self.s, []
        for begin, end in ((0, 13), (13, 15), (15, 16), (16, 17)):
            nn.tnn_reset_for_rebuild(s)
            ids, positions, n_past = (nn.tnn_input_1d_i32(s, n) for n in (end - begin, end - begin, 1))
            logits = self.logits(ids, positions, n_past)
            nn.tnn_realize(s, logits)
            for t, values in ((ids, TOKENS[begin:end]), (positions, np.arange(begin, end)), (n_past, [begin])):
                nn.tnn_upload_from_int_array(s, t, values)
            nn.tnn_compute(s)
            found.append(nn.download_row_major(s, logits, end - begin, VOCAB)[-1].tobytes())
        return found


@BY_NAME
def test_a_layer_trains_and_decodes_with_the_bits_of_the_values_in_f32(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    content = matrices(kind, SIZES)
    results = []
    for stored, n_threads in ((False, 1), (True, 1), (True, 3)):
        with weights(kind, content, tmp_path, stored, n_threads) as (s, w, finalize):
            model = Model(s, w, finalize)
            results.append((model.trained(), model.decoded()))
    assert results[1] == results[0]
    assert results[2] == results[0]


@pytest.mark.parametrize("name", ["F32", "F16", "Q4_1", "Q4_K"])
def test_interleaved_rows_of_q_and_k_are_used_in_order(name: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    content = matrices(kind, SIZES)
    results = []
    for stored, interleaved in ((False, ()), (True, ("q", "k")), (True, ("v",))):
        with weights(kind, content, tmp_path, stored, 2, interleaved) as (s, w, finalize):
            model = Model(s, w, finalize)
            results.append((model.trained(), model.decoded()))
            if interleaved:
                raw = nn.download_row_major(s, w[interleaved[0]], w[interleaved[0]].ne[1], D)
                assert raw[1].tobytes() == content[interleaved[0]][1][D_HEAD // 2].tobytes(), "the stored order"
    assert results[1] == results[0]
    assert results[2] == results[0]


def loss_in_parts(w: Tensor, s: Session, finalize: Callable[[], None], part: int) -> list[bytes]:
    """Return the bytes of the loss of the logits x W^T and of the gradient of x. part: rows of a part; 0: all rows."""
    x = nn.tnn_input_2d_f32_persistent(s, 7, D)
    finalize()
    nn.tnn_upload_from_float_array(s, x, np.random.default_rng(0).standard_normal(7 * D) / 1000)
    nn.tnn_set_param(x)
    targets = nn.tnn_input_1d_i32(s, 7)
    if part:
        loss = nn.tnn_fused_output_loss(s, x, w, targets, -1, None, part)
    else:
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [w]), targets, -1)
    nn.tnn_set_output(loss)
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    nn.tnn_build_backward(s)
    gradient = nn.tnn_tensor_grad(s, x)
    nn.tnn_set_output(gradient)
    nn.tnn_realize_backward(s)
    nn.tnn_upload_from_int_array(s, targets, [0, D - 1, 3, -1, 5, 6, 7])
    nn.tnn_graph_reset(s)
    nn.tnn_compute_backward(s)
    assert nn.tnn_download(s, gradient).std() > 0
    return [nn.tnn_download(s, t).tobytes() for t in (loss, gradient)]


@pytest.mark.parametrize("name", ["F32", "BF16", "Q4_1", "Q4_K"])
def test_a_loss_in_parts_has_the_bits_of_the_values_in_f32(name: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    content = matrices(kind, {"w": (2 * D_HEAD, D)})
    results = []
    for stored, interleaved, part in ((False, (), 0), (True, (), 3), (True, ("w",), 3), (True, ("w",), 1)):
        with weights(kind, content, tmp_path, stored, 2, interleaved) as (s, w, finalize):
            results.append(loss_in_parts(w["w"], s, finalize, part))
    assert results[1:] == [results[0]] * 3


def test_only_a_mapped_matrix_of_whole_heads_is_interleaved(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.F16
    with weights(kind, matrices(kind, {"w": (12, 32)}), tmp_path, stored=True, n_threads=1) as (s, w, finalize):
        own = nn.tnn_input_2d_f32_persistent(s, 4, 32)
        finalize()
        nn.tnn_tensor_set_interleaved(w["w"], 6)
        for d_head in (0, -2, 1, 3, 8, 24):
            with pytest.raises(TinyNNValueError, match=f"d_head = {d_head} must be even and divide the 12 rows"):
                nn.tnn_tensor_set_interleaved(w["w"], d_head)
        with pytest.raises(TinyNNValueError, match="must be a matrix that is mapped from a file"):
            nn.tnn_tensor_set_interleaved(own, 2)


def test_a_quantized_weight_is_refused_as_another_operand(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q8_0
    with weights(kind, matrices(kind, {"w": (32, 32)}), tmp_path, stored=True, n_threads=1) as (s, w, finalize):
        x = nn.tnn_input_2d_f32_persistent(s, 32, 32)
        finalize()
        calls: list[Callable[[], Tensor]] = [
            lambda: nn.tnn_fused_linear(s, w["w"], [x]),
            lambda: nn.tnn_fused_linear(s, x, [x], None, w["w"]),
            lambda: nn.tnn_fused_swiglu(s, w["w"]),
        ]
        for call in calls:
            with pytest.raises(TinyNNTypeError, match="has dtype q8_0, but it must be f32"):
                call()
        with pytest.raises(TinyNNTypeError, match="t has dtype q8_0, but a parameter must be f32"):
            nn.tnn_set_param(w["w"])
