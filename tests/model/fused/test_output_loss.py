"""If the logits of a loss are computed in parts, the bits are those of the loss of all logits at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engines import realized
from fused_engines import HP, all_weights, engine, load, targets
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import (
    LlamaDecoder,
    LlamaSeqEngine,
    RecipeOptions,
    SessionError,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn import tinynn as nn
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.fused import graph
from toynn.llm.labels import IGNORED
from toynn.model.shape import ModelShape
from tuned_models import base_of


def two_steps(variant: Variant, n_threads: int = 1, **build: Any) -> tuple[bool, Any]:
    """Take two steps, the second over two batches with an ignored target.

    Return whether the graph has the logits of all rows, and everything that the steps change.
    """
    wanted = targets(variant)
    wanted[-2] = IGNORED
    with engine(variant, n_threads=n_threads, clip=True, keep_gradients=True, **build) as e:
        load(e, variant)
        steps = [e.train_step(variant.ids(), targets(variant), HP.hp(1), max_norm=0.5)]
        steps += [
            e.train_step(variant.ids(), wanted, HP.hp(2), accumulate=i > 0, update=i > 0, max_norm=0.5, loss_divisor=9)
            for i in (0, 1)
        ]
        gradients = {name: e.gradient(name).tobytes() for name in e.param_names()}
        return "logits" in e.taps, (steps, gradients, all_weights(e), e.mean_loss(variant.ids(), wanted))


@each_variant
def test_parts_of_three_rows_give_the_bits_of_all_rows(variant: Variant, in_parts: Any) -> None:
    whole, want = two_steps(variant)
    in_parts(3)
    parted, got = two_steps(variant)
    assert whole
    assert parted == (variant.t_seq * variant.t_batch <= 3)
    assert got == want


@pytest.mark.threads
@pytest.mark.parametrize("rows", [1, 100, 129])
def test_parts_of_a_larger_model_have_the_same_bits_with_any_number_of_threads(rows: int, in_parts: Any) -> None:
    variant = Variant(SmolLM2Config(600, 64, 2, 1, 96, 1, 256, 10000.0, 1e-5), 130, t_batch=2)
    _, want = two_steps(variant, n_threads=2)
    in_parts(rows)
    for n_threads in (1, 3):
        parted, got = two_steps(variant, n_threads)
        assert not parted
        assert got == want


@pytest.mark.parametrize(("windows", "batch"), [(8, 8), (7, 7), (6, 2), (9, 3), (4, 1)])
@pytest.mark.parametrize("rows", [2, 5, 12])
def test_parts_of_several_windows_have_the_bits_of_all_rows(windows: int, batch: int, rows: int, in_parts: Any) -> None:
    """A window has five rows. Parts begin and end in the middle of windows, and each step has several batches."""
    variant = Variant(VARIANTS["tied"].cfg, 5, t_batch=windows)
    ids, wanted = variant.ids().reshape(-1, batch * 5), targets(variant).reshape(-1, batch * 5)

    def results(rows_of_part: int | None) -> Any:
        if rows_of_part is not None:
            in_parts(rows_of_part)
        with engine(Variant(variant.cfg, 5, t_batch=batch), clip=True, keep_gradients=True, n_threads=2) as e:
            for i, (part, wanted_of_part) in enumerate(zip(ids, wanted, strict=True)):
                options: dict[str, Any] = {
                    "accumulate": i > 0,
                    "update": i == len(ids) - 1,
                    "loss_divisor": wanted.size,
                }
                e.train_step(part, wanted_of_part, HP.hp(1), **options)
            gradients = {name: e.gradient(name).tobytes() for name in e.param_names()}
            return "logits" in e.taps, (gradients, all_weights(e))

    whole, want = results(None)
    in_parts_now, got = results(rows)
    assert whole
    assert in_parts_now == (batch * 5 <= rows)
    assert got == want


def test_logits_are_computed_at_once_if_the_waiting_sums_of_their_gradient_would_be_larger() -> None:
    shape = ModelShape.of(SmolLM2Config(49152, 576, 9, 3, 1536, 30, 2048, 10000.0, 1e-5))
    assert graph.parts_save_memory(512, shape, 1)
    assert not graph.parts_save_memory(8 * 64, shape, 8)
    assert graph.parts_save_memory(8 * 512, shape, 8)


@pytest.mark.parametrize("rows", [2, 7, 10])
def test_a_frozen_output_matrix_has_no_waiting_sums(rows: int, in_parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS["batch of 3"]
    base, _ = base_of(variant)
    spec = AdapterSpec(2, 4.0, False, ("q", "down"))
    options = RecipeOptions(t_seq=variant.t_seq, t_batch=3, n_threads=1, seed=1, layout="fused")
    results = []
    for most, recompute in ((10**6, False), (rows, False), (rows, True)):
        in_parts(most)
        monkeypatch.setattr(graph, "parts_save_memory", lambda *_: False)
        with LlamaSeqEngine() as e:
            e.realize_with_adapter(base, spec, options)
            e.build_training_step(recompute=recompute)
            assert ("logits" in e.taps) == (most == 10**6)
            steps = [e.train_step(variant.ids(), targets(variant), HP.hp(i))[0] for i in (1, 2, 3)]
            results.append((steps, {name: e.download_weight(name).tobytes() for name in e.param_names()}))
    assert results[0] == results[1] == results[2]
    assert results[0][0][2] < results[0][0][0]


def test_pinned_nodes_keep_the_bits_and_taps_keep_the_logits(in_parts: Any) -> None:
    variant = VARIANTS["everything at once"]
    _, want = two_steps(variant)
    in_parts(2)
    assert two_steps(variant, pin=True) == (False, want)
    assert two_steps(variant, taps=True) == (True, want)


def test_a_text_has_the_same_losses_if_its_logits_are_computed_in_parts(in_parts: Any) -> None:
    variant = VARIANTS["gqa"]
    ids = np.tile(variant.ids(), 2)[:12]
    with realized(variant.cfg, **variant.options) as e:
        weights = {name: e.download_weight(name) for name in e.weights}
    losses = []
    for rows in (1000, 5):
        in_parts(rows)
        with LlamaDecoder(variant.cfg, weights) as decoder:
            losses.append(decoder.score(ids).tobytes())
    assert losses[0] == losses[1]


def test_only_the_logits_of_one_part_need_memory(in_parts: Any) -> None:
    variant = Variant(SmolLM2Config(5000, 256, 2, 1, 16, 1, 256, 10000.0, 1e-5), 120)
    nbytes: dict[str, list[int]] = {"training": [], "loss": []}
    for rows in (120, 10):
        in_parts(rows)
        with engine(variant) as e:
            nbytes["training"].append(nn.tnn_session_compute_nbytes(e.sess))
            e.mean_loss(variant.ids(), targets(variant))
            nbytes["loss"].append(nn.tnn_session_compute_nbytes(e.sess))
    for whole, parted in nbytes.values():
        assert whole - parted > 0.8 * 4 * 5000 * 110


def test_the_logits_of_a_graph_that_computes_them_in_parts_cannot_be_read(in_parts: Any) -> None:
    in_parts(3)
    with engine(VARIANTS["gqa"]) as e:
        with pytest.raises(SessionError, match="keeps the logits of only a few rows"):
            _ = e.t_seq_logits
        e.forward(VARIANTS["gqa"].ids())
        assert e.t_seq_logits.ne[0] == VARIANTS["gqa"].cfg.vocab


def test_operands_that_do_not_fit_are_refused_by_name() -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 6, 8)
        nn.tnn_finalize_weights(s)
        x, wanted = nn.tnn_input_2d_f32(s, 5, 8), nn.tnn_input_1d_i32(s, 5)
        for arguments, mentions in (
            (
                (nn.tnn_input_2d_f32(s, 5, 7), w, wanted, -1, None, 2),
                r"weight has shape \[8, 6\]; its ne0",
            ),
            ((x, w, nn.tnn_input_1d_i32(s, 4), -1, None, 2), "one element for each row of x"),
            ((x, w, wanted, 5, None, 2), "ignore_id = 5 is a token"),
            ((x, w, wanted, -1, x, 2), "divisor has shape"),
            ((x, w, wanted, -1, None, 0), "part = 0 is a number of rows and must be at least 1"),
        ):
            with pytest.raises(TinyNNValueError, match=mentions):
                nn.tnn_fused_output_loss(s, *arguments)
        with pytest.raises(TinyNNTypeError, match="targets has dtype f32"):
            nn.tnn_fused_output_loss(s, x, w, x, -1, None, 2)
        loss = nn.tnn_fused_output_loss(s, x, w, wanted, -1, None, 2)
        rows = nn.tnn_tensor_src(loss, 0)
        assert rows is not None
        last = nn.tnn_tensor_src(rows, 1)
        assert last is not None
        with pytest.raises(TinyNNValueError, match="logits is internal to a tnn_fused_output_loss"):
            nn.tnn_fused_cross_entropy(s, last, nn.tnn_input_1d_i32(s, 1), -1)


def test_a_graph_without_space_for_the_parts_is_refused() -> None:
    with nn.Session(n_threads=1) as s:
        nn.tnn_session_set_graph_capacity(s, 50)
        w = nn.tnn_input_2d_f32_persistent(s, 6, 8)
        nn.tnn_finalize_weights(s)
        with pytest.raises(SessionError, match="the graph is full"):
            nn.tnn_fused_output_loss(s, nn.tnn_input_2d_f32(s, 5000, 8), w, nn.tnn_input_1d_i32(s, 5000), -1, None, 1)
