"""Evaluate a model on preference pairs: its loss, rewards and log-probabilities, compared with a reference."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toynn.api.load_model import model_identity, open_decoder
from toynn.data import DataFolder, PackedTokens
from toynn.data.meta import META, load_meta
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.fused.decoder import LlamaDecoder
from toynn.llm.preference import Preference
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.storage.checkpoint import Checkpoint
from toynn.training.data_identity import data_identity
from toynn.training.events import PairFigures
from toynn.training.pairs_of_step import figures_of_pairs
from toynn.training.preference_config import PreferenceArgs
from toynn.training.reference import load_reference
from toynn.training.start import own_config
from toynn.wording import spelled

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairEvaluation(Initialised):
    """The loss, the rewards and the log-probabilities of the validation pairs of a data folder.

    pairs: number of pairs. loss: mean loss of a pair. figures: means of the rewards and log-probabilities.
    """

    pairs: int
    loss: float
    figures: PairFigures


def has_pairs(path: Path) -> bool:
    """Return whether a path is a data folder of preference pairs. Raises FileFormatError if the folder is damaged."""
    return (path / META).is_file() and bool(load_meta(path).pairs)


def evaluate_preference(
    model: Path,
    data: Path,
    *,
    which: str = "latest",
    base: Path | None = None,
    reference: Path | None = None,
    n_threads: int | None = None,
    processes: Processes | None = None,
) -> PairEvaluation:
    """Return the loss, the rewards and the log-probabilities of a model on the validation pairs of a data folder.

    reference: the model with which the log-probabilities are compared. Default: if `model` is a run on the same data,
    the reference of this run. If `model` is a run, the loss has the settings of the run, otherwise it is the loss of
    DPO with the default settings.
    processes: the processes of a job that divide the pairs among themselves, as for `TextModel.evaluate`.

    Raises TinyNNValueError if there is no reference, if the vocabularies differ, or if a pair is longer than the
    context of a model. Also raises the errors of `toynn.load`.
    """
    folder = DataFolder.open(data)
    pairs = folder.validation
    if pairs.starts is None or pairs.starts.size == 0:
        raise TinyNNValueError(
            f"data: {data} has no validation pairs; prepare the pairs with {spelled('validation=', '--validation')} "
            "above 0"
        )
    with open_decoder(model, which, base, n_threads=n_threads) as (source, decoder):
        stored = None if reference is not None else _stored(source, folder)
        if reference is None and stored is None:
            raise TinyNNValueError(
                f"{source.path} stores no log-probabilities of a reference model for these pairs; name the model with "
                f"{spelled('reference=', '--reference')}"
            )
        now = _log_probs(decoder, pairs, source.path, processes)
        preference = _preference_of(source)
    if reference is not None:
        with open_decoder(reference, "latest", None, n_threads=n_threads) as (source, decoder):
            stored = _log_probs(decoder, pairs, source.path, processes)
    if stored is None:
        raise AssertionError("bug in toynn: the reference model has not read the pairs; please report it")
    loss = _loss(now - stored, preference, pairs)
    return PairEvaluation(now.size // 2, loss, figures_of_pairs(now, stored, preference.beta))


def _preference_of(source: Checkpoint) -> Preference:
    own = None if source.training is None else own_config(source).preference
    return PreferenceArgs().preference() if own is None else own


def _stored(source: Checkpoint, data: DataFolder) -> Array | None:
    """Return the log-probabilities of the validation split in the reference model, as the run of a checkpoint has
    stored them. Return None if the run has not stored them for this data.
    """
    if source.training is None or source.training.progress.reference is None:
        return None
    found = load_reference(source.path.parent.parent)
    if found is None or found[1].sha256 != source.training.progress.reference:
        return None
    return found[1].validation if found[0].data == data_identity(data.meta) else None


def _log_probs(decoder: LlamaDecoder, pairs: PackedTokens, name: Path, processes: Processes | None) -> Array:
    """Return the log-probability of each sequence, float64 (2 * pairs,). Several processes divide the sequences among
    themselves.
    """
    if processes is not None:
        data = data_identity(pairs.meta).validation
        processes.compare({"version of toynn": version("toynn"), "model": model_identity(name), "data": data})
    if pairs.meta.vocab_size > decoder.cfg.vocab:
        raise TinyNNValueError(
            f"data has a vocabulary of {pairs.meta.vocab_size} tokens, but {name} has only {decoder.cfg.vocab}; use "
            "data that was prepared with the tokenizer of the model"
        )
    ends = _ends(pairs)
    if (longest := int(np.diff(ends).max()) - 1) > decoder.cfg.ctx:
        raise TinyNNValueError(
            f"data: the longest sequence needs a context of {longest} tokens, but {name} has a context of only "
            f"{decoder.cfg.ctx}; prepare shorter pairs with {spelled('max_tokens=', '--max-tokens')}"
        )

    def log_prob(i: int) -> float:
        first, end = ends[i], ends[i + 1]
        losses = decoder.score(np.asarray(pairs.tokens[first:end], dtype=np.int32)).astype(np.float64)
        # the losses are added one after the other, as in training (`sums_of_windows`)
        return -float(np.add.accumulate(np.where(_counted(pairs)[first + 1 : end], losses, 0.0))[-1])

    return np.array(in_turn(processes, range(ends.size - 1), log_prob))


def _loss(change: Array, preference: Preference, pairs: PackedTokens) -> float:
    """Return the mean loss of pairs. change: for each sequence, its log-probability minus its log-probability in the
    reference model.
    """
    if preference.kind == "ipo":
        ends, counted = _ends(pairs), _counted(pairs)
        counts = [int(counted[first + 1 : end].sum()) for first, end in itertools.pairwise(ends)]
        change = change / np.array(counts)
    margins, beta, smoothing = change[::2] - change[1::2], preference.beta, preference.label_smoothing
    if preference.kind == "ipo":
        losses = (margins - 1 / (2 * beta)) ** 2
    elif preference.kind == "hinge":
        losses = np.maximum(1 - beta * margins, 0)
    else:
        z = beta * margins
        losses = (1 - smoothing) * np.logaddexp(0, -z) + smoothing * np.logaddexp(0, z)
    return float(losses.mean())


def _ends(pairs: PackedTokens) -> npt.NDArray[np.int64]:
    return np.append(np.asarray(pairs.starts, dtype=np.int64), len(pairs))


def _counted(pairs: PackedTokens) -> npt.NDArray[np.uint8]:
    if pairs.counted is None:
        raise AssertionError("bug in toynn: no token of the pairs counts for the loss; please report it")
    return pairs.counted
