"""WarmStart: the donor's embedding, a start without a donor, training with a projection lens, and refused donors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gguf_bytes import STRING, U32, GgufBytes, scalar, tiny
from oracle.params import random_weights
from oracle.variants import VARIANTS, Variant
from quantized import TYPES, random_blocks
from small_models import random_model
from toynn import (
    AdamW,
    FileFormatError,
    FromScratch,
    LlamaSeqEngine,
    RecipeOptions,
    SessionError,
    TinyNNTypeError,
    TinyNNValueError,
    WarmStart,
)
from toynn.interop import export_gguf, import_gguf
from toynn.model.shape import ModelShape

LENS = VARIANTS["projection lens"]  # this variant has vocab 23 and donor_d_in 15


def options(variant: Variant = LENS) -> RecipeOptions:
    return RecipeOptions(**variant.options, n_threads=1, seed=4)


def steps(recipe: WarmStart | FromScratch, n: int = 3) -> list[float]:
    adamw = AdamW(lr=0.01)
    return [recipe.step(LENS.ids(), LENS.positions(), LENS.labels(), adamw.hp(i + 1), i == 0) for i in range(n)]


def donor(path: Path, vocab: int = 30, width: int = 16, form: str = "f32") -> Path:
    """Write a GGUF file with a random model of this vocabulary and width."""
    shape = ModelShape(vocab, width, 2, 2, 8, 1, 16, 10000.0, 1e-5)
    export_gguf(random_model(shape, seed=2, tokenizer=None), path, form)
    return path


def embedding_of(path: Path) -> npt.NDArray[np.float32]:
    return import_gguf(path).weights["token_embd.weight"]


@pytest.fixture
def recipe() -> Iterator[WarmStart]:
    with WarmStart() as recipe:
        yield recipe


@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "q8_0"])
def test_the_first_rows_of_the_donor_become_the_frozen_embedding(recipe: WarmStart, tmp_path: Path, form: str) -> None:
    path = donor(tmp_path / "donor.gguf", width=32, form=form)
    cfg = dataclasses.replace(LENS.cfg, donor_d_in=WarmStart.donor_embed_width(path))
    assert cfg.donor_d_in == 32
    recipe.realize_scratch(cfg, options())
    lens = recipe.ws_cache.download_weight("lens.proj.weight")
    recipe.realize_warm(path, cfg)
    recipe.build()
    want = embedding_of(path)[:23]
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("token_embd.weight"), want)
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("lens.proj.weight"), lens)
    losses = steps(recipe)
    assert losses[2] < losses[0]
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("token_embd.weight"), want)
    assert not np.array_equal(recipe.ws_cache.download_weight("lens.proj.weight"), lens)


def test_without_a_donor_the_recipe_trains_as_from_scratch(recipe: WarmStart) -> None:
    recipe.realize_scratch(LENS.cfg, options())
    recipe.build()
    with FromScratch() as scratch:
        scratch.realize(LENS.cfg, options())
        assert steps(recipe, 4) == steps(scratch, 4)
        for name in scratch.fs_cache.weights:
            ours, theirs = recipe.ws_cache.download_weight(name), scratch.fs_cache.download_weight(name)
            assert ours.tobytes() == theirs.tobytes()


def test_gradients_and_three_steps_agree_with_the_float64_oracle(tmp_path: Path) -> None:
    llama = pytest.importorskip("oracle.llama")
    path = donor(tmp_path / "donor.gguf")
    cfg = dataclasses.replace(LENS.cfg, donor_d_in=16)
    weights = random_weights(cfg, untied=True, qkv_bias=False, seed=5)
    weights["token_embd.weight"] = embedding_of(path)[:23].astype(np.float64)
    args = (cfg, weights, LENS.ids(), LENS.positions(), LENS.labels())
    first = llama.loss_and_grads(*args, LENS.t_seq, 1)
    adamw = AdamW(lr=0.01)
    want = llama.adamw_steps(*args, [adamw.hp(i) for i in (1, 2, 3)], LENS.t_seq, 1)
    with WarmStart(pin=True) as recipe:
        recipe.realize_scratch(cfg, options())
        for name, values in weights.items():
            if name != "token_embd.weight":
                recipe.ws_cache.upload_weight(name, values)
        recipe.realize_warm(path, cfg)
        recipe.build()
        losses = steps(recipe, 1)
        for name, grad in first.grads.items():
            got = recipe.ws_cache.gradient(name)
            np.testing.assert_allclose(got, grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name)
        for i in (2, 3):
            losses.append(recipe.step(LENS.ids(), LENS.positions(), LENS.labels(), adamw.hp(i), False))
        np.testing.assert_allclose(losses, want.losses, rtol=5e-6)


def test_attributes_are_none_before_build_and_calls_have_an_order(recipe: WarmStart, tmp_path: Path) -> None:
    assert (recipe.ws_t_loss, recipe.ws_t_labels, recipe.ws_t_hp, recipe.ws_step_index) == (None, None, None, 0)
    with pytest.raises(SessionError, match=r"call realize_scratch\(cfg, opts\)"):
        recipe.realize_warm(donor(tmp_path / "donor.gguf"), LENS.cfg)
    with pytest.raises(SessionError, match="realize"):
        recipe.build()
    recipe.realize_scratch(LENS.cfg, options())
    assert recipe.ws_t_loss is None
    with pytest.raises(SessionError, match=r"realize_scratch\(cfg, opts\) and build\(\)"):
        steps(recipe)
    recipe.build()
    assert recipe.ws_t_loss is not None and recipe.ws_t_loss.ne == (1, 1, 1, 1)
    assert recipe.ws_t_labels is not None and recipe.ws_t_labels.ne == (23, 7, 1, 1)
    assert recipe.ws_t_hp is not None and recipe.ws_t_hp.ne == (7, 1, 1, 1)
    with pytest.raises(SessionError, match="already realized"):
        recipe.realize_scratch(LENS.cfg, options())


def test_a_lens_of_the_caller_can_be_uploaded(recipe: WarmStart) -> None:
    from toynn import tinynn as nn

    recipe.realize_scratch(LENS.cfg, options())
    lens = recipe.ws_cache.t_seq_w_proj
    assert lens is not None
    values = np.linspace(-1, 1, 12 * 15, dtype=np.float32).reshape(12, 15)
    nn.upload_row_major(recipe.ws_cache.sess, lens, values)
    recipe.build()
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("lens.proj.weight"), values)


# ---- refused donors ----


@pytest.mark.parametrize("width", [12, 16])
def test_a_donor_of_another_width_is_refused_with_both_numbers(recipe: WarmStart, tmp_path: Path, width: int) -> None:
    path = donor(tmp_path / "donor.gguf", width=width)
    recipe.realize_scratch(LENS.cfg, options())
    before = recipe.ws_cache.download_weight("token_embd.weight")
    with pytest.raises(TinyNNValueError, match=rf"donor\.gguf must have an embedding of width 15, got {width}"):
        recipe.realize_warm(path, LENS.cfg)
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("token_embd.weight"), before)


def test_a_donor_narrower_than_its_header_says_is_refused(recipe: WarmStart, tmp_path: Path) -> None:
    path = tmp_path / "donor.gguf"
    path.write_bytes(tiny().set("llama.embedding_length", scalar(U32, 15)).build())
    recipe.realize_scratch(LENS.cfg, options())
    with pytest.raises(FileFormatError, match=r"must have rows of llama\.embedding_length = 15, got \(6, 4\)"):
        recipe.realize_warm(path, LENS.cfg)


def test_a_donor_with_too_few_rows_is_refused(recipe: WarmStart, tmp_path: Path) -> None:
    cfg = dataclasses.replace(LENS.cfg, donor_d_in=16)
    recipe.realize_scratch(cfg, options())
    with pytest.raises(FileFormatError, match=r"must have at least cfg\.vocab = 23 rows, got 22"):
        recipe.realize_warm(donor(tmp_path / "donor.gguf", vocab=22), cfg)


def test_a_donor_for_a_model_without_a_lens_is_refused(recipe: WarmStart, tmp_path: Path) -> None:
    cfg = dataclasses.replace(LENS.cfg, donor_d_in=0)
    recipe.realize_scratch(cfg, options())
    with pytest.raises(SessionError, match=r"no projection lens: set cfg\.donor_d_in before"):
        recipe.realize_warm(donor(tmp_path / "donor.gguf"), cfg)


def test_another_cfg_than_that_of_the_model_is_refused(recipe: WarmStart, tmp_path: Path) -> None:
    path = donor(tmp_path / "donor.gguf")
    recipe.realize_scratch(LENS.cfg, options())
    with pytest.raises(TinyNNValueError, match=r"cfg\.donor_d_in must be 15, as in realize_scratch, got 16"):
        recipe.realize_warm(path, dataclasses.replace(LENS.cfg, donor_d_in=16))
    with pytest.raises(TinyNNTypeError, match="cfg must be"):
        recipe.realize_warm(path, 5)  # type: ignore[arg-type]


def test_files_without_a_width_are_refused_by_their_name(tmp_path: Path) -> None:
    path = tmp_path / "donor.gguf"
    with pytest.raises(FileNotFoundError):
        WarmStart.donor_embed_width(path)
    for content, says in (
        (b"a text, and no model", "not a GGUF file"),
        (tiny().set("llama.embedding_length", None).build(), r"the key llama\.embedding_length is missing"),
        (tiny().set("llama.embedding_length", scalar(U32, 0)).build(), "must be a positive integer, got 0"),
        (tiny().set("llama.embedding_length", scalar(STRING, "128")).build(), "must be one integer"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=rf"donor\.gguf: .*{says}"):
            WarmStart.donor_embed_width(path)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_a_donor_of_every_type_is_dequantized(recipe: WarmStart, tmp_path: Path, kind: Any) -> None:
    stored, values = random_blocks(kind, 30, 7, 256)
    file = GgufBytes()
    file.values.append(("general.architecture", scalar(STRING, "other")))  # only the embedding and its width are read
    file.values.append(("llama.embedding_length", scalar(U32, 256)))
    file.tensors.append(("token_embd.weight", [256, 30], int(kind), None, stored.tobytes()))
    file.tensors.append(("output_norm.weight", [2], 0, None, b"\0" * 8))
    path = tmp_path / "donor.gguf"
    path.write_bytes(file.build())
    cfg = dataclasses.replace(LENS.cfg, donor_d_in=256)
    recipe.realize_scratch(cfg, options())
    recipe.realize_warm(path, cfg)
    np.testing.assert_array_equal(recipe.ws_cache.download_weight("token_embd.weight"), values[:23])


# ---- upload_donor ----


def test_upload_donor_checks_its_arguments() -> None:
    with LlamaSeqEngine() as engine:
        engine.realize(LENS.cfg, options())
        buf = np.linspace(-1, 1, 23 * 15, dtype=np.float32)
        engine.upload_donor(buf, 23 * 15)
        np.testing.assert_array_equal(engine.download_weight("token_embd.weight").ravel(), buf)
        for given, n, says in (
            (buf, 344, r"n must be vocab \* donor_d_in = 23 \* 15 = 345, got 344"),
            (buf[:-1], 345, "buf must have n = 345 numbers, got 344"),
            (np.full(345, np.nan), 345, "finite"),
        ):
            with pytest.raises(TinyNNValueError, match=says):
                engine.upload_donor(given, n)
    with LlamaSeqEngine() as engine:
        engine.realize(VARIANTS["tied"].cfg, options(VARIANTS["tied"]))
        with pytest.raises(SessionError, match="no projection lens"):
            engine.upload_donor(buf, 345)
