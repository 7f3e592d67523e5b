"""PartialSteps: compute the gradients of one part of a step. Other engines compute the other parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, boolean
from toynn.errors import SessionError, TinyNNValueError
from toynn.llm.engine.tuned_model import TunedModel
from toynn.llm.graphs import TrainingGraph
from toynn.llm.inputs import checked_divisor, checked_starts, checked_token_ids
from toynn.llm.preference import ReferenceValues
from toynn.model.weights import NO_OPTIMIZER, Weight
from toynn.tinynn import tnn_download_window_sum, tnn_gradient_parts, tnn_gradient_place


class PartialSteps(TunedModel):
    """The part of `LlamaSeqEngine` for models without an optimizer, whose weights the caller updates."""

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
            loss_divisor: the number of targets, or of pairs, of the whole step, by which the sum of the losses is
                divided.
            accumulate: False begins a step, True adds the next batch of the step.

        Raises:
            TinyNNValueError, TinyNNTypeError: an argument is wrong; the message names it.
            SessionError: there is no training graph, or the model has an optimizer.
        """
        layout, graph = self._require_layout(), self._require_graph()
        if not isinstance(graph, TrainingGraph) or graph.optimizer.options.updates:
            raise SessionError(
                "add_gradients needs a training graph of a model that was realized with optimizer='none'"
            )
        ids = checked_token_ids(seq_ids, layout.n, layout.shape.vocab)
        labels = layout.checked_labels(targets, needs_token=False)
        divisor = checked_divisor(loss_divisor)
        inputs = ReferenceValues.checked(graph.preference, reference, layout.options.t_batch)
        hp = np.array([[divisor]] if inputs is None else inputs.inputs.preference.settings(divisor), dtype=np.float32)
        adds = boolean("accumulate", accumulate)
        firsts = None if starts is None else checked_starts(starts, layout.t_seq, layout.n)
        if firsts is not None and graph.starts is None:
            raise TinyNNValueError("starts can be given only after build_training_step(packed=True)")
        with layout.session.exclusive():
            layout.place(graph, None, firsts)
            if inputs is not None:
                inputs.upload(layout.session, divisor)
            loss, _ = layout.step(
                graph, ids, labels, hp, reset_moments=False, accumulate=adds, update=False, node_times=None
            )
            return loss

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

        A gradient with two places is the sum of both parts; see `tnn_gradient_parts`. Raises SessionError before a
        training graph is built.
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
