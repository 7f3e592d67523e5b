"""GgufBase: models whose frozen weights keep the types of a GGUF file, and are mapped or copied from the file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gguf_bytes import STRING, of_toy, scalar
from oracle.variants import Variant
from quantized import TYPES, quantized_base
from toynn import (
    AdamW,
    FileFormatError,
    LlamaSeqEngine,
    LoRA,
    RecipeOptions,
    RopeScaling,
    SessionError,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn import tinynn as nn
from toynn.errors import MappedFileError
from toynn.interop import GgufBase, export_gguf, export_toy, import_gguf
from toynn.interop.rope_order import to_halves, to_interleaved
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import Weight, weights_of
from tuned_models import BASES, base_of, random_adapters

F32 = npt.NDArray[np.float32]

RANK = 2
# Largest allowed difference from the logits and gradients of the same weights in f32, relative to the largest logit or
# gradient. The results differ, because ggml also rounds the second operand of a product if the matrix has one of these
# types.
CLOSE = {"toy": 2e-6, "f32": 2e-6, "f16": 2e-3, "bf16": 2e-2, "q8_0": 5e-2}
each_format = pytest.mark.parametrize("form", CLOSE)
each_way = pytest.mark.parametrize("way", ["mmap", "q8_copy"])


def variant() -> Variant:
    """Return a base with grouped heads, biases, and rows that are multiples of a block of Q8_0."""
    scaling = RopeScaling.llama3_hf(factor=8.0, low_freq=1.0, high_freq=4.0, orig_max_pos=64)
    cfg = SmolLM2Config(29, 32, 4, 2, 64, 2, 64, 100.0, 1e-5, head_dim=16, rope_scaling=scaling)
    return Variant(cfg, 6, untied=True, qkv_bias=True)


def written(path: Path, form: str) -> tuple[Path, TrainedModel]:
    """Write a base to a file. Return the path, and the model with the values of the file converted to f32."""
    model, _ = base_of(variant())
    if form == "toy":  # files of toy cannot contain llama3_hf scaling
        shape = dataclasses.replace(model.shape, rope_scaling=RopeScaling.llama3(8.0, 1.0, 4.0, 64))
        export_toy(dataclasses.replace(model, shape=shape), path)
    else:
        export_gguf(model, path, form)
    return path, import_gguf(path)


def realize(engine: LlamaSeqEngine, base: GgufBase | TrainedModel, way: str = "mmap", rank: int = 0) -> None:
    if rank:
        engine.enable_lora_q(rank)
        engine.enable_lora_q_adamw()
    call = engine.realize_for_mmap if way == "mmap" else engine.realize_for_q8_copy
    call(base, base.shape, variant().t_seq, True, True, n_threads=1)


def options() -> RecipeOptions:
    return RecipeOptions(t_seq=variant().t_seq, untied=True, qkv_bias=True, n_threads=1, init_scale=0.01)


def step(recipe: LoRA, first: bool = True) -> float:
    one = variant()
    return recipe.step(one.ids(), one.positions(), one.labels(), AdamW(lr=0.01).hp(1), first)


# ---- the values of the file ----


@each_format
@each_way
def test_logits_are_those_of_the_imported_model(tmp_path: Path, form: str, way: str) -> None:
    path, model = written(tmp_path / "base.gguf", form)
    ids = variant().ids()
    with GgufBase(path) as base, LlamaSeqEngine() as engine, LlamaSeqEngine() as imported:
        realize(engine, base, way)
        realize(imported, model, "q8_copy")
        got, want = engine.forward(ids), imported.forward(ids)
        np.testing.assert_allclose(got, want, rtol=0, atol=CLOSE[form] * np.abs(want).max())
        if form not in ("toy", "f32"):
            assert not np.array_equal(got, want)
        interleaved = form != "toy"
        for name in engine.weights:
            stored, value = engine.download_weight(name), imported.download_weight(name)
            rotated = ".attn_q." in name or ".attn_k." in name
            np.testing.assert_array_equal(stored, to_interleaved(value, 1) if interleaved and rotated else value)


@each_format
def test_loss_and_the_gradients_of_adapters_are_those_on_the_imported_model(tmp_path: Path, form: str) -> None:
    path, model = written(tmp_path / "base.gguf", form)
    _, weights = base_of(variant())
    adapters = random_adapters(weights, RANK)
    with GgufBase(path) as base, LoRA(pin=True) as mapped, LoRA(pin=True) as imported:
        mapped.realize(base, base.shape, RANK, options())
        imported.realize(model, model.shape, RANK, options())
        for name, values in adapters.items():
            imported.lora_cache.upload_weight(name, values)
            in_order = to_interleaved(values.astype(np.float32), 1) if form != "toy" and "lora_b" in name else values
            mapped.lora_cache.upload_weight(name, in_order)
        assert step(mapped) == pytest.approx(step(imported), rel=CLOSE[form])
        for name in adapters:
            got, want = mapped.lora_cache.gradient(name), imported.lora_cache.gradient(name)
            got = to_halves(got, 1) if form != "toy" and "lora_b" in name else got
            np.testing.assert_allclose(got, want, rtol=0, atol=5 * CLOSE[form] * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind.name != "F32"], ids=lambda kind: kind.name)
def test_adapters_learn_on_matrices_of_every_type_that_ggml_multiplies(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(quantized_base(kind).build())
    model = import_gguf(path)
    t = 4
    opts = RecipeOptions(t_seq=t, n_threads=1, init_scale=0.05, seed=3)
    labels = np.eye(model.shape.vocab, dtype=np.float32)[[1, 2, 3, 0]]

    def gradient_of_b(base: GgufBase | TrainedModel) -> npt.NDArray[np.float64]:
        with LoRA(pin=True) as recipe:
            recipe.realize(base, model.shape, RANK, opts)
            engine, is_file = recipe.lora_cache, isinstance(base, GgufBase)
            types = {nn.tnn_tensor_dtype(one) for one in engine.weights.values()}
            assert types == ({nn.TNN_F32, int(kind)} if is_file else {nn.TNN_F32})
            recipe.step(range(t), range(t), labels, AdamW(lr=0.01).hp(1), True)
            heads = [engine.gradient(name) for name in engine.param_names() if "lora_b" in name]
            return np.concatenate([to_halves(one, 1) if is_file else one for one in heads]).ravel().astype(np.float64)

    with GgufBase(path) as file:
        mapped, imported = gradient_of_b(file), gradient_of_b(model)
    assert np.linalg.norm(imported) > 0
    assert (
        mapped @ imported / (np.linalg.norm(mapped) * np.linalg.norm(imported)) > 0.9
    )  # with wrong signs or a wrong order of the rows, the cosine would be about 0


# ---- full fine-tuning of a file ----


@pytest.mark.parametrize("form", ["toy", "q8_0"])
@pytest.mark.parametrize("layout", ["per_head", "fused"])
def test_full_fine_tuning_starts_from_the_values_of_the_file_in_halves(tmp_path: Path, form: str, layout: str) -> None:
    path, model = written(tmp_path / "base.gguf", form)
    one, logits = variant(), []
    with GgufBase(path) as base:
        for source in (base, model):
            with LlamaSeqEngine() as engine:
                engine.enable_full_finetune()
                engine.realize_for_full_finetune(
                    source, base.shape, one.t_seq, True, True, n_threads=1, layout=layout
                )  # fmt: skip
                logits.append(engine.forward(one.ids()))
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.parametrize("by_head", [False, True])
def test_files_of_toy_with_one_tensor_for_each_head_are_bases_too(tmp_path: Path, by_head: bool) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(of_toy(by_head=by_head).build())
    model, ids = import_gguf(path), [0, 1, 2, 3]
    logits = []
    with GgufBase(path) as base:
        assert base.shape == model.shape
        for source, way in ((base, "mmap"), (base, "q8_copy"), (model, "q8_copy"), (base, "full"), (base, "fused")):
            with LlamaSeqEngine() as engine:
                engine_of(engine, source, way, len(ids))
                logits.append(engine.forward(ids))
    for other in logits[1:4]:
        np.testing.assert_array_equal(logits[0], other)
    np.testing.assert_allclose(logits[4], logits[0], rtol=0, atol=1e-6)


def engine_of(engine: LlamaSeqEngine, source: GgufBase | TrainedModel, way: str, t_seq: int) -> None:
    shape = source.shape
    if way in ("full", "fused"):
        engine.enable_full_finetune()
        layout = "per_head" if way == "full" else "fused"
        engine.realize_for_full_finetune(
            source, shape, t_seq, shape.untied, shape.qkv_bias, n_threads=1, layout=layout
        )  # fmt: skip
    else:
        call = engine.realize_for_mmap if way == "mmap" else engine.realize_for_q8_copy
        call(source, shape, t_seq, shape.untied, shape.qkv_bias, n_threads=1)


# ---- mapped or copied ----


def test_mapped_weights_take_no_memory_of_the_session(tmp_path: Path) -> None:
    path, model = written(tmp_path / "base.gguf", "q8_0")
    with GgufBase(path) as base, LlamaSeqEngine() as mapped, LlamaSeqEngine() as imported:
        realize(mapped, base)
        realize(imported, model, "q8_copy")
        own = nn.tnn_session_weights_nbytes(mapped.sess)
        assert own < nn.tnn_session_weights_nbytes(imported.sess) // 10


@each_format
def test_a_copy_gives_the_bits_of_the_mapped_file(tmp_path: Path, form: str) -> None:
    path, _ = written(tmp_path / "base.gguf", form)
    results = []
    with GgufBase(path) as base:
        for way in ("mmap", "q8_copy"):
            with LlamaSeqEngine() as engine:
                realize(engine, base, way, RANK)
                engine.upload_lora_q_init(5, 0.1)
                engine.build_training_step()
                one = variant()
                losses = [
                    engine.train_step(one.ids(), one.labels(), AdamW(lr=0.01).hp(1), reset_moments=i == 0)[0]
                    for i in range(3)
                ]
                results.append((losses, [engine.download_weight(name).tobytes() for name in engine.param_names()]))
    assert results[0] == results[1]


def test_training_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "base.gguf", "q8_0")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with GgufBase(path) as base, LoRA() as recipe:
        recipe.realize(base, base.shape, RANK, options())
        assert all("lora" in name for name in recipe.lora_cache.param_names())
        losses = [step(recipe, first=i == 0) for i in range(4)]
        assert losses[3] < losses[0]
        with pytest.raises((SessionError, TinyNNValueError, TinyNNTypeError)):
            recipe.lora_cache.upload_weight("output_norm.weight", np.ones(32))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_file_that_becomes_shorter_during_training_is_an_exception_and_a_copy_goes_on(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "base.gguf", "f32")
    with GgufBase(path) as base, LoRA() as mapped, LlamaSeqEngine() as copied:
        mapped.realize(base, base.shape, RANK, options())
        realize(copied, base, "q8_copy")
        step(mapped)
        logits = copied.forward(variant().ids())
        os.truncate(path, 4096)
        with pytest.raises(MappedFileError, match="became shorter"):
            step(mapped, first=False)
        np.testing.assert_array_equal(copied.forward(variant().ids()), logits)
        with pytest.raises((MappedFileError, FileFormatError)), LoRA() as another:
            another.realize(base, base.shape, RANK, options())


def test_a_model_keeps_its_file_after_the_base_is_closed(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "base.gguf", "f16")
    with LoRA() as recipe:
        with GgufBase(path) as base:
            recipe.realize(base, base.shape, RANK, options())
        path.unlink()
        assert step(recipe) > 0
    base.close()


@pytest.mark.parametrize("layout", ["per_head", "fused"])
def test_full_fine_tuning_refuses_a_file_that_was_changed_after_it_was_opened(tmp_path: Path, layout: str) -> None:
    path, _ = written(tmp_path / "base.gguf", "f32")
    content = path.read_bytes()
    with GgufBase(path) as base, LlamaSeqEngine() as engine:
        path.write_bytes(content[64:] + content[:64])  # moves all tensors, and keeps the size of the file
        os.utime(path, ns=(0, 0))  # changes the modification time too
        engine.enable_full_finetune()
        with pytest.raises(MappedFileError, match=r"base\.gguf was changed"):
            engine.realize_for_full_finetune(base, base.shape, 6, True, True, layout=layout)
        assert not engine.realized


def test_threads_can_read_a_base_at_the_same_time(tmp_path: Path) -> None:
    """Python reads each tensor in several pieces, so pieces would be mixed up if threads shared the file's position."""
    one = variant()
    model, _ = base_of(dataclasses.replace(one, cfg=dataclasses.replace(one.cfg, d_ff=1024)))
    export_gguf(model, tmp_path / "base.gguf", "f32")
    weights = [weight for weight in weights_of(model.shape) if ".ffn_" in weight.name]

    def n_wrong(base: GgufBase, weight: Weight) -> int:
        values = model.weights[weight.name].tobytes()
        return sum(base.values(weight).tobytes() != values for _ in range(100))

    with GgufBase(tmp_path / "base.gguf") as base, ThreadPoolExecutor(len(weights)) as threads:
        assert sum(threads.map(lambda weight: n_wrong(base, weight), weights)) == 0


def test_vectors_in_another_type_than_f32_are_copied_as_f32(tmp_path: Path) -> None:
    path, file = tmp_path / "base.gguf", quantized_base(TYPES[1])  # F16
    half = np.linspace(0.5, 1.5, 256).astype("<f2")
    path.write_bytes(file.with_tensor("output_norm.weight", [256], 1, None, half.tobytes()).build())
    with GgufBase(path) as base, LlamaSeqEngine() as engine:
        engine.realize_for_mmap(base, base.shape, 4, False, False, n_threads=1)
        np.testing.assert_array_equal(engine.download_weight("output_norm.weight"), half.astype(np.float32))
        assert nn.tnn_tensor_dtype(engine.weights["output_norm.weight"]) == nn.TNN_F32
        assert np.isfinite(engine.forward(range(4))).all()


# ---- refused files and calls ----


@pytest.fixture
def base(tmp_path: Path) -> Iterator[GgufBase]:
    path, _ = written(tmp_path / "base.gguf", "f32")
    with GgufBase(path) as base:
        yield base


def test_a_model_in_memory_cannot_be_mapped(base: GgufBase) -> None:
    model, _ = base_of(variant())
    with LlamaSeqEngine() as engine, pytest.raises(TinyNNTypeError, match="realize_for_mmap maps a file, got TrainedM"):
        realize(engine, model, "mmap")


def test_a_mapped_base_cannot_be_trained(base: GgufBase) -> None:
    with LlamaSeqEngine() as engine:
        engine.enable_full_finetune()
        with pytest.raises(SessionError, match="realize_for_mmap freezes the base"):
            realize(engine, base)


def test_a_closed_base_is_refused(base: GgufBase) -> None:
    base.close()
    for way in ("mmap", "q8_copy"):
        with LlamaSeqEngine() as engine, pytest.raises((SessionError, TinyNNValueError)):
            realize(engine, base, way)


def test_a_file_of_another_architecture_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(quantized_base(TYPES[0]).set("general.architecture", scalar(STRING, "gpt2")).build())
    with pytest.raises(FileFormatError, match=r"other\.gguf: general\.architecture is 'gpt2'"):
        GgufBase(path)
    with pytest.raises(OSError):
        GgufBase(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("name", list(BASES))
def test_another_base_is_refused(base: GgufBase, name: str) -> None:
    model, _ = base_of(BASES[name])
    with LlamaSeqEngine() as engine, pytest.raises(TinyNNValueError, match="as in the base"):
        engine.realize_for_mmap(base, model.shape, 4, model.shape.untied, model.shape.qkv_bias)
