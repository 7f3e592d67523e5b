"""What a graph over whole sequences consists of: its inputs, its activations, its loss and its optimizer.

A session holds one graph at a time: building the next one makes the handles of the previous one stale.
"""

from __future__ import annotations

from dataclasses import dataclass

from toynn.llm.optimizer import Optimizer
from toynn.tinynn import Tensor


@dataclass
class ForwardGraph:
    """positions: i32 (T*B,). taps: activations by name, the logits last. keep_taps: whether they can be downloaded."""

    positions: Tensor
    taps: dict[str, Tensor]
    keep_taps: bool


@dataclass
class LossGraph(ForwardGraph):
    """The loss on labels, without a backward part."""

    t_labels: Tensor
    t_loss: Tensor


@dataclass
class TrainingGraph(LossGraph):
    """Forward, loss, backward and one AdamW step for each trained weight."""

    optimizer: Optimizer
    gradients_kept: bool
