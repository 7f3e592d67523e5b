"""The common interface of both layouts, and functions that the Ruby project toy has too, for the per_head layout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from engines import realize, realized
from fused_engines import HP, all_weights, engine, targets
from oracle.variants import VARIANTS
from toynn import LlamaSeqEngine, RecipeOptions, TinyNNTypeError, TinyNNValueError
from toynn.llm.archs import LlamaArch
from toynn.llm.blocks import TransformerBlock
from toynn.llm.layouts import BY_NAME
from toynn.llm.options import LAYOUTS
from toynn.llm.parameters import Parameters
from toynn.llm.primitives import GqaWeights, Rope, gqa, rms_norm, rope, swiglu
from toynn.model.init_streams import make_stream
from toynn.model.shape import ModelShape
from toynn.model.spread import Spread
from toynn.model.weights import GLOBAL_ROWS, LAYER_ROWS, weights_by_head_of
from toynn.tinynn import (
    Session,
    Tensor,
    download_row_major,
    tnn_compute,
    tnn_finalize_weights,
    tnn_input_1d_i32_persistent,
    tnn_input_2d_f32_persistent,
    tnn_realize,
    upload_int_array,
    upload_row_major,
)

SRC = Path(toynn.__file__).parent


def test_each_layout_of_the_options_is_an_object() -> None:
    assert tuple(BY_NAME) == LAYOUTS


def test_a_weight_name_is_spelled_in_one_module() -> None:
    stems = {row.name.rsplit(".", 1)[0] for row in (*GLOBAL_ROWS, *LAYER_ROWS)} - {"output"}
    spelled = re.compile(rf"(?:[\"']|[0-9}}]\.)(?:{'|'.join(map(re.escape, stems))})\.(?:weight|bias|head_)")
    found = {path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py") if spelled.search(path.read_text("utf-8"))}
    assert found == {"model/weights.py"}


def test_per_head_takes_targets_as_it_takes_their_one_hot_labels() -> None:
    variant = VARIANTS["gqa"]
    ids, hp = variant.ids(), HP.hp(1)
    results = []
    for fed in (targets(variant), variant.labels()):
        with engine(variant, "per_head") as e:
            results.append((e.train_step(ids, fed, hp, reset_moments=True), all_weights(e)))
    assert results[0] == results[1]
    assert results[0][0][1] is None, "per_head computes no norm"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mean_loss_is_that_of_a_step(layout: str) -> None:
    variant = VARIANTS["gqa"]
    with engine(variant, layout) as e:
        loss = e.train_step(variant.ids(), targets(variant), HP.hp(1))[0]
    with engine(variant, layout) as e:
        assert e.mean_loss(variant.ids(), targets(variant)) == loss


def test_a_position_without_a_target_counts_in_per_head_only() -> None:
    variant = VARIANTS["gqa"]
    wanted = targets(variant)
    wanted[0] = -1
    losses = {}
    for layout in LAYOUTS:
        with engine(variant, layout) as e:
            losses[layout] = e.mean_loss(variant.ids(), wanted)
    n = wanted.size
    assert losses["per_head"] == pytest.approx(losses["fused"] * (n - 1) / n, rel=1e-6)


def test_a_profiled_step_of_a_run_gives_the_same_bits() -> None:
    variant = VARIANTS["gqa"]
    curves = []
    for profiled in (False, True):
        with engine(variant, clip=True, decay_vectors=False, keep_gradients=True) as e:
            losses = []
            for i in range(3):
                fed = (variant.ids(), targets(variant), HP.hp(i + 1))
                if profiled:
                    positions = np.tile(np.arange(variant.t_seq), variant.t_batch)
                    shown = toynn.profile(e, fed[0], positions, fed[1], fed[2], i == 0, max_norm=0.5)
                    losses.append(shown.loss)
                    assert {"gradient norm", "blk.0.attn_qkv", "blk.1.ffn_swiglu", "logits"} <= shown.by_name().keys()
                else:
                    losses.append(e.train_step(*fed, reset_moments=i == 0, max_norm=0.5)[0])
            curves.append((losses, all_weights(e)))
    assert curves[0] == curves[1]


def test_a_profiled_step_is_a_whole_step() -> None:
    variant = VARIANTS["gqa"]
    with engine(variant, keep_gradients=True) as e:
        fed = (variant.ids(), targets(variant), HP.hp(1))
        e.train_step(*fed)
        before = all_weights(e)
        options: tuple[dict[str, Any], ...] = ({"accumulate": True}, {"update": False})
        for option in options:
            with pytest.raises(TinyNNValueError, match="without node_times"):
                e.train_step(*fed, node_times=[], **option)
        with pytest.raises(TinyNNTypeError, match="model must be a recipe or a LlamaSeqEngine, got"):
            toynn.profile(None, fed[0], [], fed[1], fed[2], True)  # type: ignore[arg-type]
        assert all_weights(e) == before


def test_a_shape_keeps_its_variants_when_the_options_say_nothing() -> None:
    shape = ModelShape.of(VARIANTS["gqa"].cfg, untied=True, qkv_bias=True)
    with LlamaSeqEngine() as e:
        e.realize(shape, RecipeOptions(t_seq=4, n_threads=1))
        assert e.cfg == shape
        assert "output.weight" in e.weights
    with LlamaSeqEngine() as e:
        e.realize(replace(shape, untied=False), RecipeOptions(t_seq=4, qkv_bias=True, n_threads=1))
        assert not e.cfg.untied
    with LlamaSeqEngine() as e, pytest.raises(TinyNNValueError, match="untied = True contradicts cfg"):
        realize(e, replace(shape, untied=False), untied=True)


# ---- names that the Ruby project toy has too ----

N = 5


def built(shape: ModelShape, build: str) -> bytes:
    """Return the bytes of the logits or of a layer's result.

    Compute them with the classes and functions that the Ruby project toy has too.
    """
    with Session(n_threads=1) as s:
        parameters = Parameters(s, shape, weights_by_head_of(shape))
        ids, positions = tnn_input_1d_i32_persistent(s, N), tnn_input_1d_i32_persistent(s, N)
        x = tnn_input_2d_f32_persistent(s, N, shape.d_model)
        tnn_finalize_weights(s)
        parameters.draw(make_stream("lcg31", 0), Spread(init_scale=1.0))
        upload_int_array(s, ids, range(N))
        upload_int_array(s, positions, range(N))
        upload_row_major(s, x, np.linspace(-1, 1, N * shape.d_model).reshape(N, -1))
        r = Rope(positions, shape.head_dim, shape.rope_base, shape.rope_scaling, None)
        layer = parameters.tree.layers[0]
        if build == "arch":
            result = LlamaArch(parameters, shape).build(s, ids, r, None)["logits"]
        elif build == "block":
            result = TransformerBlock(layer, shape).build(s, x, r, None).residual
        else:
            result = by_functions(s, x, parameters, r, shape)
        tnn_realize(s, result)
        tnn_compute(s)
        return download_row_major(s, result, N, result.ne[0]).tobytes()


def by_functions(s: Session, x: Tensor, parameters: Parameters, r: Rope, shape: ModelShape) -> Tensor:
    layer = parameters.tree.layers[0]
    q, k, v = ([head.weight for head in layer.heads(key)] for key in "qkv")
    h = rms_norm(s, x, layer.attn_norm.weight, shape.rms_eps)
    x = toynn.tinynn.tnn_add(s, x, gqa(s, h, GqaWeights(q, k, v, None, None, None, layer.o.weight), r, None))
    h = rms_norm(s, x, layer.ffn_norm.weight, shape.rms_eps)
    return toynn.tinynn.tnn_add(s, x, swiglu(s, h, layer.gate.weight, layer.up.weight, layer.down.weight))


def test_the_reference_s_arch_computes_the_logits_of_an_engine() -> None:
    shape = ModelShape.of(VARIANTS["gqa"].cfg)
    with realized(shape, layout="per_head", t_seq=N) as e:
        assert built(shape, "arch") == e.forward(range(N)).tobytes()


def test_the_reference_s_functions_compute_its_block() -> None:
    shape = ModelShape.of(VARIANTS["gqa"].cfg)
    assert built(shape, "functions") == built(shape, "block")


def test_rope_at_position_0_rotates_nothing() -> None:
    with Session(n_threads=1) as s:
        x, positions = tnn_input_2d_f32_persistent(s, 1, 4), tnn_input_1d_i32_persistent(s, 1)
        tnn_finalize_weights(s)
        upload_row_major(s, x, [[1.0, 2.0, 3.0, 4.0]])
        upload_int_array(s, positions, [0])
        rotated = rope(s, x, Rope(positions, 4, 10000.0, toynn.RopeScaling.none(), None))
        tnn_realize(s, rotated)
        tnn_compute(s)
        assert download_row_major(s, rotated, 1, 4).tolist() == [[1.0, 2.0, 3.0, 4.0]]
