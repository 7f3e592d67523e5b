"""Compute losses on token ids as the Ruby project toy does: over windows, and on the line between two models."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from toynn.api.load_model import read_model
from toynn.api.text_model import TextModel
from toynn.arguments import FLOAT32_MAX, INT31_MAX, FloatArray, float64, instance_of, integer, kind_of
from toynn.data import PackedTokens
from toynn.data.token_file import open_token_file
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import next_token
from toynn.llm.layouts import to_per_head
from toynn.llm.options import RecipeOptions
from toynn.model.trained_model import TrainedModel
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.storage.regular_files import path_of

Model: TypeAlias = "str | os.PathLike[str] | TextModel | TrainedModel"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
WINDOW, TOKENS = 32, 8192  # the defaults of the Ruby project toy
_MOST_ALPHAS = 10_000


@dataclass(frozen=True)
class WindowedLoss(Initialised):
    """The mean loss over windows.

    tokens: number of tokens in all windows.
    ce: mean loss in nats per token; the last id of a window predicts itself.
    """

    windows: int
    tokens: int
    ce: float


@dataclass(frozen=True)
class _Ids:
    """Token ids that are read only when needed. read(first, n) returns n ids, int32, from position `first` on.

    counted: for each id, 1 if it counts for the loss, otherwise 0; None: every id counts.
    starts: the position of the first id of each sample, int64; None: the ids were not made of samples.
    """

    name: str
    n: int
    read: Callable[[int, int], npt.NDArray[np.int32]]
    counted: npt.NDArray[np.uint8] | None = None
    starts: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class IdSequences:
    """Token ids in the sequences that a model sees one at a time: the samples of the data, or all ids in one sequence.

    counted: for each sequence, 1 for each id that counts for the loss, otherwise 0.
    """

    ids: list[npt.NDArray[np.int32]]
    counted: list[npt.NDArray[np.uint8]]


def eval_ce(
    model: Model,
    data: str | os.PathLike[str],
    *,
    window: int = WINDOW,
    tokens: int = TOKENS,
    offset: int = 0,
    n_threads: int | None = None,
    processes: Processes | None = None,
) -> WindowedLoss:
    """Return the loss of a model on packed token ids, as `toy eval ce` of the Ruby project toy computes it.

    The ids are divided into windows of `window` ids that do not overlap. The model sees one window at a time. In a
    window, each id predicts the next, and the last one predicts itself. `toynn eval --ids` does not count this last
    prediction, and counts only the tokens that count for the loss.

    Args:
        model: a path that `toynn.load` accepts, a `TextModel`, or a `TrainedModel`.
        data: a file of packed token ids, or a data folder, of which the validation split is read.
        window: number of ids in a window, at most the context length.
        tokens: the largest number of ids to read. offset: position of the first id.
        processes: the processes of a job that divide the windows among themselves, as for `TextModel.evaluate`.

    Raises:
        TinyNNValueError: an argument is wrong (the message names it); the vocabulary of the data differs from the
            model's; there is no complete window after the offset.
        FileFormatError: a file is damaged, or has an id outside the model's vocabulary.
        TinyNNTypeError: an argument has the wrong type. OSError: a file cannot be read.
    """
    if processes is not None:
        instance_of("processes", processes, Processes)
    values = _values(model)
    with _ids_of(data, values.shape.vocab) as source, _engine(values, window, n_threads) as engine:
        return _windowed(engine, source, tokens, offset, processes)


def lmc(
    a: Model,
    b: Model,
    data: str | os.PathLike[str],
    *,
    alphas: Sequence[float] = ALPHAS,
    window: int = WINDOW,
    tokens: int | None = None,
    offset: int = 0,
    n_threads: int | None = None,
) -> list[tuple[float, float]]:
    """Return the loss along the line between two models (linear mode connectivity), as pairs of alpha and loss.

    The weights at alpha are (1 - alpha) * a + alpha * b, computed in float64 and rounded once. The loss is that of
    `eval_ce`, by default on the first window.

    Args:
        a, b: models of the same shape, as for `eval_ce`.
        alphas: the points on the line, finite numbers: 0 is model a, 1 is model b.
        data, window, offset: as for `eval_ce`. tokens: the largest number of ids to read. Default: one window.

    Raises the errors of `eval_ce`, and TinyNNValueError for models of different shapes, or for a weight on the line
    that is too large for float32.
    """
    points = _alphas(alphas)
    one, other = _values(a), _values(b)
    if (name := one.shape.differing_field(other.shape)) is not None:
        was, now = getattr(one.shape, name), getattr(other.shape, name)
        raise TinyNNValueError(
            f"the models a and b must have the same shape, but {name} is {was!r} in the model a and {now!r} in "
            "the model b"
        )
    losses = []
    with _ids_of(data, one.shape.vocab) as source, _engine(one, window, n_threads) as engine:
        for alpha in points:
            for name, values in to_per_head(_between(one, other, alpha), one.shape).items():
                engine.upload_weight(name, values)
            losses.append((alpha, _windowed(engine, source, window if tokens is None else tokens, offset).ce))
    return losses


def _between(a: TrainedModel, b: TrainedModel, alpha: float) -> dict[str, FloatArray]:
    weights = {}
    for name, values in a.weights.items():
        with np.errstate(over="ignore"):
            mixed = (1.0 - alpha) * values.astype(np.float64) + alpha * b.weights[name].astype(np.float64)
            weights[name] = mixed.astype(np.float32)
        if not np.isfinite(weights[name]).all():
            raise TinyNNValueError(
                f"alphas: at {alpha!r}, {name} would have values above {FLOAT32_MAX:.3g}, which do not fit into "
                "float32; use numbers from 0 to 1"
            )
    return weights


def _windowed(
    engine: LlamaSeqEngine, ids: _Ids, tokens: int, offset: int, processes: Processes | None = None
) -> WindowedLoss:
    t, vocab = engine.seq_t, engine.cfg.vocab
    most = integer("tokens", tokens, 1, 2**62) // t
    offset = integer("offset", offset, 0, 2**62)
    if most < 1:
        raise TinyNNValueError(f"tokens must be at least {t} (the length of a window), got {tokens}")
    windows = min(most, (ids.n - offset) // t)
    if windows < 1:
        raise TinyNNValueError(f"offset = {offset} is too large: {ids.name} has {ids.n} ids, and a window needs {t}")

    def loss(i: int) -> float:
        part = ids.read(offset + i * t, t)
        return engine.mean_loss(part, next_token(part, vocab, t, 1))

    total = 0.0
    for one in in_turn(processes, range(windows), loss):
        total += one
    return WindowedLoss(windows, windows * t, total / windows)


# ---- arguments ----


def _values(model: object) -> TrainedModel:
    if isinstance(model, TextModel):
        return model.trained_model()
    return model if isinstance(model, TrainedModel) else read_model(path_of("model", model)).model


@contextmanager
def _engine(model: TrainedModel, window: int, n_threads: int | None) -> Iterator[LlamaSeqEngine]:
    """Yield an engine with the model in the per_head layout. Like the Ruby project toy, this layout computes with
    ggml's operators.
    """
    window = integer("window", window, 1, INT31_MAX)
    if window > model.shape.ctx:
        raise TinyNNValueError(f"window must be at most {model.shape.ctx} (the context length), got {window}")
    with LlamaSeqEngine() as engine:
        options = RecipeOptions(t_seq=window, n_threads=n_threads, layout="per_head")
        engine.realize(model.shape, options, to_per_head(model.weights, model.shape))
        yield engine


@contextmanager
def _ids_of(path: object, vocab: int) -> Iterator[_Ids]:
    """Yield the ids of a file or of the validation split of a data folder, and check that they fit the model."""
    place = path_of("data", path)
    if place.is_dir():
        packed = PackedTokens.open(place, "validation")
        if packed.meta.vocab_size > vocab:
            raise TinyNNValueError(
                f"data: {place} has a vocabulary of {packed.meta.vocab_size} tokens, but the model has only {vocab}; "
                "use data that was prepared with the tokenizer of the model"
            )
        tokens = packed.tokens
        read = lambda first, n: tokens[first : first + n].astype(np.int32)  # noqa: E731
        yield _Ids(str(place), len(packed), read, packed.counted, packed.starts)
        return
    with open_token_file("data", place) as file:
        if file.vocab not in (None, vocab):
            raise TinyNNValueError(
                f"data: the header of {place} states a vocabulary of {file.vocab} ids, but the model has {vocab}; use "
                "ids of the tokenizer of the model"
            )
        yield _Ids(str(place), file.n, lambda first, n: file.read(first, n, vocab))


def id_sequences(path: Path, vocab: int, most: int | None, offset: int) -> IdSequences:
    """Return at most `most` ids of a file or of the validation split of a data folder, from position `offset` on.

    In data made of samples, each sample is a sequence. A sequence of one id, in which nothing is predicted, is left
    out.

    Raises the errors of `eval_ce`, and TinyNNValueError if no id can be predicted.
    """
    with _ids_of(path, vocab) as ids:
        offset = integer("offset", offset, 0, 2**62)
        n = max(min(ids.n - offset, 2**62 if most is None else integer("tokens", most, 1, 2**62)), 0)
        if n < 2:
            raise TinyNNValueError(
                f"data: an evaluation needs at least 2 ids, but {path} has {n} from position {offset} on; use more "
                "ids or a smaller offset"
            )
        counted = np.ones(n, dtype=np.uint8) if ids.counted is None else np.array(ids.counted[offset : offset + n])
        cuts = np.zeros(0, dtype=np.int64) if ids.starts is None else ids.starts - offset
        cuts = cuts[(cuts > 0) & (cuts < n)]
        parts = zip(np.split(ids.read(offset, n), cuts), np.split(counted, cuts), strict=True)
        found = [(one, marks) for one, marks in parts if one.size > 1]
        if not any(marks[1:].any() for _, marks in found):
            raise TinyNNValueError(
                f"data: none of the {n} ids of {path} from position {offset} on counts for the loss; read more ids"
            )
        return IdSequences([one for one, _ in found], [marks for _, marks in found])


def _alphas(alphas: object) -> list[float]:
    flat = isinstance(alphas, np.ndarray) and alphas.ndim == 1
    if isinstance(alphas, str | bytes) or not (flat or isinstance(alphas, Sequence)):
        raise TinyNNTypeError(f"alphas must be a sequence of numbers, got {kind_of(alphas)}")
    n = len(alphas)  # type: ignore[arg-type]
    if not 1 <= n <= _MOST_ALPHAS:
        raise TinyNNValueError(f"alphas must have 1 to {_MOST_ALPHAS} numbers, got {n}")
    points = [float64("alphas", alpha) for alpha in alphas]  # type: ignore[attr-defined]
    if not all(map(math.isfinite, points)):
        raise TinyNNValueError(f"alphas must be finite numbers, got {points!r:.80}")
    return points
