"""Predict the duration of a training step in several processes (docs/scaling.md)."""

from __future__ import annotations

from dataclasses import dataclass

FLOPS_PER_PARAMETER = 6  # floating-point operations for each parameter and token: 2 forward, 4 backward
BYTES = 4  # bytes of a parameter, or of its gradient
# Bytes that a process reads and writes for each parameter: copying a gradient to the messages (8), adding the received
# gradients (4), and copying the received weights to the model (8).
TOUCHED = 20
# The bytes that a process reads and writes, in addition, for each parameter of its own slice: the added gradient (8),
# the norm (4), and AdamW (28).
TOUCHED_OF_SLICE = 40
BUCKET, SLICE = 1 << 22, 1 << 16  # elements
BACKWARD = 2 / 3  # the share of the operations that are in the backward pass


@dataclass(frozen=True)
class Network:
    """The speed of the network and of the memory.

    latency: seconds until a message arrives. bandwidth: bytes per second that a process sends.

    memory: bytes per second that a process reads and writes in its memory while the other processes do the same.
    """

    latency: float
    bandwidth: float
    memory: float


@dataclass(frozen=True)
class StepCost:
    """The parts of a step in seconds.

    hidden: the seconds in which a process transfers and computes at the same time. They are contained in compute, and
    also in transfer or latency.
    """

    compute: float
    transfer: float
    latency: float
    memory: float
    hidden: float

    @property
    def seconds(self) -> float:
        return self.compute + self.transfer + self.latency + self.memory - self.hidden

    @property
    def efficiency(self) -> float:
        """The share of the step in which the processes compute."""
        return self.compute / self.seconds


def bucket_limit(n: int) -> int:
    """Return the largest number of elements of a bucket: the gradients that n processes exchange together.

    During the transfer of a bucket, the processes compute the gradients of the next buckets. If the buckets are larger,
    less computation is left for this time. Each process gets a slice of a bucket. If there are many processes and the
    slices are small, the latency of the messages dominates. Therefore the limit grows with n.
    """
    return max(BUCKET, n * SLICE)


def step_cost(
    parameters: float,
    tokens: float,
    flops: float,
    n: int,
    network: Network,
    *,
    batches: float = 1,
    embedding: float = 0,
) -> StepCost:
    """Return the cost of a step of n processes, each of which computes `flops` operations per second.

    parameters: number of trained parameters.
    tokens: number of tokens of the whole step.
    batches: number of batches of a process. Only the backward pass of the last batch hides transfers.
    embedding: number of parameters of the embedding. The gradient of the embedding is computed last, so its transfer is
        not hidden.

    The windows of each process must be one node of the binary tree in which windows are added (see
    `toynn.llm.window_sums`). Each gradient is then sent once.
    """
    touched = parameters * (TOUCHED + TOUCHED_OF_SLICE / n)
    sent = 2 * BYTES * parameters * (n - 1) / n  # an all-to-all exchange of gradients and an all-gather of weights
    messages = 2 * (n - 1) * max(parameters / bucket_limit(n), 1)
    compute, transfer = FLOPS_PER_PARAMETER * parameters * tokens / (n * flops), sent / network.bandwidth
    latency = messages * network.latency
    last = min(max(bucket_limit(n), embedding) / parameters, 1)  # the share of the parameters in the last bucket
    return StepCost(
        compute=compute,
        transfer=transfer,
        latency=latency,
        memory=touched / network.memory,
        hidden=min((transfer + latency) / 2 * (1 - last), BACKWARD * compute / batches),
    )
