"""GraphBuilder: the base of both layouts' graph builders. It holds the session, names nodes and collects taps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toynn.llm.parameters import Affine
from toynn.tinynn import Session, Tensor, tnn_add, tnn_get_rows, tnn_tensor_set_name


class GraphBuilder:
    """Adds nodes to the graph of a session.

    taps: activations that can be downloaded, by name and in the order of computation.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.taps: dict[str, Tensor] = {}
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names that are given inside the block with `name` and a dot."""
        before, self._scope = self._scope, f"{self._scope}{name}."
        try:
            yield
        finally:
            self._scope = before

    def named(self, name: str, node: Tensor) -> Tensor:
        """Name the node `name` in the current scope, and return it."""
        tnn_tensor_set_name(node, self._scope + name)
        return node

    def tap(self, name: str, node: Tensor) -> Tensor:
        """Name the node, record it as a tap, and return it."""
        self.taps[self._scope + name] = node
        return self.named(name, node)

    def rows(self, table: Affine, ids: Tensor) -> Tensor:
        """Return the rows of a table (vocab, d) at ids i32 (n,): (n, d)."""
        return tnn_get_rows(self.session, table.weight, ids)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a + b."""
        return tnn_add(self.session, a, b)
