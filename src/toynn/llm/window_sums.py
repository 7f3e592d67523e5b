"""The sums of a step over its windows, in the order of csrc/kernels/window_sums.h.

Windows are added as a binary tree. The node (start, level) is the sum of the windows start to start + 2^level - 1.
Above level 0, a node is the sum of two nodes, one for each half of its windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def sums_of_windows(rows: npt.NDArray[np.float64], t_seq: int) -> npt.NDArray[np.float64]:
    """Return the sum of each window of t_seq rows, (n,). The rows of a window are added in their order."""
    # np.add.accumulate adds the rows in their order. np.add.reduce would add pairs.
    sums: npt.NDArray[np.float64] = np.add.accumulate(rows.reshape(-1, t_seq), axis=1)[:, -1]
    return sums


def tree_sum(values: Sequence[float]) -> float:
    """Return the sum of the values of all windows of a step.

    The values are added in pairs of neighbours, then the sums in pairs, and so on, as in a binary tree.
    """
    nodes = list(values)
    while len(nodes) > 1:  # if the number of nodes is odd, the last node moves to the next level unchanged
        pairs = [left + right for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        nodes = pairs + nodes[2 * len(pairs) :]
    return nodes[0]


def step_loss(window_losses: Sequence[float], targets: int) -> float:
    """Return the mean loss of a step, as float32: the sum over all of its windows, divided by the number of targets."""
    return float(np.float32(tree_sum(window_losses) / targets))


def largest_nodes(first: int, n: int) -> list[tuple[int, int]]:
    """Return the largest nodes (start, level) of the tree that cover exactly the windows first to first + n - 1."""
    nodes, end = [], first + n
    while first < end:
        level = 0
        while first % (2 << level) == 0 and first + (2 << level) <= end:
            level += 1
        nodes.append((first, level))
        first += 1 << level
    return nodes


def sum_of_nodes(nodes: Mapping[tuple[int, int], F32], windows: int) -> F32:
    """Return the sum of all windows of a step, (n,), from nodes of the tree that cover each window once.

    nodes: the sum of each node (start, level), (n,). The arrays are overwritten.
    """

    def value(start: int, level: int) -> F32:
        if (start, level) in nodes:
            return nodes[start, level]
        left, middle = value(start, level - 1), start + (1 << (level - 1))
        return left if middle >= windows else np.add(left, value(middle, level - 1), out=left)

    return value(0, (windows - 1).bit_length())
