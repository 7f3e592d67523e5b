"""The sums of a step over its windows, in the order of csrc/kernels/window_sums.h."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def sums_of_windows(rows: npt.NDArray[np.float64], t_seq: int) -> npt.NDArray[np.float64]:
    """Return the sum of each window of t_seq rows, (n,). The rows of a window are added in their order."""
    # np.add.reduce would add pairs, and np.add.accumulate adds one row after the other.
    sums: npt.NDArray[np.float64] = np.add.accumulate(rows.reshape(-1, t_seq), axis=1)[:, -1]
    return sums


def tree_sum(values: Sequence[float]) -> float:
    """Return the sum of the values of all windows of a step, as a binary tree over the numbers of the windows."""
    nodes = list(values)
    while len(nodes) > 1:  # the last node of an odd number of nodes has no right half
        pairs = [left + right for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        nodes = pairs + nodes[2 * len(pairs) :]
    return nodes[0]


def step_loss(window_losses: Sequence[float], targets: int) -> float:
    """Return the mean loss of a step, as float32: the sum over all of its windows, divided by the number of targets."""
    return float(np.float32(tree_sum(window_losses) / targets))
