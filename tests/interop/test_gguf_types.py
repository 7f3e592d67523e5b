"""GGUF files with tensors of every type, split files, and tensors that are mapped instead of read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from gguf_bytes import STRING, U16, U32, GgufBytes, scalar, tiny
from quantized import TYPES, Bytes, Values, random_blocks, random_bytes, values_of
from toynn import (
    AdamW,
    LlamaSeqEngine,
    MappedFileError,
    RecipeOptions,
    Session,
    SessionError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn import tinynn as nn
from toynn.errors import FileFormatError
from toynn.interop import GgufBase, import_gguf
from toynn.interop.gguf_model import GgufModel, MappedGguf
from toynn.interop.rope_order import to_halves
from toynn.llm.adapters.spec import AdapterSpec

D, HEADS, VOCAB = 256, 2, 6  # a row is one block of the largest block size
BY_NAME = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.name))
F32 = GGMLQuantizationType.F32


def model_of(path: Path, kind: GGMLQuantizationType, split_max_tensors: int = 0) -> dict[str, Values]:
    """Write a llama model whose matrices are stored in this type, and return the values of all tensors."""
    writer = GGUFWriter(path, "llama", split_max_tensors=split_max_tensors)
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(D)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    values: dict[str, Values] = {}
    matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    sizes = {"token_embd.weight": VOCAB, **{f"blk.0.{part}.weight": D for part in matrices}}
    for i, (name, rows) in enumerate(sizes.items()):
        stored, values[name] = random_blocks(kind, rows, seed=i, cols=D)
        add(writer, name, stored, kind, values[name])
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        values[name] = np.linspace(0.5, 1.5, D, dtype=np.float32)
        writer.add_tensor(name, values[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def add(writer: GGUFWriter, name: str, stored: Bytes, kind: GGMLQuantizationType, values: Values) -> None:
    if kind == F32:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, stored, raw_dtype=kind)


@BY_NAME
def test_a_model_of_any_type_is_imported_with_the_values_of_the_gguf_package(
    kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    values = model_of(tmp_path / "m.gguf", kind)
    weights = import_gguf(tmp_path / "m.gguf").weights
    assert weights.keys() == values.keys()
    for name, want in values.items():
        rotated = name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight")
        assert weights[name].tobytes() == (to_halves(want, HEADS) if rotated else want).tobytes(), name


@BY_NAME
def test_every_block_is_read_bit_for_bit_also_those_with_nan_scales(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    stored = random_bytes(kind, 200, seed=int(kind), cols=D)
    content = GgufBytes([("general.architecture", scalar(STRING, "llama"))])
    content = content.with_tensor("w", [D, 200], int(kind), None, stored.tobytes())
    (tmp_path / "m.gguf").write_bytes(content.build())
    with GgufModel(tmp_path / "m.gguf") as model:
        got = model.read("w")
    want = values_of(kind, stored)
    assert got.shape == (200, D)
    assert got.tobytes() == np.where(np.isnan(want), np.float32(np.nan), want).tobytes()


def test_some_types_have_blocks_whose_values_are_not_finite() -> None:
    """Another test in this file needs such blocks, because it compares values that are not finite."""
    kinds = [kind for kind in TYPES if not np.isfinite(values_of(kind, random_bytes(kind, 200, seed=int(kind)))).all()]
    assert {kind.name for kind in kinds} >= {"F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ2_XXS", "TQ1_0"}


def test_a_block_with_a_nan_scale_is_refused_by_an_import(tmp_path: Path) -> None:
    embedding = random_blocks(GGMLQuantizationType.Q4_K, 1, seed=0, cols=D)[0]
    embedding[0, :2] = 0xFF  # the scale d of the only block
    model_of(tmp_path / "m.gguf", GGMLQuantizationType.Q4_K)
    content = (tmp_path / "m.gguf").read_bytes()
    first = random_blocks(GGMLQuantizationType.Q4_K, VOCAB, seed=0, cols=D)[0][:1].tobytes()
    assert first in content
    (tmp_path / "m.gguf").write_bytes(content.replace(first, embedding.tobytes(), 1))
    with pytest.raises(TinyNNValueError, match=r"token_embd\.weight.*got nan"):
        import_gguf(tmp_path / "m.gguf")


# ---- split models ----


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of three files of a model in Q8_0. Tests must not change the files: they copy them."""
    folder = tmp_path_factory.mktemp("parts")
    model_of(folder / "whole.gguf", GGMLQuantizationType.Q8_0)
    model_of(folder / "m.gguf", GGMLQuantizationType.Q8_0, split_max_tensors=4)
    return folder / "m-00001-of-00003.gguf"


def test_a_split_model_is_imported_by_its_first_file(parts: Path) -> None:
    whole, split = import_gguf(parts.with_name("whole.gguf")), import_gguf(parts)
    assert split.shape == whole.shape
    assert {name: w.tobytes() for name, w in split.weights.items()} == {
        name: w.tobytes() for name, w in whole.weights.items()
    }
    with GgufModel(parts) as model:
        assert {tensor.part for tensor in model.tensors.values()} == {0, 1, 2}


def part(number: int) -> str:
    return f"m-{number:05}-of-00003.gguf"


def changed(path: Path, old: bytes, new: bytes) -> int:
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    return path.write_bytes(content.replace(old, new))


def value(key: str, of: bytes) -> bytes:
    return len(key).to_bytes(8, "little") + key.encode() + of


REFUSED_PARTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "another file than the first": (lambda p: None, part(2), rf"not the first file of the model; open {part(1)}"),
    "a missing file": (lambda p: (p / part(2)).unlink(), part(1), f"split into 3 files, but {part(2)} is missing"),
    "a renamed file": (
        lambda p: (p / part(1)).rename(p / "model.gguf"),
        "model.gguf",
        r"split into 3 files; they must be named NAME-00001-of-00003\.gguf",
    ),
    "two files exchanged": (
        lambda p: ((p / part(2)).rename(p / "x"), (p / part(3)).rename(p / part(2)), (p / "x").rename(p / part(3))),
        part(1),
        rf"{part(2)}: split.no must be 1 in this file, got 2",
    ),
    "a file twice": (
        lambda p: (
            shutil.copyfile(p / part(2), p / part(3)),
            changed(p / part(3), value("split.no", scalar(U16, 1)), value("split.no", scalar(U16, 2))),
        ),
        part(1),
        rf"{part(3)}: the tensor '.*' is also in another file of the model",
    ),
    "another number of files": (
        lambda p: changed(p / part(2), value("split.count", scalar(U16, 3)), value("split.count", scalar(U16, 4))),
        part(1),
        rf"{part(2)}: split.count is 4, but in .*{part(1)} it is 3",
    ),
    "a truncated file": (lambda p: os.truncate(p / part(3), 200), part(1), rf"{part(3)}: the file is cut off or damag"),
}


@pytest.mark.parametrize("name", REFUSED_PARTS)
def test_an_incomplete_or_mixed_split_model_is_refused(name: str, parts: Path, tmp_path: Path) -> None:
    change, opened, mentions = REFUSED_PARTS[name]
    for i in (1, 2, 3):
        shutil.copyfile(parts.with_name(part(i)), tmp_path / part(i))
    change(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileFormatError, match=mentions):
        import_gguf(tmp_path / opened)
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "every file is closed again"


def test_the_files_of_a_split_model_have_all_its_tensors(tmp_path: Path) -> None:
    def content(number: int, tensors: int) -> bytes:
        good = tiny().set("split.no", scalar(U16, number)).set("split.count", scalar(U16, 2))
        good = good.set("split.tensors.count", scalar(U32, 12))
        good.tensors = good.tensors[:6] if number == 0 else good.tensors[6 : 6 + tensors]
        return good.build()

    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    first.write_bytes(content(0, 6))
    second.write_bytes(content(1, 5))
    with pytest.raises(FileFormatError, match=r"split\.tensors\.count is 12, but the 2 files have 11 tensors"):
        import_gguf(first)
    for count in (1000, 2**15):
        first.write_bytes(tiny().set("split.count", scalar(U16, count)).build())
        with pytest.raises(FileFormatError, match=f"split.count is {count}, but at most 999 files are supported"):
            import_gguf(first)


# ---- mapped models ----


@pytest.mark.parametrize("name", ["F32", "F16", "Q4_1", "Q8_0", "Q4_K", "IQ2_XXS"])
def test_rows_and_whole_tensors_are_weights_without_a_copy(name: str, tmp_path: Path) -> None:
    values = model_of(tmp_path / "m.gguf", GGMLQuantizationType[name])
    half = D // HEADS
    with Session(n_threads=1) as s:
        with MappedGguf(tmp_path / "m.gguf") as gguf:
            assert gguf.values.whole("llama.embedding_length") == D
            q = [gguf.rows(s, "blk.0.attn_q.weight", head * half, half) for head in range(HEADS)]
            norm, part_of_norm = gguf.whole(s, "output_norm.weight"), gguf.rows(s, "output_norm.weight", 5, 7)
            table = gguf.whole(s, "token_embd.weight")
            assert gguf.read("token_embd.weight").tobytes() == values["token_embd.weight"].tobytes()
            nn.tnn_finalize_weights(s)
        assert nn.tnn_session_weights_nbytes(s) == 0
        assert [w.ne for w in (*q, norm, part_of_norm, table)] == [
            (D, half, 1, 1), (D, half, 1, 1), (D, 1, 1, 1), (7, 1, 1, 1), (D, VOCAB, 1, 1)
        ]  # fmt: skip
        for head, w in enumerate(q):
            want = values["blk.0.attn_q.weight"][head * half : (head + 1) * half]
            assert nn.download_row_major(s, w, half, D).tobytes() == want.tobytes()
        assert nn.tnn_download(s, norm).tobytes() == values["output_norm.weight"].tobytes()
        assert nn.tnn_download(s, part_of_norm).tobytes() == values["output_norm.weight"][5:12].tobytes()
        assert nn.download_row_major(s, table, VOCAB, D).tobytes() == values["token_embd.weight"].tobytes()


def test_tensors_of_a_split_model_are_mapped_from_their_files(parts: Path) -> None:
    with MappedGguf(parts) as gguf, Session(n_threads=1) as s:
        weights = {name: gguf.whole(s, name) for name in gguf.tensors}
        nn.tnn_finalize_weights(s)
        for name, w in weights.items():
            assert nn.tnn_download(s, w).tobytes() == gguf.read(name).tobytes(), name


def test_an_adapter_on_a_split_model_has_the_bits_of_an_adapter_on_the_whole_model(parts: Path) -> None:
    found = []
    for path in (parts, parts.with_name("whole.gguf")):
        with GgufBase(path) as base, LlamaSeqEngine() as engine:
            spec = AdapterSpec(2, 4.0, False, ("q", "v", "down"))
            engine.realize_with_adapter(base, spec, RecipeOptions(4, n_threads=1, layout="fused"))
            engine.build_training_step()
            losses = [engine.train_step([0, 3, 1, 5], [3, 1, 5, 2], AdamW(lr=0.01).hp(n))[0] for n in (1, 2)]
            found.append((losses, {name: engine.download_weight(name).tobytes() for name in engine.param_names()}))
    assert found[0] == found[1]
    assert found[0][0][0] != found[0][0][1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_sha256_of_a_split_model_covers_all_its_files(number: int, parts: Path, tmp_path: Path) -> None:
    for file in parts.parent.glob("m-*"):
        shutil.copy(file, tmp_path)
    with GgufBase(parts) as base, GgufBase(tmp_path / part(1)) as copy:
        assert copy.sha256() == base.sha256()
    path = tmp_path / part(number)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with GgufBase(parts) as base, GgufBase(tmp_path / part(1)) as changed_base:
        assert changed_base.sha256() != base.sha256()


def test_rows_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    cube = tiny().with_tensor("cube", [4, 2, 3], 0, None, bytes(96)).with_tensor("four", [1] * 4, 0, None, bytes(4))
    path.write_bytes(cube.with_tensor("blocks", [64], 8, None, bytes(68)).build())
    with MappedGguf(path) as gguf, Session(n_threads=1) as s:
        for first, n, mentions in (
            (-1, 1, "first must be"),
            (6, 1, "first must be an integer from 0 to 5"),
            (0, 0, "n must be"),
            (3, 4, r"first \+ n must be at most 6 \(the number of rows of 'token_embd.weight'\), got 3 \+ 4"),
        ):
            with pytest.raises(TinyNNValueError, match=mentions):
                gguf.rows(s, "token_embd.weight", first, n)
        with pytest.raises(TinyNNValueError, match="must be multiples of 32, the block size of 'blocks'"):
            gguf.rows(s, "blocks", 16, 32)
        assert gguf.rows(s, "blocks", 32, 32).ne[0] == 32
        with pytest.raises(TinyNNValueError, match="one or two dimensions"):
            gguf.rows(s, "cube", 0, 1)
        with pytest.raises(TinyNNValueError, match=r"must have at most 3 dimensions, got shape \(1, 1, 1, 1\)"):
            gguf.whole(s, "four")
        assert gguf.whole(s, "cube").ne == (4, 2, 3, 1)
        with pytest.raises(TinyNNValueError, match=r"name must be the name of a tensor in .*, got 'other'"):
            gguf.whole(s, "other")
        with pytest.raises(TinyNNTypeError, match="name must be a str"):
            gguf.read(3)  # type: ignore[arg-type]
        nn.tnn_finalize_weights(s)
        with pytest.raises(SessionError, match="before tnn_finalize_weights"):
            gguf.whole(s, "token_embd.weight")


def test_a_mapped_model_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny().with_tensor("large", [65536], 0, None, bytes(4 * 65536)).build())
    with MappedGguf(path) as gguf, Session(n_threads=1) as s:
        os.truncate(path, 100)
        with pytest.raises(MappedFileError, match=r"m\.gguf became shorter"):
            gguf.whole(s, "token_embd.weight")
        with pytest.raises(FileFormatError, match=r"the file m\.gguf became shorter while it was read; try again"):
            gguf.read("large")
