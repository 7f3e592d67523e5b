"""Take the steps of a run in several processes, with the same bits as a single process.

Each process computes the gradients of its windows (`shares.WindowShare`). Each process receives its slice of the
gradient from all processes, and adds the received sums of windows in the order of a binary tree
(csrc/kernels/window_sums.h). The process updates its slice of the weights, and all processes receive the updated
slices. Gradients and weights are exchanged in buckets (`bucket_exchange.BucketExchange`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from toynn.arguments import FloatArray
from toynn.data.windows import Batch, Windows
from toynn.errors import TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORED
from toynn.llm.window_sums import largest_nodes, step_loss
from toynn.model.weights import MOMENTS
from toynn.parallel.processes import Processes
from toynn.storage.tensor_files import MadeTensors, Tensors
from toynn.tinynn import tnn_session_n_threads
from toynn.training.bucket_exchange import BucketExchange, by_name
from toynn.training.config import TrainConfig
from toynn.training.divergence import SQUARES, DivergedError, first_not_finite
from toynn.training.shard import Shard
from toynn.training.sharded_adamw import ShardedAdamW, norm_and_factor, squares_of_piece
from toynn.training.sharded_muon import MuonSteps, ShardedMuon
from toynn.training.shares import Bucket, WindowShare, buckets_of, buckets_of_matrices
from toynn.training.step import StepResult, StepsOnWindows


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
        self._moments = moments
        self._shards: list[tuple[Bucket, Shard]] = []
        self._exchange: BucketExchange | None = None

    def _divide(self, places: Mapping[str, tuple[int, ...]]) -> BucketExchange:
        """Divide the weights into buckets, and copy weights and moments to the shards of this process.

        places: the result of `LlamaSeqEngine.gradient_places`. Gradients are computed in the order of their places.
        """
        order = sorted(places, key=lambda name: max(places[name]))
        self._shards = self._empty_shards(order)
        self._shards.sort(key=lambda one: max(max(places[name]) for name in one[0].sizes))
        moments, self._moments = self._moments, {}
        for _, shard in self._shards:
            for piece, place in shard.places():
                values = self._engine.download_weight(piece.name)
                shard.weights[place] = values.reshape(-1)[piece.begin : piece.end]
                for end in shard.ends if moments else ():
                    shard.set_moment(end, place, moments[piece.name + end].reshape(-1)[piece.begin : piece.end])
        own = self._sequences.batch * self._sequences.batches
        nodes = [largest_nodes(i * own, own) for i in range(self._processes.n)]
        return BucketExchange(self._engine, self._processes, self._shards, nodes, self._sequences.windows)

    def _empty_shards(self, order: list[str]) -> list[tuple[Bucket, Shard]]:
        """Return the buckets, and this process's shard of each bucket. order: the names of all trained weights."""
        engine, rank, n = self._engine, self._processes.rank, self._processes.n
        described = {one.name: one for one in engine.trained_weights()}
        weights, kind = [described[name] for name in order], self._config.optimizer_kind
        bf16 = self._config.optimizer.moments == "bf16"  # the type of the moments of matrices
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

    def build_graph(self, length: int | None = None) -> BucketExchange:
        """Build the training graph, if the engine does not have it, as `TrainingSteps.build_graph` does.

        Return the exchange of its gradients.
        """
        length, exchange = self._windows.longest if length is None else length, self._exchange
        if exchange is None or not self._built or self._engine.seq_t != length:
            self._engine.use_sequence_length(length)
            self._engine.build_training_step(
                batches=self._share.batches,
                recompute=self._config.train.recompute,
                packed=self._config.data.shares_windows,
                preference=self._config.preference,
                first_window=self._sequences.first,
            )
            places = self._engine.gradient_places()
            self._exchange = exchange = exchange or self._divide(places)
            exchange.use_graph(places)
            self._built = True
        return exchange

    def take(self, step: int) -> StepResult:
        """Take a step. step: the number of the step, from 1.

        Raises DivergedError in all processes if the loss or the gradient norm is NaN or infinite; the weights are then
        unchanged.
        """
        exchange = self.build_graph(self._windows.length((step - 1) * self._share.windows))
        counted = self._divisor(step)
        losses = self._compute(step, counted, exchange)
        loss = step_loss(losses, counted)
        if not np.isfinite(losses).all():
            raise self._divergence(step, f"loss is {loss}", counted)
        norm, factor = self._norm()
        if not math.isfinite(norm):
            raise self._divergence(step, f"gradients' norm is {norm}", counted)
        values = self._optimizer.values(step)
        exchange.exchange_weights(lambda shard: shard.step(values, factor))
        return StepResult(loss, self._optimizer.learning_rate(step), norm, self._figures())

    def moments(self) -> Tensors:
        """Return all moments by name in process 0, and nothing in the other processes."""
        if self._exchange is None:
            self.build_graph()
        found: dict[str, FloatArray] = {}
        bf16: set[str] = set()
        for bucket, shard in self._shards:
            for end in shard.ends:
                whole = self._processes.collect_slices(shard.moment(end), bucket.counts())
                for name, values in {} if whole is None else by_name(bucket, whole).items():
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

    def _compute(self, step: int, counted: int, exchange: BucketExchange) -> list[float]:
        """Compute the gradients of this process's windows, and exchange them while the last batch is computed.

        Return the losses of all windows of the step.
        """
        losses: list[float] = []
        for i in range(self._share.batches):
            batch = self._batch(step, i)
            given = (batch.ids, batch.targets, counted)
            more = {"accumulate": i > 0, "starts": batch.starts, **self._inputs(self._start(step, i))}
            if i < self._share.batches - 1:
                self._engine.add_gradients(*given, **more)
            else:
                self._engine.begin_gradients(*given, **more)
                exchange.exchange_gradients()
            losses += self._losses()
        return [loss for of_process in self._processes.gathered(losses) for loss in of_process]

    def _norm(self) -> tuple[float, np.float32]:
        """Return the norm of the whole gradient, and the factor that clips it."""
        squares = {name: np.zeros(64) for name in self._sizes}
        for _, shard in self._shards:
            for piece, place in shard.places():
                squares[piece.name] += squares_of_piece(piece, self._sizes[piece.name], shard.gradient[place])
        flat = np.concatenate(list(squares.values()))
        self._processes.sums(flat)
        return norm_and_factor(flat, self._optimizer.max_norm)

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
