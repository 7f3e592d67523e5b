"""Say in the terms of the configuration that a batch is too large, with the memory that a step needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.model.shape import ModelShape
from toynn.tinynn import tnn_available_memory, tnn_session_compute_nbytes, tnn_session_weights_nbytes
from toynn.training.config import StepArgs
from toynn.training.optimizer import DECAY_VECTORS


@contextmanager
def naming_the_batch(
    engine: LlamaSeqEngine,
    shape: ModelShape,
    t_seq: int,
    train: StepArgs,
    refused: tuple[type[Exception], ...] = (TinyNNMemoryError, TinyNNValueError),
) -> Iterator[None]:
    """Guard code that makes a model of the fused layout and its training graph, with valid arguments.

    Raises TinyNNMemoryError for a batch that does not fit into memory, and ConfigurationError for one that exceeds a
    limit of ggml, both with the name of the key. If one window does not fit either, the message names train.t_seq, or
    passes unchanged if the model itself does not fit. The engine is closed then. refused: the errors that mean this.
    """
    try:
        yield
    except refused as error:
        engine.close()  # its memory counts as available
        kind = TinyNNMemoryError if isinstance(error, TinyNNMemoryError) else ConfigurationError
        message = _explanation(shape, t_seq, train.batch, train.accumulate > 1)
        if message is None:
            raise
        raise kind(message) from error


def _explanation(shape: ModelShape, t_seq: int, batch: int, keep_gradients: bool) -> str | None:
    one = _bytes_of_a_step(shape, t_seq, 1, keep_gradients)
    if one is None:
        if t_seq == 1 or _bytes_of_a_step(shape, 1, 1, keep_gradients) is None:
            return None
        return (
            f"train.t_seq = {t_seq} is too large: a step with a single window of that length does not fit into "
            f"memory, {_gigabytes(tnn_available_memory())} are available"
        )
    if batch == 1:
        return None
    two = _bytes_of_a_step(shape, t_seq, 2, keep_gradients)
    available = tnn_available_memory()
    if two is None:
        return f"train.batch = {batch} is too large: a single window of {t_seq} tokens needs {_gigabytes(one)}"
    window = max(two - one, 1)
    need = one + (batch - 1) * window
    fits = (available - one) // window + 1
    hint = f"about {fits} would fit; " if 1 <= fits < batch else ""
    return (
        f"train.batch = {batch} is too large: a step with windows of {t_seq} tokens would need {_gigabytes(need)}, "
        f"{_gigabytes(available)} are available; {hint}train.accumulate adds up smaller batches"
    )


def _bytes_of_a_step(shape: ModelShape, t_seq: int, batch: int, keep_gradients: bool) -> int | None:
    """Return the memory of a model and its training graph, or None if that does not fit either."""
    with LlamaSeqEngine() as engine:
        try:
            engine.realize(shape, RecipeOptions(t_seq=t_seq, t_batch=batch, n_threads=1, layout="fused"))
            build_graph(engine, keep_gradients)
        except (TinyNNMemoryError, TinyNNValueError):
            return None
        return tnn_session_weights_nbytes(engine.sess) + tnn_session_compute_nbytes(engine.sess)


def build_graph(engine: LlamaSeqEngine, keep_gradients: bool) -> None:
    """Build the graph that training computes. keep_gradients: for steps of several batches."""
    engine.build_training_step(clip=True, decay_vectors=DECAY_VECTORS, keep_gradients=keep_gradients)


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
