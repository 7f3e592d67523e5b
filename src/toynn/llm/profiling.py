"""Measure the time of a training step by operator and by tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy.typing as npt

from toynn.arguments import boolean, kind_of
from toynn.errors import TinyNNTypeError
from toynn.initialised import Initialised
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.layout import NodeTimes
from toynn.llm.recipes import FromScratch


@dataclass(frozen=True, slots=True)
class NodeTime(Initialised):
    """One node of the graph: the name of its operator, the name of its tensor, and its wall-clock time in seconds."""

    op: str
    name: str
    seconds: float


@dataclass(frozen=True)
class Profile(Initialised):
    """The nodes of one step in order of computation. `print` shows the time of all operators and of the ten slowest
    tensors.

    The time of a node includes its start and a barrier of the threads, some microseconds each. In a step that is not
    profiled, nodes of a small model share barriers, so such a step takes less time than the sum of the nodes.
    """

    loss: float
    nodes: list[NodeTime]

    @property
    def seconds(self) -> float:
        """The total time of all nodes in seconds."""
        return sum(node.seconds for node in self.nodes)

    def by_op(self) -> dict[str, float]:
        """Return the total time of each operator in seconds, the longest first."""
        return _sums((node.op, node.seconds) for node in self.nodes)

    def by_name(self) -> dict[str, float]:
        """Return the total time of each tensor name in seconds, the longest first.

        Tensors without a name are added up under the name of their operator.
        """
        return _sums((node.name or f"({node.op})", node.seconds) for node in self.nodes)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{len(self.nodes)} nodes, {1e3 * self.seconds:.3f} ms, loss {self.loss!r}", ""]
        for title, sums in (("operator", self.by_op()), ("tensor", dict(list(self.by_name().items())[:10]))):
            lines.append(f"{title:<40} {'ms':>10} {'share':>7}")
            lines += [f"{key[:40]:<40} {1e3 * value:>10.3f} {value / total:>7.1%}" for key, value in sums.items()]
            lines.append("")
        return "\n".join(lines).rstrip()


def profile(
    model: FromScratch | LlamaSeqEngine,
    seq_ids: npt.ArrayLike,
    positions: npt.ArrayLike,
    m_labels: npt.ArrayLike,
    m_hp: npt.ArrayLike,
    is_first: bool,
    *,
    max_norm: float = 0.0,
    gradient_scale: float = 1.0,
    muon_hp: npt.ArrayLike | None = None,
    step: int | None = None,
) -> Profile:
    """Take one training step, and return the time of each node of its graph.

    Profiling does not change the bits of the step.

    Args:
        model: a recipe, or an engine with a training graph, such as the one that `toynn.train` uses.
        seq_ids, positions, m_labels, m_hp, is_first: as for `FromScratch.step`.
        max_norm, gradient_scale: as for `LlamaSeqEngine.train_step`, for an engine whose graph was built with clip.
        muon_hp, step: as for `LlamaSeqEngine.train_step`.

    Raises the errors of `FromScratch.step` and `LlamaSeqEngine.train_step`, and TinyNNTypeError if `model` is neither a
    recipe nor an engine.
    """
    engine = model.fs_cache if isinstance(model, FromScratch) else model
    if not isinstance(engine, LlamaSeqEngine):
        raise TinyNNTypeError(f"model must be a recipe or a LlamaSeqEngine, got {kind_of(model)}")
    first = boolean("is_first", is_first)
    times: NodeTimes = []
    loss, _ = engine.train_step(
        seq_ids, m_labels, m_hp, positions=positions, reset_moments=first, max_norm=max_norm,
        gradient_scale=gradient_scale, muon_hp=muon_hp, node_times=times, step=step,
    )  # fmt: skip
    return Profile(loss, [NodeTime(op, name, seconds) for op, name, seconds in times])


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for key, seconds in pairs:
        sums[key] += seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
