"""LlamaSeqEngine: a model on a session, with its forward and training graphs over whole sequences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, boolean, instance_of, integer
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.engine.partial_steps import PartialSteps
from toynn.llm.engine.tuned_model import HOW_TO_TRAIN
from toynn.llm.graphs import ForwardGraph, LossGraph, TrainingGraph
from toynn.llm.inputs import (
    checked_clip,
    checked_divisor,
    checked_hp,
    checked_muon_hp,
    checked_positions,
    checked_starts,
    checked_step,
    checked_token_ids,
)
from toynn.llm.layout import Layout, NodeTimes
from toynn.llm.optimizer import OptimizerOptions
from toynn.llm.preference import Preference, ReferenceValues
from toynn.llm.window_sums import sums_of_windows
from toynn.tinynn import (
    Tensor,
    download_row_major,
    tnn_compute,
    tnn_download,
    tnn_reserve_batches,
    upload_int_array,
    upload_row_major,
)


class LlamaSeqEngine(PartialSteps):
    """A model on a session. Realize it, build and run its graphs as often as needed, then close it, or use `with`.

    `build_training_step` and `forward` build different graphs over the same weights and moments. The engine holds one
    graph at a time, so each of these calls drops the graph of the other, and the handles of the dropped graph become
    stale. After `forward`, call `build_training_step` again to train.
    """

    # ---- graphs ----

    def build_training_step(
        self,
        *,
        pin: bool = False,
        taps: bool | None = None,
        keep_gradients: bool = False,
        batches: int = 1,
        clip: bool = False,
        decay_vectors: bool = True,
        recompute: bool = False,
        packed: bool = False,
        preference: Preference | None = None,
        first_window: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Build the training graph: forward, loss, backward and one optimizer step for each trained weight.

        If the model was realized with optimizer="none", there are no optimizer steps: use `add_gradients`.

        Args:
            pin: keep the memory of every node, so that `gradient` can read the gradients. Results do not change.
            taps: keep the activations for `download_tap`. Default: True in the per_head layout, False in the fused one.
            keep_gradients: keep the gradients, so that `gradient` can read them, and a step can have several batches
                (`train_step(accumulate=True)`). Fused layout only.
            batches: allocate the memory for a step of this number of batches; more than 1 needs keep_gradients. By
                default, a step allocates this memory when it needs it.
            clip: `train_step` returns the norm of the gradients and clips them. This needs memory for all gradients at
                once. Fused layout only.
            decay_vectors: False excludes norms and biases from weight decay. Fused layout only.
            recompute: keep only the input of each layer, and compute the other activations again in the backward pass.
                Results do not change. A step needs less memory and more time. Fused layout only.
            packed: several samples may share a sequence, and `train_step` takes their starts. Fused layout only.
            preference: the loss of pairs of sequences, instead of the loss of the next token. A batch must have an
                even number of sequences. The sequences 2i and 2i + 1 are the chosen and the rejected one of pair i.
                Fused layout only.
            first_window: the number of the first window of a step that this engine computes, if other engines compute
                other windows of the step. If this number is above 0, the engine cannot update the weights itself.

        Returns:
            per_head: t_loss ne=[1], t_labels f32 ne=[vocab, T*B], t_hp ne=[7].
            fused: t_loss ne=[1], t_targets i32 ne=[T*B], t_hp ne=[7] (ne=[14] without decay_vectors;
                3 more for a model with the optimizer "muon"). With the optimizer "none", t_hp is the divisor of the
                loss, ne=[1], or with a preference the settings of the loss, ne=[3].

        Raises:
            TinyNNValueError: no weight is trained, or the layout does not support an option.
            SessionError: the engine is not realized, or the graph exceeds the session's capacity.
            TinyNNMemoryError: there is not enough memory.
            The weights stay unchanged in all of these cases.
        """
        layout = self._require_layout()
        if not self.params():
            raise TinyNNValueError(f"no weight of the model is trained: {HOW_TO_TRAIN}")
        options = OptimizerOptions(
            keep_gradients=boolean("keep_gradients", keep_gradients),
            clip=boolean("clip", clip),
            decay_vectors=boolean("decay_vectors", decay_vectors),
            muon=layout.options.optimizer == "muon",
            updates=self.has_optimizer,
            bf16_moments=any(one.bf16_moments for one in layout.parameters.by_name.values()),
        )
        first_window = integer("first_window", first_window, 0)
        if not options.updates and options.clip:
            raise TinyNNValueError("clip must be False for a model that was realized with optimizer='none'")
        layout.check_optimizer(options)
        pin, keep_taps, recompute = boolean("pin", pin), _keep_taps(layout, taps), boolean("recompute", recompute)
        if recompute and not layout.recomputes:
            raise TinyNNValueError(f"recompute needs the fused layout, got a model in the {layout.name} layout")
        packed = _packed(layout, boolean("packed", packed))
        _check_pairs(layout, preference)
        if preference is not None and layout.options.z_loss > 0:
            raise TinyNNValueError(f"z_loss must be 0 if preference is given, got {layout.options.z_loss:g}")
        batches = integer("batches", batches, 1)
        if batches > 1 and options.updates and not options.keep_gradients:
            raise TinyNNValueError(f"batches must be 1 without keep_gradients=True, got {batches}")
        with layout.session.exclusive():
            self._graph = None
            graph = layout.training_graph(
                pin=pin,
                keep_taps=keep_taps,
                recompute=recompute,
                packed=packed,
                options=options,
                preference=preference,
                first_window=first_window,
            )
            if not options.updates and first_window == 0:
                tnn_reserve_batches(layout.session, batches + 1)  # without updates, sums of the last batch are kept too
            elif batches > 1 or first_window > 0:
                tnn_reserve_batches(layout.session, batches)
            self._graph = graph
        return graph.t_loss, graph.t_labels, graph.optimizer.t_hp

    def train_step(
        self,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        hp: npt.ArrayLike,
        *,
        positions: npt.ArrayLike | None = None,
        reset_moments: bool = False,
        accumulate: bool = False,
        update: bool = True,
        max_norm: float = 0.0,
        gradient_scale: float = 1.0,
        loss_divisor: float | None = None,
        muon_hp: npt.ArrayLike | None = None,
        reference: npt.NDArray[np.float64] | None = None,
        node_times: NodeTimes | None = None,
        starts: npt.ArrayLike | None = None,
        step: int | None = None,
    ) -> tuple[float, float | None]:
        """Take one optimizer step. Return the loss before the step, and the norm of the gradients or None.

        A step can be computed in several batches of equal size. All calls except the first one have accumulate=True,
        and all calls except the last one have update=False. In each call, loss_divisor is the number of targets of the
        step. The gradients then have the same bits as in a step with one batch. `toynn.llm.window_sums.step_loss`
        returns the loss of the step.

        All arguments are checked before anything changes. The norm is that of all gradients together, multiplied by
        gradient_scale, before clipping. It is None if the graph was built without clip. A loss that is not finite is
        returned unchanged. If the norm is not finite, weights and moments stay unchanged.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            targets: integers (T*B,), the next token at each position. A position with -100 or -1 is ignored: the loss
                is the mean over the other positions, and the gradients of this position are 0. The per_head layout
                also accepts one-hot labels (T*B, vocab). There, an ignored position counts as a loss of 0, and has
                ggml's gradient of a row of zeros, which is not 0.
            hp: (1, 7), as `AdamW.hp` returns it.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: 0..T-1 in each sequence, or in each sample if
                starts is given.
            reset_moments: set the moments to zero before the step, as the first step of a run needs.
            accumulate: add the gradients of the next batch of the step. Needs a graph built with keep_gradients.
            update: False computes the loss and the gradients, and changes no weight. Fused layout only.
            max_norm: clip gradients to this norm; 0: do not clip.
            gradient_scale: a factor of the gradients. gradient_scale and max_norm need a graph built with clip.
            loss_divisor: divide the sum of the losses by this number instead of the number of targets in this call.
                Then all targets of the call may be ignored. Fused layout only. With a preference, this is the number of
                pairs of the step. Default: the pairs of this call.
            muon_hp: (1, 3), as `Muon.hp` returns it, for a model that was realized with optimizer="muon".
            reference: float64 (B,), the log-probability of each sequence (the sum over its targets) in the reference
                model. It must be given if and only if the graph was built with a preference.
            node_times: a list. The operator, tensor name and seconds of each node are added to it; `toynn.profile`
                shows them. The results have the same bits. Cannot be combined with accumulate or update=False.
            starts: integers (T*B,), for each token the position, in its sequence, of the first token of its sample. A
                token sees only tokens of its own sample. The loss of a sample, and the gradients of its
                activations, have the same bits as if the sample stood alone at the start of a sequence. Needs a graph
                built with packed. Default: a sequence is one sample.
            step: the number of the step, 0 to 2^31 - 1, for a model that was realized with moments="bf16". The random
                bits of the rounding depend on this number, so each step needs another number.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: there is no training graph.
        """
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, TrainingGraph):
            raise SessionError("train_step needs a training graph: call build_training_step() first")
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        at = None if positions is None else checked_positions(positions, layout.n, layout.shape.ctx)
        firsts = _starts(layout, starts)
        if firsts is not None and graph.starts is None:
            raise TinyNNValueError("starts can be given only after build_training_step(packed=True)")
        labels = layout.checked_labels(targets, needs_token=loss_divisor is None)
        inputs = ReferenceValues.checked(graph.preference, reference, layout.options.t_batch)
        count = layout.number_of_targets(labels) if inputs is None else layout.options.t_batch // 2
        divisor = count if loss_divisor is None else checked_divisor(loss_divisor)
        if loss_divisor is not None and graph.t_divisor is None and inputs is None:
            raise TinyNNValueError(f"loss_divisor needs the fused layout, got a model in the {layout.name} layout")
        row = graph.optimizer.values_of_hp(checked_hp(hp), checked_muon_hp(muon_hp, graph.optimizer.options.muon))
        number = checked_step(step, graph.optimizer.t_step is not None)
        clip = checked_clip(max_norm, gradient_scale, graph.optimizer.t_clip is not None)
        first = boolean("reset_moments", reset_moments)
        adds, updates = boolean("accumulate", accumulate), boolean("update", update)
        if adds and not graph.gradients_kept:
            raise SessionError(
                "accumulate needs kept gradients: build the graph with build_training_step(keep_gradients=True)"
            )
        if node_times is not None:
            instance_of("node_times", node_times, list)
        layout.check_step(adds, updates, node_times is not None)
        with layout.session.exclusive():
            if self._graph is not graph:
                self._require_layout()  # another thread may have closed the engine
                raise SessionError("another thread replaced the training graph: call build_training_step() again")
            layout.place(graph, at, firsts)
            if graph.t_divisor is not None:
                upload_row_major(layout.session, graph.t_divisor, [[divisor]])
            if inputs is not None:
                inputs.upload(layout.session, divisor)
            graph.optimizer.upload(layout.session, clip, number)
            return layout.step(
                graph, ids, labels, row, reset_moments=first, accumulate=adds, update=updates, node_times=node_times
            )

    def forward(
        self,
        seq_ids: npt.ArrayLike,
        positions: npt.ArrayLike | None = None,
        *,
        taps: bool | None = None,
        starts: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """Return the logits of the current weights, float32 (T*B, vocab). A training graph is dropped.

        The graph that computes the logits is kept for the next call.

        Args:
            seq_ids: integers (T*B,), each from 0 to vocab - 1.
            positions: integers (T*B,), each from 0 to ctx - 1. Default: as for `train_step`.
            taps: keep the activations for `download_tap`. Default: True in the per_head layout, False in the fused one.
            starts: as for `train_step`. Fused layout only.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: the engine is not realized.
        """
        layout = self._require_layout()
        s, n, shape = layout.session, layout.n, layout.shape
        ids = checked_token_ids(seq_ids, n, shape.vocab)
        at = None if positions is None else checked_positions(positions, n, shape.ctx)
        firsts = _starts(layout, starts)
        keep_taps, packed = _keep_taps(layout, taps), firsts is not None
        with s.exclusive():
            graph = self._graph
            same = type(graph) is ForwardGraph and graph.keep_taps == keep_taps
            if not same or graph is None or (graph.starts is not None) != packed:
                self._graph = None
                self._graph = graph = layout.forward_graph(keep_taps, packed)
            upload_int_array(s, layout.token_ids, ids)
            layout.place(graph, at, firsts)
            tnn_compute(s)
            return download_row_major(s, graph.taps["logits"], n, shape.vocab)

    def mean_loss(
        self,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        *,
        starts: npt.ArrayLike | None = None,
        preference: Preference | None = None,
        reference: npt.NDArray[np.float64] | None = None,
    ) -> float:
        """Return the loss that `train_step` would return, without gradients and without a step.

        A training graph is dropped, as by `forward`. The graph that computes the loss is kept for the next call.

        Args:
            seq_ids, targets, starts, reference: as for `train_step`. preference: as for `build_training_step`.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: the engine is not realized.
        """
        layout = self._require_layout()
        s = layout.session
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        labels, firsts = layout.checked_labels(targets, needs_token=preference is None), _starts(layout, starts)
        _check_pairs(layout, preference)
        with s.exclusive():
            graph = self._graph
            built = type(graph) is LossGraph and (graph.starts is not None) == (firsts is not None)
            if type(graph) is not LossGraph or not built or _preference_of(graph) != preference:
                self._graph = None
                self._graph = graph = layout.loss_graph(packed=firsts is not None, preference=preference)
            inputs = ReferenceValues.checked(graph.preference, reference, layout.options.t_batch)
            if inputs is not None:
                inputs.upload(s, layout.options.t_batch // 2)
            upload_int_array(s, layout.token_ids, ids)
            layout.place(graph, None, firsts)
            layout.upload_labels(graph.t_labels, labels)
            tnn_compute(s)
            return float(download_row_major(s, graph.t_loss, 1, 1)[0, 0])

    def row_losses(self) -> FloatArray:
        """Return the loss of each row of the last `train_step` or `mean_loss`, float32 (T*B,): 0 for ignored rows.

        Fused layout only. Raises SessionError if the current graph does not compute losses of rows.
        """
        return self._row_losses("row_losses")

    def window_losses(self) -> npt.NDArray[np.float64]:
        """Return the sum of the losses in each window of the last `train_step` or `mean_loss`, float64 (B,).

        Raises SessionError as `row_losses` does.
        """
        rows = self._row_losses("window_losses").astype(np.float64)
        return sums_of_windows(rows, self._require_layout().t_seq)

    def _row_losses(self, call: str) -> FloatArray:
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, LossGraph) or graph.t_row_losses is None:
            raise SessionError(
                f"{call} needs a graph of the fused layout that computes a loss; call build_training_step first"
            )
        return tnn_download(layout.session, graph.t_row_losses)

    def pair_losses(self) -> npt.NDArray[np.float64]:
        """Return the loss of each pair in the last `train_step` or `mean_loss` with a preference, float64 (B / 2,).

        Raises SessionError if the current graph does not compute losses of pairs.
        """
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, LossGraph) or graph.preference is None:
            raise SessionError(
                "pair_losses needs a graph with preference pairs; build it with build_training_step(preference=...)"
            )
        pairs = download_row_major(layout.session, graph.preference.pairs, 3, layout.options.t_batch // 2)
        return np.asarray(pairs[0], dtype=np.float64)


def _preference_of(graph: LossGraph) -> Preference | None:
    return None if graph.preference is None else graph.preference.preference


def _check_pairs(layout: Layout, preference: Preference | None) -> None:
    if preference is None:
        return
    instance_of("preference", preference, Preference)
    if layout.options.t_batch % 2 != 0:
        raise TinyNNValueError(f"preference needs an even number of sequences, got t_batch = {layout.options.t_batch}")


def _keep_taps(layout: Layout, taps: bool | None) -> bool:
    return layout.keeps_taps if taps is None else boolean("taps", taps)


def _packed(layout: Layout, packed: bool) -> bool:
    if packed and not layout.packs:
        raise TinyNNValueError(f"packed samples need the fused layout, got a model in the {layout.name} layout")
    return packed


def _starts(layout: Layout, starts: npt.ArrayLike | None) -> IntArray | None:
    """Check starts and return them as int32. Return None if starts is None."""
    if starts is None:
        return None
    _packed(layout, True)
    return checked_starts(starts, layout.t_seq, layout.n)
