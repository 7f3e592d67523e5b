"""Weights that are mapped from a file: their values, their products, and refused calls."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

from quantized import ROW, TYPES, random_blocks, random_bytes, values_of
from toynn import MappedFileError, Session, SessionError, Tensor, TinyNNError, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

ROWS, TOKENS = 12, 5
BY_NAME = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.name))
rng = np.random.default_rng(3)


def exact_activations() -> np.ndarray[Any, Any]:
    """Return (TOKENS, ROW) integers that are exact in ggml's 8-bit blocks: each block contains the value 127."""
    x = rng.integers(-126, 127, (TOKENS, ROW)).astype(np.float32)
    x[:, ::32] = 127
    return x


X = exact_activations()


def mapped(path: Path, content: bytes) -> nn.MappedFile:
    path.write_bytes(content)
    with path.open("rb") as file:
        return nn.MappedFile(file)


def product(path: Path, kind: int, stored: bytes, n_threads: int = 1, offset: int = 0) -> np.ndarray[Any, Any]:
    """Return X times the transposed mapped matrix, (TOKENS, ROWS)."""
    with mapped(path, b"\7" * offset + stored) as file, Session(n_threads=n_threads, oversubscribe=True) as s:
        nn.tnn_session_attach_weight_mmap(s, file)
        w = nn.tnn_input_2d_persistent_mmap(s, ROWS, ROW, kind, offset)
        nn.tnn_finalize_weights(s)
        assert nn.tnn_session_weights_nbytes(s) == 0, "nothing is copied"
        x = nn.tnn_input_2d_f32(s, TOKENS, ROW)
        y = nn.tnn_matmul(s, w, x)
        nn.tnn_realize(s, y)
        nn.tnn_upload_from_float_array(s, x, X)
        nn.tnn_compute(s)
        return nn.download_row_major(s, y, TOKENS, ROWS)


@BY_NAME
def test_a_product_with_a_mapped_weight_equals_the_product_with_its_values(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    stored, values = random_blocks(kind, ROWS, seed=int(kind))
    got = product(tmp_path / "w", int(kind), stored.tobytes())
    want = X.astype(np.float64) @ values.T.astype(np.float64)
    most = np.abs(X) @ np.abs(values).T
    assert np.max(np.abs(got - want) / most) < 2e-6
    if kind not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16):
        assert values.std() > 0


@BY_NAME
def test_threads_and_the_place_in_the_file_do_not_change_a_product(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    stored, _ = random_blocks(kind, ROWS, seed=int(kind))
    want = product(tmp_path / "w", int(kind), stored.tobytes()).tobytes()
    for n_threads in (2, 3, 4):
        assert product(tmp_path / "w", int(kind), stored.tobytes(), n_threads).tobytes() == want
    assert product(tmp_path / "w", int(kind), stored.tobytes(), offset=GGUF_DEFAULT_ALIGNMENT + 4).tobytes() == want


@BY_NAME
def test_a_download_has_the_values_of_every_block(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    """Random bytes include blocks whose scale is NaN or infinite; ggml reads them without a failure."""
    stored = random_bytes(kind, 64, seed=int(kind))
    want = values_of(kind, stored)
    with mapped(tmp_path / "w", stored.tobytes()) as file, Session(n_threads=1) as s:
        nn.tnn_session_attach_weight_mmap(s, file)
        w = nn.tnn_input_2d_persistent_mmap(s, 64, ROW, int(kind), 0)
        nn.tnn_finalize_weights(s)
        ids = nn.tnn_input_1d_i32(s, 2)
        x = nn.tnn_input_2d_f32(s, 1, ROW)
        rows, y = nn.tnn_get_rows(s, w, ids), nn.tnn_matmul(s, w, x)
        nn.tnn_set_output(rows)
        nn.tnn_realize(s, nn.tnn_add(s, nn.tnn_sum(s, rows), nn.tnn_sum(s, y)))
        nn.tnn_upload_from_int_array(s, ids, [63, 5])
        nn.tnn_upload_from_float_array(s, x, X[:1])
        nn.tnn_compute(s)
        got, picked = nn.tnn_download(s, w).reshape(64, ROW), nn.tnn_download(s, rows).reshape(2, ROW)
    one_nan = np.where(np.isnan(want), np.float32(np.nan), want)
    assert got.tobytes() == one_nan.tobytes()
    assert picked.tobytes() == one_nan[[63, 5]].tobytes()


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q6_K", "IQ2_XXS", "IQ4_NL", "TQ1_0", "MXFP4"])
def test_a_gradient_flows_through_a_mapped_weight(name: str, tmp_path: Path) -> None:
    """loss = sum(labels * -log_softmax(W (P x))): the gradient of P needs the values of W."""
    kind = GGMLQuantizationType[name]
    stored, values = random_blocks(kind, ROWS, seed=1)
    p = rng.standard_normal((ROW, 4)).astype(np.float32) / 100
    x, labels = rng.standard_normal((TOKENS, 4)).astype(np.float32), rng.random((TOKENS, ROWS)).astype(np.float32)
    gradients = []
    for n_threads in (1, 3):
        with (
            mapped(tmp_path / "w", stored.tobytes()) as file,
            Session(n_threads=n_threads, oversubscribe=True) as s,
        ):
            nn.tnn_session_attach_weight_mmap(s, file)
            w = nn.tnn_input_2d_persistent_mmap(s, ROWS, ROW, int(kind), 0)
            weight = nn.tnn_input_2d_f32_persistent(s, ROW, 4)
            nn.tnn_finalize_weights(s)
            nn.tnn_set_param(weight)
            nn.upload_row_major(s, weight, p)
            t_x, t_labels = nn.tnn_input_2d_f32(s, TOKENS, 4), nn.tnn_input_2d_f32(s, TOKENS, ROWS)
            hidden = nn.tnn_matmul(s, weight, t_x)
            nn.tnn_set_output(hidden)
            loss = nn.tnn_cross_entropy_loss(s, nn.tnn_matmul(s, w, hidden), t_labels)
            nn.tnn_set_loss(loss)
            nn.tnn_build_forward_only(s, loss)
            nn.tnn_build_backward(s)
            grad = nn.tnn_tensor_grad(s, weight)
            nn.tnn_set_output(grad)
            nn.tnn_realize_backward(s)
            nn.tnn_graph_reset(s)
            nn.upload_row_major(s, t_x, x)
            nn.upload_row_major(s, t_labels, labels)
            nn.tnn_compute_backward(s)
            gradients.append(nn.download_row_major(s, grad, ROW, 4))
    h = x.astype(np.float64) @ p.T.astype(np.float64)
    logits = h @ values.T.astype(np.float64)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    d_logits = (e / e.sum(axis=1, keepdims=True) - labels) / TOKENS  # like ggml, this treats labels as probabilities
    want = (d_logits @ values).T @ x
    quantized = kind != GGMLQuantizationType.F32  # the 8-bit activations of the forward pass change the logits
    assert np.max(np.abs(gradients[0] - want)) < (0.1 if quantized else 1e-5) * np.max(np.abs(want))
    assert gradients[0].tobytes() == gradients[1].tobytes()


# ---- lifetimes ----


def test_a_session_keeps_the_mapping_until_it_is_closed(tmp_path: Path) -> None:
    numbers = np.arange(8, dtype=np.float32)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    file = mapped(tmp_path / "w", numbers.tobytes())
    with Session(n_threads=1) as s:
        nn.tnn_session_attach_weight_mmap(s, file)
        w = nn.tnn_input_1d_persistent_mmap(s, 8, nn.TNN_F32, 0)
        nn.tnn_finalize_weights(s)
        file.close()
        file.close()
        assert str(file) == f"<MappedFile {str(tmp_path / 'w')!r}, closed>"
        with pytest.raises(SessionError, match="is closed"):
            file.read(0, 1)
        with pytest.raises(SessionError, match="is closed"):
            nn.tnn_session_attach_weight_mmap(Session(n_threads=1), file)
        del file
        assert nn.tnn_download(s, w).tolist() == numbers.tolist()
        assert str(tmp_path / "w") in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(tmp_path / "w") not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_files_can_be_attached_in_turn(tmp_path: Path) -> None:
    one = mapped(tmp_path / "one", np.full(4, 1, np.float32).tobytes())
    two = mapped(tmp_path / "two", np.full(4, 2, np.float32).tobytes())
    with one, two, Session(n_threads=1) as s, Session(n_threads=1) as other:
        weights = []
        for file in (one, two, one):
            nn.tnn_session_attach_weight_mmap(s, file, 16)
            weights.append(nn.tnn_input_2d_persistent_mmap(s, 2, 2, nn.TNN_F32, 0))
        nn.tnn_session_attach_weight_mmap(other, one)
        again = nn.tnn_input_3d_persistent_mmap(other, 1, 2, 1, nn.TNN_F32, 4)
        nn.tnn_finalize_weights(s)
        nn.tnn_finalize_weights(other)
        assert [nn.tnn_download(s, w)[0] for w in weights] == [1, 2, 1]
        assert again.ne == (1, 2, 1, 1) and nn.tnn_download(other, again).tolist() == [1, 1]


def test_a_session_has_a_limit_of_attached_files(tmp_path: Path) -> None:
    files = [mapped(tmp_path / str(i), b"1234") for i in range(65)]
    with Session(n_threads=1) as s:
        for file in files[:64]:
            nn.tnn_session_attach_weight_mmap(s, file)
        with pytest.raises(SessionError, match="already has 64 attached files"):
            nn.tnn_session_attach_weight_mmap(s, files[64])
    sessions = [Session(n_threads=1) for _ in range(257)]
    for one in sessions[:256]:
        nn.tnn_session_attach_weight_mmap(one, files[0])
    with pytest.raises(SessionError, match="this process already has 256 attached files"):
        nn.tnn_session_attach_weight_mmap(sessions[256], files[0])
    for one in sessions:
        one.close()
    for file in files:
        file.close()


def test_a_mapped_file_reads_copies_of_its_bytes(tmp_path: Path) -> None:
    with mapped(tmp_path / "w", bytes(range(100))) as file:
        assert len(file) == 100
        assert file.read(10, 5).tolist() == [10, 11, 12, 13, 14]
        assert file.read(100, 0).tolist() == []
        for offset, nbytes in ((-1, 2), (0, -1), (99, 2), (2**62, 1)):
            with pytest.raises(TinyNNValueError, match="do not lie inside"):
                file.read(offset, nbytes)
        for way in (pickle.dumps, copy.copy):
            with pytest.raises(TinyNNTypeError, match="cannot be copied or pickled"):
                way(file)


# ---- refused files and calls ----


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Session]:
    """A session with an attached file of 4096 bytes."""
    with mapped(tmp_path / "w", bytes(4096)) as file, Session(n_threads=1) as s:
        nn.tnn_session_attach_weight_mmap(s, file)
        yield s


REFUSED: dict[str, tuple[Callable[[Session], Any], type[TinyNNError], str]] = {
    "an element too many": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1025, 0, 0), TinyNNValueError, "ends beyond"),
    "the last offset": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1, 0, 4096), TinyNNValueError, "ends beyond"),
    "a huge offset": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1, 1, 2**63 - 2), TinyNNValueError, "ends beyond"),
    "a negative offset": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1, 0, -4), TinyNNValueError, "at least 0"),
    "an f32 between": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1, 0, 2), TinyNNValueError, "multiple of 4"),
    "a q4_0 between": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 32, 2, 3), TinyNNValueError, "multiple of 2"),
    "a q4_1 between": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 32, 3, 2), TinyNNValueError, "multiple of 4"),
    "a part of a block": (lambda s: nn.tnn_input_2d_persistent_mmap(s, 1, 48, 2, 0), TinyNNValueError, "block size"),
    "no rows": (lambda s: nn.tnn_input_2d_persistent_mmap(s, 0, 32, 2, 0), TinyNNValueError, "rows = 0"),
    "too many rows": (lambda s: nn.tnn_input_2d_persistent_mmap(s, 2**40, 32, 2, 0), TinyNNValueError, "2\\^31"),
    "too many numbers": (lambda s: nn.tnn_input_3d_persistent_mmap(s, 2**20, 2**20, 32, 2, 0), TinyNNValueError, "2."),
    "i32": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 1, nn.TNN_I32, 0), TinyNNTypeError, "dtype = 26"),
    "q8_1, only for operands": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 32, 9, 0), TinyNNTypeError, "dtype = 9"),
    "a removed type": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 32, 4, 0), TinyNNTypeError, "dtype = 4"),
    "an unknown type": (lambda s: nn.tnn_input_1d_persistent_mmap(s, 32, 4711, 0), TinyNNTypeError, "dtype = 4711"),
    "not a file": (lambda s: nn.tnn_session_attach_weight_mmap(s, b"bytes"), TinyNNTypeError, "must be a MappedFile"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_declaration_is_refused(name: str, attached: Session) -> None:
    call, error, mentions = REFUSED[name]
    with pytest.raises(error, match=mentions):
        call(attached)
    assert nn.tnn_input_1d_persistent_mmap(attached, 1024, nn.TNN_F32, 0).ne[0] == 1024


def test_declarations_need_a_file_and_come_before_the_weights_are_finalized(tmp_path: Path) -> None:
    with mapped(tmp_path / "w", bytes(64)) as file, Session(n_threads=1) as s:
        with pytest.raises(SessionError, match="no file is attached; call tnn_session_attach_weight_mmap first"):
            nn.tnn_input_1d_persistent_mmap(s, 1, nn.TNN_F32, 0)
        for size in (0, 65, -1):
            with pytest.raises(TinyNNValueError, match="size must be between 1 and 64"):
                nn.tnn_session_attach_weight_mmap(s, file, size)
        nn.tnn_session_attach_weight_mmap(s, file, 8)
        with pytest.raises(TinyNNValueError, match="ends beyond"):
            nn.tnn_input_1d_persistent_mmap(s, 3, nn.TNN_F32, 0)
        nn.tnn_finalize_weights(s)
        with pytest.raises(SessionError, match="before tnn_finalize_weights"):
            nn.tnn_input_1d_persistent_mmap(s, 1, nn.TNN_F32, 0)
        with pytest.raises(SessionError, match="before tnn_finalize_weights"):
            nn.tnn_session_attach_weight_mmap(s, file)


def test_only_a_regular_file_with_content_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as file, pytest.raises(TinyNNValueError, match="is empty"):
        nn.MappedFile(file)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb"), pytest.raises((TinyNNError, OSError)):
        nn.MappedFile(pipe)
    for wrong in (None, "path", 3):
        with pytest.raises(TinyNNTypeError, match="file must be an open file"):
            nn.MappedFile(wrong)  # type: ignore[arg-type]


class Weights:
    """A session with two mapped f32 matrices, a mapped quantized matrix, and tensors that are not mapped."""

    def __init__(self, s: Session) -> None:
        self.s = s
        self.w = nn.tnn_input_2d_persistent_mmap(s, 4, 4, nn.TNN_F32, 0)
        self.cache = nn.tnn_input_2d_persistent_mmap(s, 16, 8, nn.TNN_F32, 0)
        self.q = nn.tnn_input_2d_persistent_mmap(s, 4, 32, int(GGMLQuantizationType.Q4_0), 0)
        self.own, self.m, self.v = (nn.tnn_input_2d_f32_persistent(s, 4, 4) for _ in range(3))
        self.ids, self.hp = nn.tnn_input_1d_i32_persistent(s, 4), nn.tnn_input_1d_f32_persistent(s, 7)
        self.wide, self.table = nn.tnn_input_2d_f32_persistent(s, 4, 12), nn.tnn_input_2d_f32_persistent(s, 4, 2)
        self.n_past = nn.tnn_input_1d_i32_persistent(s, 1)
        for weight, name in ((self.w, "w"), (self.cache, "cache")):
            nn.tnn_tensor_set_name(weight, name)
        nn.tnn_set_param(self.own)
        nn.tnn_finalize_weights(s)


WRITES: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "upload": (lambda d: nn.tnn_upload_from_float_array(d.s, d.w, np.ones(16)), "cannot be written"),
    "upload rows": (lambda d: nn.upload_row_major(d.s, d.q, np.ones((4, 32))), "cannot be written"),
    "zero": (lambda d: nn.tnn_zero_tensor(d.s, d.w), "cannot be written"),
    "train": (lambda d: nn.tnn_set_param(d.w), "cannot be trained"),
    "copy": (lambda d: nn.tnn_realize(d.s, nn.tnn_cpy(d.s, d.own, d.w)), "would write the weight w of shape .4, 4."),
    "copy to a view": (
        lambda d: nn.tnn_realize(d.s, nn.tnn_cpy(d.s, d.own, nn.tnn_view_2d(d.s, d.w, 4, 4, 16, 0))),
        "would write the weight w",
    ),
    "copy and add": (
        lambda d: nn.tnn_realize(d.s, nn.tnn_add(d.s, nn.tnn_cpy(d.s, d.own, d.w), d.m)),
        "would write the weight w",
    ),
    "set rows": (lambda d: nn.tnn_realize(d.s, nn.tnn_set_rows(d.s, d.w, d.own, d.ids)), "would write the weight w"),
    "a cache": (
        lambda d: nn.tnn_realize(d.s, nn.tnn_fused_attention_cached(d.s, d.wide, d.table, d.cache, d.n_past, 2, 2)),
        "would write the weight cache",
    ),
    "a moment of AdamW": (
        lambda d: nn.tnn_realize(d.s, nn.tnn_opt_step_adamw(d.s, d.own, nn.tnn_scale(d.s, d.m, 1.0), d.w, d.v, d.hp)),
        "would write the weight w",
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_nothing_writes_a_mapped_weight(name: str, attached: Session) -> None:
    call, mentions = WRITES[name]
    desk = Weights(attached)
    with pytest.raises(TinyNNValueError, match=mentions):
        call(desk)
    nn.tnn_reset_for_rebuild(attached)
    nn.tnn_realize(attached, nn.tnn_cpy(attached, desk.w, desk.m))
    nn.tnn_compute(attached)


VIEWS: dict[str, Callable[[Session, Tensor], Any]] = {
    "reshape_2d": lambda s, t: nn.tnn_reshape_2d(s, t, 64, 2),
    "reshape_3d": lambda s, t: nn.tnn_reshape_3d(s, t, 32, 2, 2),
    "view_1d": lambda s, t: nn.tnn_view_1d(s, t, 18, 0),
    "view_2d": lambda s, t: nn.tnn_view_2d(s, t, 1, 2, 18, 0),
    "transpose": lambda s, t: nn.tnn_transpose(s, t),
    "add": lambda s, t: nn.tnn_add(s, t, t),
    "cast": lambda s, t: nn.tnn_cast(s, t, nn.TNN_F32),
    "the second operand": lambda s, t: nn.tnn_matmul(s, t, t),
    "set_param": lambda s, t: nn.tnn_set_param(t),
    "upload ints": lambda s, t: nn.tnn_download_to_int_array(s, t),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_quantized_weight_is_refused_by_other_operators(name: str, attached: Session) -> None:
    desk = Weights(attached)
    with pytest.raises(TinyNNTypeError, match=r"q4_0|f32 only"):
        VIEWS[name](attached, desk.q)


def test_a_derivative_of_a_repeated_quantized_weight_is_refused(tmp_path: Path) -> None:
    with mapped(tmp_path / "w", bytes(4096)) as file, Session(n_threads=1) as s:
        nn.tnn_session_attach_weight_mmap(s, file)
        w = nn.tnn_input_2d_persistent_mmap(s, 4, 32, int(GGMLQuantizationType.Q4_0), 0)
        p = nn.tnn_input_3d_f32_persistent(s, 3, 2, 32)
        nn.tnn_set_param(p)
        nn.tnn_finalize_weights(s)
        loss = nn.tnn_sum(s, nn.tnn_matmul(s, w, p))
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        with pytest.raises(TinyNNValueError, match="no derivative for a quantized tensor a that is repeated"):
            nn.tnn_build_backward(s)


def test_a_file_that_changed_before_it_is_attached_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with mapped(path, bytes(4096)) as file, Session(n_threads=1) as s:
        os.truncate(path, 100)
        with pytest.raises(MappedFileError, match=r"w became shorter while its tensors were in use"):
            nn.tnn_session_attach_weight_mmap(s, file)
        with pytest.raises(MappedFileError, match="became shorter"):
            file.read(0, 10)
