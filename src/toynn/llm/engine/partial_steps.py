"""PartialSteps: compute the gradients of one part of a step. Other engines compute the other parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, IntArray, boolean
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.engine.tuned_model import TunedModel
from toynn.llm.graphs import TrainingGraph
from toynn.llm.inputs import checked_divisor, checked_starts, checked_token_ids
from toynn.llm.layout import Layout
from toynn.llm.preference import ReferenceValues
from toynn.model.weights import NO_OPTIMIZER, Weight
from toynn.tinynn import (
    TrainStep,
    tnn_begin_step,
    tnn_continue_step,
    tnn_download_window_sum,
    tnn_gradient_parts,
    tnn_gradient_place,
)


@dataclass(frozen=True)
class _CheckedBatch:
    """The layout and the graph that compute a batch, and the values of the inputs that the step uploads."""

    layout: Layout
    graph: TrainingGraph
    ids: IntArray
    labels: FloatArray | IntArray
    hp: FloatArray


class PartialSteps(TunedModel):
    """The methods of `LlamaSeqEngine` for models without an optimizer. The caller updates their weights."""

    def add_gradients(
        self,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        loss_divisor: float,
        *,
        accumulate: bool = False,
        starts: npt.ArrayLike | None = None,
        reference: npt.NDArray[np.float64] | None = None,
    ) -> float:
        """Compute the gradients of a batch of a step without an update, and return the loss of the batch.

        The model must have been realized with optimizer="none". `gradient` and `window_sum` then return the gradients.

        Args:
            seq_ids, targets, starts, reference: as for `train_step`.
            loss_divisor: the number by which the sum of the losses is divided: all targets, or pairs, of the step.
            accumulate: False begins a step, True adds the next batch of the step.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: there is no training graph, or the model has an optimizer.
        """
        adds = boolean("accumulate", accumulate)
        with self._batch("add_gradients", seq_ids, targets, loss_divisor, starts, reference) as given:
            loss, _ = given.layout.step(
                given.graph,
                given.ids,
                given.labels,
                given.hp,
                reset_moments=False,
                accumulate=adds,
                update=False,
                node_times=None,
            )
            return loss

    def begin_gradients(
        self,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        loss_divisor: float,
        *,
        accumulate: bool = False,
        starts: npt.ArrayLike | None = None,
        reference: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Begin a batch of a step as `add_gradients` does. `continue_gradients` computes the gradients later.

        If another batch begins, or another graph is built, before this batch is complete, this batch and the earlier
        batches of its step are dropped.

        The arguments and errors are those of `add_gradients`.
        """
        adds = boolean("accumulate", accumulate)
        with self._batch("begin_gradients", seq_ids, targets, loss_divisor, starts, reference) as given:
            layout, graph = given.layout, given.graph
            tensors = TrainStep(layout.token_ids, graph.t_labels, graph.optimizer.t_hp, graph.t_loss)
            tnn_begin_step(layout.session, tensors, given.ids, given.labels, given.hp, accumulate=adds)

    def continue_gradients(self, name: str | None = None) -> None:
        """Continue the batch that `begin_gradients` has begun, until the gradient of a weight is complete.

        `window_sum` returns complete gradients before the batch ends. The bits are those of `add_gradients`.

        name: the name of a trained weight; None for the end of the batch.

        Raises TinyNNValueError for another name, and SessionError if no batch has been begun.
        """
        layout = self._require_layout()
        tensor = None if name is None else layout.parameters.tensor(name)[0]
        with layout.session.exclusive():
            tnn_continue_step(layout.session, tensor)

    @contextmanager
    def _batch(
        self,
        call: str,
        seq_ids: npt.ArrayLike,
        targets: npt.ArrayLike,
        loss_divisor: float,
        starts: npt.ArrayLike | None,
        reference: npt.NDArray[np.float64] | None,
    ) -> Iterator[_CheckedBatch]:
        """Check the arguments of a call, upload the arguments that the step itself does not upload, and lock the
        session.
        """
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, TrainingGraph) or graph.optimizer.options.updates:
            raise SessionError(f"{call} needs a training graph of a model that was realized with optimizer='none'")
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        labels = layout.checked_labels(targets, needs_token=False)
        divisor = checked_divisor(loss_divisor)
        inputs = ReferenceValues.checked(graph.preference, reference, layout.options.t_batch)
        hp = np.array([[divisor]] if inputs is None else inputs.inputs.preference.settings(divisor), dtype=np.float32)
        firsts = None if starts is None else checked_starts(starts, layout.t_seq, layout.n)
        if firsts is not None and graph.starts is None:
            raise TinyNNValueError("starts can be given only after build_training_step(packed=True)")
        with layout.session.exclusive():
            layout.place(graph, None, firsts)
            if inputs is not None:
                inputs.upload(layout.session, divisor)
            yield _CheckedBatch(layout, graph, ids, labels, hp)

    @property
    def has_optimizer(self) -> bool:
        """False for a model that was realized with optimizer="none"."""
        return self._require_layout().options.optimizer != NO_OPTIMIZER

    def trained_weights(self) -> list[Weight]:
        """Return the descriptions of the trained weights, in the order of the optimizer steps."""
        return [one.weight for one in self._require_layout().parameters.in_step_order()]

    def gradient_places(self) -> dict[str, tuple[int, ...]]:
        """Return, for each trained weight in the order of the optimizer steps, the places of its gradient in the result
        of `window_sum`.

        A gradient with two places is the sum of the values at both places; see `tnn_gradient_parts`.

        Raises SessionError before a training graph is built.
        """
        layout = self._require_layout()
        s, trained = layout.session, layout.parameters.in_step_order()
        return {
            one.weight.name: tuple(
                tnn_gradient_place(s, one.tensor, i) for i in range(tnn_gradient_parts(s, one.tensor))
            )
            for one in trained
        }

    def window_sum(self, first: int, level: int, at: int, n: int, out: FloatArray | None = None) -> FloatArray:
        """Return elements of the sum of the gradients in the windows first to first + 2^level - 1 of the current step.

        at, n: the place of the first element, and the number of elements. out: as for `tnn_download_window_sum`. Raises
        the errors of `tnn_download_window_sum`.
        """
        return tnn_download_window_sum(self._require_layout().session, first, level, at, n, out)
