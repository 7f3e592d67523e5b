"""Explain a lack of memory with the keys of the configuration: which key is too large, and how much memory it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.tinynn import tnn_available_memory, tnn_session_compute_nbytes, tnn_session_weights_nbytes
from toynn.training.config import TrainConfig
from toynn.training.optimizer import DECAY_VECTORS

# arguments: the engine, tokens per window, number of windows
Realize: TypeAlias = Callable[[LlamaSeqEngine, int, int], None]


@contextmanager
def naming_the_batch(
    engine: LlamaSeqEngine,
    realize: Realize,
    t_seq: int,
    config: TrainConfig,
    refused: tuple[type[Exception], ...] = (TinyNNMemoryError, TinyNNValueError),
) -> Iterator[None]:
    """Replace an error of the block, which creates a model and its training graph, by an error that names the key.

    Raises TinyNNMemoryError if a batch does not fit into memory, and ConfigurationError if it exceeds a limit of ggml.
    The message names train.batch, or train.t_seq if a single window is too large. If the model itself does not fit, the
    error passes unchanged. After an error the engine is closed.

    realize: a function that creates the model in an engine, for windows of a length and a number of windows.
    refused: the errors of the block to replace.

    The arguments of the block must be valid, so that these errors only mean that something is too large.
    """
    try:
        yield
    except refused as error:
        engine.close()  # the memory of the engine must be free before the message states how much memory is available
        kind = TinyNNMemoryError if isinstance(error, TinyNNMemoryError) else ConfigurationError
        message = _explanation(realize, t_seq, config)
        if message is None:
            raise
        raise kind(message + _advice(config)) from error


def _explanation(realize: Realize, t_seq: int, config: TrainConfig) -> str | None:
    batch = config.train.batch
    one = _bytes_of_a_step(realize, t_seq, 1, config)
    if one is None:
        if t_seq == 1 or _bytes_of_a_step(realize, 1, 1, config) is None:
            return None
        return (
            f"train.t_seq = {t_seq} (by default model.ctx) is too large: a step with a single window of {t_seq} tokens "
            f"does not fit into the available memory of {_gigabytes(tnn_available_memory())}; use a smaller train.t_seq"
        )
    if batch == 1:
        return None
    two = _bytes_of_a_step(realize, t_seq, 2, config)
    available = tnn_available_memory()
    if two is None:
        return (
            f"train.batch = {batch} is too large: a step with a single window of {t_seq} tokens needs "
            f"{_gigabytes(one)}, and two do not fit; set train.batch to 1 and train.accumulate to {batch}"
        )
    window = max(two - one, 1)
    need = one + (batch - 1) * window
    fits = (available - one) // window + 1
    hint = f"a batch of about {fits} would fit" if 1 <= fits < batch else "use a smaller batch"
    return (
        f"train.batch = {batch} is too large: a step with {batch} windows of {t_seq} tokens would need "
        f"{_gigabytes(need)}, but {_gigabytes(available)} are available; {hint}, and train.accumulate can combine "
        "several batches to one step"
    )


def _advice(config: TrainConfig) -> str:
    """Return the end of the message: the setting with which a step needs less memory and gives the same bytes."""
    return "" if config.train.recompute else "; train.recompute = true needs less memory and more time"


def _bytes_of_a_step(realize: Realize, t_seq: int, batch: int, config: TrainConfig) -> int | None:
    """Return the size of a model and its training graph in bytes, or None if they do not fit into memory."""
    with LlamaSeqEngine() as engine:
        try:
            realize(engine, t_seq, batch)
            build_graph(engine, config)
        except (TinyNNMemoryError, TinyNNValueError):
            return None
        return tnn_session_weights_nbytes(engine.sess) + tnn_session_compute_nbytes(engine.sess)


def build_graph(engine: LlamaSeqEngine, config: TrainConfig, packed: bool = False, batches: int | None = None) -> None:
    """Build the training graph of a run. packed: several samples or documents may share a window.

    engine: its model can be without an optimizer, as in a run with several processes.
    batches: number of batches of a step. Default: the number of batches of the last step.
    """
    train = config.train
    batches = config.batches_of(train.steps) if batches is None else batches
    engine.build_training_step(
        clip=engine.has_optimizer,
        decay_vectors=DECAY_VECTORS,
        keep_gradients=batches > 1,
        batches=batches,
        recompute=train.recompute,
        packed=packed,
        preference=config.preference,
    )


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
