"""The log-probabilities of preference pairs in the reference model, computed once and stored in the folder of the run.

The reference is the model from which training starts. For an adapter, the reference is the base, also if training
continues an adapter that was trained before. reference.json states the data and the model of the log-probabilities,
and the SHA-256 of reference.bin. reference.bin contains one little-endian float64 for each sequence: first the training
sequences, then the validation sequences. Each checkpoint contains this SHA-256, so that a resumed run notices if the
numbers have changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn.arguments import integer, not_finite, sha256_digest
from toynn.data import DataFolder
from toynn.data.pairs import PairBatcher
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.engine import LlamaSeqEngine
from toynn.model.weights import ADAPTER_B
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.storage.checkpoint.meta import DataIdentity
from toynn.storage.checkpoint.names import NUMBERS, REFERENCE
from toynn.storage.durable_files import replace_file
from toynn.storage.formats import Format
from toynn.storage.regular_files import naming_file, read_regular
from toynn.training.data_identity import data_identity
from toynn.training.events import ReferenceProgress
from toynn.training.pairs_of_step import Array
from toynn.training.start import Start

FORMAT = Format("toynn-reference")


@dataclass(frozen=True)
class ReferenceMeta:
    """The keys of reference.json.

    data: the data whose pairs were computed.
    model_sha256: the SHA-256 of the file of the base, or of the names and values of all weights of the first step.
    train, validation: the number of sequences of each split.
    sha256: the SHA-256 of reference.bin.
    """

    data: DataIdentity
    model_sha256: str
    train: int
    validation: int
    sha256: str

    def __post_init__(self) -> None:
        for name in ("model_sha256", "sha256"):
            sha256_digest(name, getattr(self, name))
        for name in ("train", "validation"):
            integer(name, getattr(self, name), 0, 2**62)


@dataclass(frozen=True)
class Reference:
    """The log-probability of each sequence of both splits in the reference model, float64. sha256: the SHA-256 of these
    numbers.
    """

    train: Array
    validation: Array
    sha256: str


def reference_of(
    run: Path,
    start: Start,
    data: DataFolder,
    engine: LlamaSeqEngine,
    interrupted: Callable[[], bool],
    report: Callable[[ReferenceProgress], None],
    processes: Processes | None = None,
) -> Reference:
    """Return the log-probabilities in the reference model: read from the run, or computed and stored there.

    processes: the processes that train together. All of them call this function and compute, and process 0 reads and
    writes the files. None: the run has a single process.

    The engine must hold the model of the start, with the batch size of the run. The engine's graph is dropped, and its
    weights stay the same. A resumed run must have the files. A new run computes the log-probabilities, unless a
    killed run has already stored them for the same model and data. During the computation, `report` is called about a
    hundred times.

    Raises FileFormatError if the files of a resumed run are missing or damaged, or belong to other data or another
    base; TinyNNValueError if a log-probability is not finite; KeyboardInterrupt if `interrupted` returns true; or
    OSError if a file cannot be read or written.
    """
    with nullcontext() if processes is None else processes.together():
        stored = _stored(run, start, data, engine) if processes is None or processes.writes else None
    if processes is not None:
        stored = processes.from_writer(stored)
    if stored is not None:
        return stored
    train, validation = (PairBatcher(one, start.t_seq, None) for one in (data.train, data.validation))
    progress = _Progress(train.pairs + validation.pairs, report)
    with _without_adapter(start, engine):
        parts = [
            _log_probs(engine, train, interrupted, progress.reached, processes),
            _log_probs(engine, validation, interrupted, lambda done: progress.reached(train.pairs + done), processes),
        ]
    content = b"".join(one.astype("<f8").tobytes() for one in parts)
    sha256 = hashlib.sha256(content).hexdigest()
    if processes is None or processes.writes:
        sizes = (parts[0].size, parts[1].size)
        meta = ReferenceMeta(data_identity(data.meta), _sha256_of_model(start, engine), *sizes, sha256)
        for path, written in ((run / NUMBERS, content), (run / REFERENCE, _text(meta).encode("utf-8"))):
            with naming_file(path):
                replace_file(path, written)
    return Reference(parts[0], parts[1], sha256)


def _stored(run: Path, start: Start, data: DataFolder, engine: LlamaSeqEngine) -> Reference | None:
    """Return the log-probabilities that the folder of the run contains, or None for a new run without them."""
    identity = data_identity(data.meta)
    if start.state is not None:
        found = load_reference(run)
        if found is None:
            raise FileFormatError(f"{run / REFERENCE} is missing, so the run cannot be resumed; restore the file")
        meta, reference = found
        if reference.sha256 != start.state.progress.reference:
            raise FileFormatError(
                f"{run / NUMBERS} has the SHA-256 {reference.sha256}, but must have the SHA-256 "
                f"{start.state.progress.reference}, as at the start of the run; restore the file"
            )
        if meta.data != identity:
            ours, of_run = dataclasses.asdict(meta.data), dataclasses.asdict(identity)
            part = next(name for name in of_run if ours[name] != of_run[name])
            raise FileFormatError(
                f"{run / REFERENCE} belongs to other data: its SHA-256 {part!r} is {ours[part]}, but the data of the "
                f"run has {of_run[part]}; restore the file"
            )
        if start.base is not None and meta.model_sha256 != start.base.identity.sha256:
            raise FileFormatError(
                f"{run / REFERENCE} belongs to the base with SHA-256 {meta.model_sha256}, but the base of the run has "
                f"{start.base.identity.sha256}; restore the file"
            )
        return reference
    found = _of_killed_run(run)
    if found is not None and found[0].data == identity and found[0].model_sha256 == _sha256_of_model(start, engine):
        return found[1]
    return None


def _of_killed_run(run: Path) -> tuple[ReferenceMeta, Reference] | None:
    """Return what a killed run without checkpoints has stored, or None if its files do not belong together.

    The files do not belong together if the run was killed after it had replaced one of the two files of an earlier run.
    """
    try:
        return load_reference(run)
    except FileFormatError:
        return None


def load_reference(run: Path) -> tuple[ReferenceMeta, Reference] | None:
    """Return the log-probabilities in the folder of a run, or None without files. Raises FileFormatError if a file is
    damaged, or OSError if a file cannot be read.
    """
    try:
        meta = FORMAT.load(run / REFERENCE, ReferenceMeta)
    except FileNotFoundError:
        return None
    try:
        content = read_regular(run / NUMBERS)
    except FileNotFoundError:
        raise FileFormatError(f"{run / NUMBERS} is missing; restore the file") from None
    if len(content) != 8 * (meta.train + meta.validation) or hashlib.sha256(content).hexdigest() != meta.sha256:
        raise FileFormatError(
            f"{run / NUMBERS} is damaged: its {len(content)} bytes do not have the size and the SHA-256 that "
            f"{REFERENCE} states; restore the file"
        )
    numbers = np.frombuffer(content, dtype="<f8").astype(np.float64)
    if (wrong := not_finite(numbers)) is not None:
        raise FileFormatError(f"{run / NUMBERS} is damaged: it must contain only finite numbers, got {wrong}")
    return meta, Reference(numbers[: meta.train], numbers[meta.train :], meta.sha256)


def _text(meta: ReferenceMeta) -> str:
    return FORMAT.text(dataclasses.asdict(meta))


def _sha256_of_model(start: Start, engine: LlamaSeqEngine) -> str:
    if start.base is not None:
        return start.base.identity.sha256
    digest = hashlib.sha256()
    for name in engine.weights:
        digest.update(name.encode("utf-8") + b"\0")
        digest.update(engine.download_weight(name).astype("<f4").tobytes())
    return digest.hexdigest()


@contextmanager
def _without_adapter(start: Start, engine: LlamaSeqEngine) -> Iterator[None]:
    """Set the matrices B of the adapter to 0 in the block, so that the engine computes the base."""
    spec = start.config.adapter.spec()
    names = [] if spec is None else [one.name for one in spec.weights(start.shape) if one.adapter == ADAPTER_B]
    kept = {name: engine.download_weight(name) for name in names}
    for name, values in kept.items():
        engine.upload_weight(name, np.zeros_like(values))
    try:
        yield
    finally:
        for name, values in kept.items():
            engine.upload_weight(name, values)


class _Progress:
    """Reports each hundredth of the pairs that are computed. pairs: number of pairs of both splits."""

    def __init__(self, pairs: int, report: Callable[[ReferenceProgress], None]) -> None:
        self._pairs, self._report, self._done = pairs, report, 0

    def reached(self, done: int) -> None:
        """Note that `done` pairs are computed. Report this if the percentage of all pairs, rounded down, has grown."""
        before, self._done = self._done, done
        if 100 * done // self._pairs > 100 * before // self._pairs:
            self._report(ReferenceProgress(done, self._pairs))


def _log_probs(
    engine: LlamaSeqEngine,
    pairs: PairBatcher,
    interrupted: Callable[[], bool],
    reached: Callable[[int], None],
    processes: Processes | None,
) -> Array:
    """Return the log-probability of each sequence of a split, float64 (2 * pairs,)."""
    n = engine.seq_b // 2

    def compute(first: int) -> Array:
        if interrupted():
            raise KeyboardInterrupt
        numbers = np.arange(first, min(first + n, pairs.pairs))
        engine.mean_loss(*pairs.cut(numbers, n))
        reached(first + numbers.size)
        return -engine.window_losses()[: 2 * numbers.size]

    found = np.concatenate([np.zeros(0), *in_turn(processes, range(0, pairs.pairs, n), compute)])
    reached(pairs.pairs)
    if (wrong := not_finite(found)) is not None:
        error = TinyNNValueError(
            f"the log-probabilities of the reference must be finite, got {wrong}; start from another model"
        )
        raise error if processes is None else processes.shared(error)
    return found
