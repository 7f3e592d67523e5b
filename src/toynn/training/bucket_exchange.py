"""Exchange the gradients and the weights of a step between processes, bucket by bucket, while the process computes.

A bucket is sent as soon as its gradients are complete. During the transfer, the engine computes the gradients of the
next buckets, or the optimizer updates the weights of the next buckets. The division into buckets does not affect any
result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.window_sums import sum_of_nodes
from toynn.parallel.processes import Processes
from toynn.tinynn import tnn_upload_from_float_array
from toynn.training.shard import Shard
from toynn.training.shares import Bucket

F32 = npt.NDArray[np.float32]

# While one bucket is transferred, the messages of the next bucket are filled. More buckets at a time would need more
# memory, and the network would not be faster.
AT_A_TIME = 2


@dataclass(frozen=True)
class _Transfer:
    """A transfer of the values of a bucket. request: the MPI request. received: the array for the received values."""

    request: Any
    bucket: Bucket
    shard: Shard
    received: F32


class BucketExchange:
    """Exchanges the gradients and the weights of all buckets.

    shards: the buckets in the order in which their gradients become complete, each with its shard in this process.
    nodes: for each process, its windows as nodes (start, level) of a binary tree; see `toynn.llm.window_sums`.
    windows: number of windows of a step.
    """

    def __init__(
        self,
        engine: LlamaSeqEngine,
        processes: Processes,
        shards: Sequence[tuple[Bucket, Shard]],
        nodes: Sequence[Sequence[tuple[int, int]]],
        windows: int,
    ) -> None:
        self._engine, self._processes, self._shards = engine, processes, shards
        self._nodes, self._windows = nodes, windows
        self._places: Mapping[str, tuple[int, ...]] = {}
        self._buffers: list[tuple[F32, F32]] = []  # buffers (sent, received), which the buckets use in turn
        self._open: deque[_Transfer] = deque()

    def use_graph(self, places: Mapping[str, tuple[int, ...]]) -> None:
        """Prepare the exchange of the gradients of another training graph. The arrays are kept, because the first write
        to new memory is slow.

        places: the result of `LlamaSeqEngine.gradient_places`.
        """
        self._places = places
        rank, sizes = self._processes.rank, [(0, 0)] * AT_A_TIME
        own, every = len(self._nodes[rank]), sum(len(of) for of in self._nodes)
        for i, (bucket, _) in enumerate(self._shards):
            lengths, (sent, received) = self._lengths(bucket), sizes[i % AT_A_TIME]
            needed = max(every * lengths[rank], sum(bucket.counts()))
            sizes[i % AT_A_TIME] = (max(sent, own * sum(lengths)), max(received, needed))
        if [(sent.size, received.size) for sent, received in self._buffers] != sizes:
            self._buffers = [(np.zeros(one, np.float32), np.zeros(other, np.float32)) for one, other in sizes]

    def exchange_gradients(self) -> None:
        """Complete the batch that the engine has begun, and set the gradient of each shard, summed over all windows."""
        with self._transferring():
            for i, (bucket, shard) in enumerate(self._shards):
                for name in reversed(list(bucket.sizes)):  # the last gradient is usually complete after the others
                    self._engine.continue_gradients(name)
                self._finish(AT_A_TIME - 1, self._add_up)
                self._open.append(self._send_gradient(bucket, shard, *self._buffers[i % AT_A_TIME]))
            self._engine.continue_gradients()
        self._finish(0, self._add_up)

    def exchange_weights(self, update: Callable[[Shard], None]) -> None:
        """Update the shards, and copy the weights that all processes have updated to the engine.

        update: a function that updates the weights of a shard.
        """
        with self._transferring():
            for i, (bucket, shard) in enumerate(self._shards):
                update(shard)
                self._finish(AT_A_TIME - 1, self._set_weights)
                whole, counts = self._buffers[i % AT_A_TIME][1][: sum(bucket.counts())], bucket.counts()
                request = self._processes.start_gather(shard.weights, whole, counts)
                self._open.append(_Transfer(request, bucket, shard, whole))
        self._finish(0, self._set_weights)

    # ---- the parts of an exchange ----

    def _transferring(self) -> AbstractContextManager[None]:
        """Return `Processes.transferring`, or an empty context manager if there is only one bucket.

        During the transfer of the only bucket, nothing is computed.
        """
        return self._processes.transferring() if len(self._shards) > 1 else nullcontext()

    def _lengths(self, bucket: Bucket) -> list[int]:
        """Return, for each process, how many elements the process receives of the sum of each node."""
        return [sum(piece.size * len(self._places[piece.name]) for piece in pieces) for pieces in bucket.slices]

    def _finish(self, most: int, use: Callable[[_Transfer], None]) -> None:
        """Wait for the oldest transfers until at most `most` are left. Pass each completed transfer to `use`."""
        while len(self._open) > most:
            transfer = self._open.popleft()
            transfer.request.Wait()
            use(transfer)

    def _send_gradient(self, bucket: Bucket, shard: Shard, sent: F32, received: F32) -> _Transfer:
        rank, lengths, at = self._processes.rank, self._lengths(bucket), 0
        for pieces in bucket.slices:
            for first, level in self._nodes[rank]:
                for piece in pieces:
                    for place in self._places[piece.name]:
                        out = sent[at : at + piece.size]
                        self._engine.window_sum(first, level, place + piece.begin, piece.size, out)
                        at += piece.size
        sizes = [len(self._nodes[rank]) * length for length in lengths]
        counts = [len(of) * lengths[rank] for of in self._nodes]
        received = received[: sum(counts)]
        return _Transfer(self._processes.start_exchange(sent[:at], sizes, received, counts), bucket, shard, received)

    def _add_up(self, transfer: _Transfer) -> None:
        """Set the gradient of a shard to the sum of the received nodes."""
        nodes = [node for of_process in self._nodes for node in of_process]
        rows = transfer.received.reshape(len(nodes), transfer.received.size // len(nodes))
        self._set_gradient(transfer.shard, sum_of_nodes(dict(zip(nodes, rows, strict=True)), self._windows))

    def _set_gradient(self, shard: Shard, values: F32) -> None:
        """Set the gradient of a shard from the sums over the windows. A gradient that consists of two sums (see
        `LlamaSeqEngine.gradient_places`) becomes their total.
        """
        at = 0
        for piece, place in shard.places():
            gradient = shard.gradient[place]
            for i in range(len(self._places[piece.name])):
                part = values[at : at + piece.size]
                if i == 0:
                    gradient[:] = part
                else:
                    np.add(gradient, part, out=gradient, where=part != 0)
                at += piece.size

    def _set_weights(self, transfer: _Transfer) -> None:
        tensors = self._engine.weights
        for name, values in by_name(transfer.bucket, transfer.received).items():
            tnn_upload_from_float_array(self._engine.sess, tensors[name], values)


def by_name(bucket: Bucket, whole: F32) -> dict[str, F32]:
    """Divide the values of a bucket among its weights."""
    ends = np.cumsum(list(bucket.sizes.values()))[:-1]
    return dict(zip(bucket.sizes, np.split(whole, ends), strict=True))
