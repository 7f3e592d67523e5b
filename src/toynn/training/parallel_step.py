"""Take the steps of a run in several processes, with the same bits as a single process.

Each process computes the gradients of its windows (`shares.WindowShare`). Then each process receives its slice of the
gradient from all processes, and adds the received nodes in the order of the tree over the windows
(csrc/kernels/window_sums.h). The process updates its slice of the weights, and all processes receive the updated
slices. Weights are exchanged in buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray
from toynn.data.windows import Batch, Windows
from toynn.errors import TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.llm.window_sums import largest_nodes, step_loss, sum_of_nodes
from toynn.model.weights import MOMENTS
from toynn.parallel.processes import Processes
from toynn.storage.tensor_files import MadeTensors, Tensors
from toynn.tinynn import tnn_session_n_threads, tnn_upload_from_float_array
from toynn.training.config import TrainConfig
from toynn.training.divergence import SQUARES, DivergedError, first_not_finite
from toynn.training.shard import Shard
from toynn.training.sharded_adamw import ShardedAdamW, norm_and_factor, squares_of_piece
from toynn.training.sharded_muon import MuonSteps, ShardedMuon
from toynn.training.shares import Bucket, WindowShare, buckets_of, buckets_of_matrices
from toynn.training.step import StepResult, StepsOnWindows

F32 = npt.NDArray[np.float32]


class ParallelSteps(StepsOnWindows):
    """Takes the steps of a run on an engine that was realized with optimizer="none", together with other processes.

    All processes must call the methods in the same order. In a run on preference pairs, a window is a pair of
    sequences.

    moments: the moments of a resumed run by name; empty for a new run.
    """

    def __init__(
        self,
        engine: LlamaSeqEngine,
        windows: Windows,
        config: TrainConfig,
        processes: Processes,
        share: WindowShare,
        moments: Mapping[str, FloatArray],
    ) -> None:
        super().__init__(engine, windows, config)
        self._processes, self._share = processes, share
        self._sequences = share.of_sequences(config.windows_of_batch // config.train.batch)
        self._sizes = {one.name: math.prod(one.size) for one in engine.trained_weights()}
        self._shards = self._empty_shards(config.optimizer.kind, config.optimizer.moments == "bf16")
        for _, shard in self._shards:
            for piece, place in shard.places():
                shard.weights[place] = engine.download_weight(piece.name).reshape(-1)[piece.begin : piece.end]
                for end in shard.ends if moments else ():
                    shard.set_moment(end, place, moments[piece.name + end].reshape(-1)[piece.begin : piece.end])
        own = self._sequences.batch * self._sequences.batches
        # the nodes of the sums for the windows of each process
        self._nodes = [largest_nodes(i * own, own) for i in range(processes.n)]
        self._places: dict[str, tuple[int, ...]] = {}
        self._buffers: tuple[F32, F32] = (np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))

    def _empty_shards(self, kind: str, bf16: bool) -> list[tuple[Bucket, Shard]]:
        """Return the buckets, and this process's shard of each bucket.

        kind: the optimizer of the configuration. bf16: the moments of matrices are bfloat16.
        """
        engine, rank, n = self._engine, self._processes.rank, self._processes.n
        weights = engine.trained_weights()
        shapes = {one.name: one.size for one in weights if one.moments(kind) == ShardedMuon.ends}
        decays = {one.name: one.decays for one in weights if one.name not in shapes}
        steps = MuonSteps(tnn_session_n_threads(engine.sess))
        by_muon = buckets_of_matrices(shapes, n)
        shards: list[tuple[Bucket, Shard]] = [
            (bucket, ShardedMuon(list(bucket.slices[rank]), bf16, shapes, steps)) for bucket in by_muon
        ]
        matrices = {one.name for one in weights if len(one.size) == 2}
        for in_bf16 in (True, False):  # a shard has moments of one type
            names = [name for name in decays if (bf16 and name in matrices) == in_bf16]
            shards += [
                (bucket, ShardedAdamW(list(bucket.slices[rank]), in_bf16, decays))
                for bucket in buckets_of({name: self._sizes[name] for name in names}, n)
            ]
        return shards

    def build_graph(self, length: int | None = None) -> None:
        """Build the training graph, if the engine does not have it, as `TrainingSteps.build_graph` does."""
        length = self._windows.longest if length is None else length
        if not self._built or self._engine.seq_t != length:
            self._engine.use_sequence_length(length)
            self._engine.build_training_step(
                batches=self._share.batches,
                recompute=self._config.train.recompute,
                packed=self._config.data.shares_windows,
                preference=self._config.preference,
                first_window=self._sequences.first,
            )
            self._places = self._engine.gradient_places()
            self._reserve_buffers()
            self._built = True

    def _reserve_buffers(self) -> None:
        """Allocate the arrays of the largest exchange. They are kept, because the first write to new memory is slow."""
        sent = [sum(self._lengths(bucket)) for bucket, _ in self._shards]
        received = [self._lengths(bucket)[self._processes.rank] for bucket, _ in self._shards]
        nodes, n = [len(of) for of in self._nodes], max(sum(bucket.counts()) for bucket, _ in self._shards)
        sizes = (nodes[self._processes.rank] * max(sent), max(sum(nodes) * max(received), n))
        if tuple(one.size for one in self._buffers) != sizes:
            self._buffers = (np.zeros(sizes[0], dtype=np.float32), np.zeros(sizes[1], dtype=np.float32))

    def _lengths(self, bucket: Bucket) -> list[int]:
        """Return the number of elements that each process gets of a node of the tree."""
        return [sum(piece.size * len(self._places[piece.name]) for piece in pieces) for pieces in bucket.slices]

    def take(self, step: int) -> StepResult:
        """Take a step. step: the number of the step, from 1.

        Raises DivergedError in all processes if the loss or the gradient norm is NaN or infinite; the weights are then
        unchanged.
        """
        self.build_graph(self._windows.length((step - 1) * self._share.windows))
        counted = self._divisor(step)
        losses = self._compute(step, counted)
        loss = step_loss(losses, counted)
        if not np.isfinite(losses).all():
            raise self._divergence(step, f"loss is {loss}", counted)
        for bucket, shard in self._shards:
            self._exchange(bucket, shard)
        norm, factor = self._norm()
        if not math.isfinite(norm):
            raise self._divergence(step, f"gradients' norm is {norm}", counted)
        values = self._optimizer.values(step)
        for bucket, shard in self._shards:
            shard.step(values, factor)
            self._spread(bucket, shard)
        return StepResult(loss, self._optimizer.learning_rate(step), norm, self._figures())

    def moments(self) -> Tensors:
        """Return all moments by name in process 0, and nothing in the other processes."""
        found: dict[str, FloatArray] = {}
        bf16: set[str] = set()
        for bucket, shard in self._shards:
            for end in shard.ends:
                whole = self._processes.collect_slices(shard.moment(end), bucket.counts())
                for name, values in {} if whole is None else self._by_name(bucket, whole).items():
                    found[name + end] = values
                    bf16 |= {name + end} if shard.bf16 else set()
        sizes = {one.name: one.size for one in self._engine.trained_weights()}
        order = [name + end for name in self._engine.param_names() for end in MOMENTS if name + end in found]
        shapes = {name: sizes[name[:-2]] for name in order}
        return MadeTensors(shapes, lambda name: found[name].reshape(shapes[name]), bf16)

    # ---- the parts of a step ----

    def _batch(self, step: int, i: int) -> Batch:
        """Return batch i of this process."""
        return self._windows.read(self._start(step, i), self._share.batch)

    def _start(self, step: int, i: int) -> int:
        """Return the number of the first window, or pair, of batch i of this process."""
        share = self._share
        return (step - 1) * share.windows + share.first + i * share.batch

    def _compute(self, step: int, counted: int) -> list[float]:
        """Compute the gradients of this process's windows. Return the losses of all windows of the step."""
        losses: list[float] = []
        for i in range(self._share.batches):
            batch = self._batch(step, i)
            inputs = self._inputs(self._start(step, i))
            self._engine.add_gradients(
                batch.ids, batch.targets, counted, accumulate=i > 0, starts=batch.starts, **inputs
            )
            losses += self._losses()
        return [loss for of_process in self._processes.gathered(losses) for loss in of_process]

    def _exchange(self, bucket: Bucket, shard: Shard) -> None:
        """Set the gradient of a shard, summed over all windows of the step."""
        rank, lengths, (sent, received) = self._processes.rank, self._lengths(bucket), self._buffers
        at = 0
        for pieces in bucket.slices:
            for first, level in self._nodes[rank]:
                for piece in pieces:
                    for place in self._places[piece.name]:
                        out = sent[at : at + piece.size]
                        self._engine.window_sum(first, level, place + piece.begin, piece.size, out)
                        at += piece.size
        sizes = [len(self._nodes[rank]) * length for length in lengths]
        counts = [len(of) * lengths[rank] for of in self._nodes]
        self._processes.exchange_slices(sent[:at], sizes, received[: sum(counts)], counts)
        nodes = [node for of_process in self._nodes for node in of_process]
        rows = received[: sum(counts)].reshape(len(nodes), lengths[rank])
        self._set_gradient(shard, sum_of_nodes(dict(zip(nodes, rows, strict=True)), self._sequences.windows))

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

    def _norm(self) -> tuple[float, np.float32]:
        """Return the norm of the whole gradient, and the factor that clips it."""
        squares = {name: np.zeros(64) for name in self._sizes}
        for _, shard in self._shards:
            for piece, place in shard.places():
                squares[piece.name] += squares_of_piece(piece, self._sizes[piece.name], shard.gradient[place])
        flat = np.concatenate(list(squares.values()))
        self._processes.sums(flat)
        return norm_and_factor(flat, self._optimizer.max_norm)

    def _spread(self, bucket: Bucket, shard: Shard) -> None:
        """Set the weights of a bucket, whose slices the processes have updated, in all processes."""
        counts = bucket.counts()
        whole = self._buffers[1][: sum(counts)]
        self._processes.gather_slices(shard.weights, whole, counts)
        tensors = self._engine.weights
        for name, values in self._by_name(bucket, whole).items():
            tnn_upload_from_float_array(self._engine.sess, tensors[name], values)

    def _by_name(self, bucket: Bucket, whole: F32) -> dict[str, F32]:
        """Divide the values of a bucket among its weights."""
        ends = np.cumsum(list(bucket.sizes.values()))[:-1]
        return dict(zip(bucket.sizes, np.split(whole, ends), strict=True))

    def _divergence(self, step: int, what: str, counted: int) -> DivergedError:
        """Find the first tensor that contains NaN or infinity, and return the error that names it, in all processes."""
        self._built = False
        batches = ((self._batch(step, i), self._inputs(self._start(step, i))) for i in range(self._share.batches))
        preference = self._config.preference
        found = (
            first_not_finite(self._engine, batch, None, counted, preference, **inputs) for batch, inputs in batches
        )
        names = self._processes.gathered(next((name for name in found if name is not None), None))
        tensor = next((name for name in names if name is not None), SQUARES)
        return self._processes.shared(DivergedError(step, what, tensor, self._config))

    # ---- what depends on the objective ----

    def _divisor(self, step: int) -> int:
        """Return the number of targets of the whole step that are not ignored. Raises TinyNNValueError for 0."""
        own = sum(int(np.count_nonzero(self._batch(step, i).targets != IGNORED)) for i in range(self._share.batches))
        counted = sum(self._processes.gathered(own))
        if counted == 0:
            raise self._processes.shared(
                TinyNNValueError(
                    f"step {step} has no target that counts for the loss: all targets are ignored; use a larger "
                    "train.batch or train.accumulate, or data with more counted tokens"
                )
            )
        return counted
