"""The parts of a graph over whole sequences: its inputs, activations, loss and optimizer.

A session holds one graph at a time: building the next one makes the handles of the previous one stale.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from toynn.llm.optimizer import Optimizer
from toynn.llm.preference import PreferenceInputs
from toynn.tinynn import Tensor


@dataclass
class ForwardGraph:
    """A forward graph.

    positions: i32 (T*B,).
    starts: for each token, the position of the first token of its sample, i32 (T*B,); None if a sequence is one sample.
    taps: activations by name, the logits last.
    keep_taps: taps can be read.
    """

    positions: Tensor
    starts: Tensor | None
    taps: dict[str, Tensor]
    keep_taps: bool


@dataclass
class LossGraph(ForwardGraph):
    """A forward graph with the loss on labels, but without a backward pass.

    t_row_losses: the losses of the rows, f32 (T*B,); None in the per_head layout.
    preference: the inputs of the loss of pairs; None for the loss of the next token.
    """

    t_labels: Tensor
    t_loss: Tensor
    t_row_losses: Tensor | None
    preference: PreferenceInputs | None = field(default=None, kw_only=True)


@dataclass
class TrainingGraph(LossGraph):
    """A graph with forward pass, loss, backward pass and one optimizer step for each trained weight.

    t_divisor: the number by which the sum of the losses is divided, f32 (1,); None if the layout has no such input.
    """

    optimizer: Optimizer
    gradients_kept: bool
    t_divisor: Tensor | None
