"""Make a data folder from samples. The sources are read one sample at a time, so they may be larger than the memory.

This module needs the library tokenizers (extra toynn[cli]), and for conversations the library jinja2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from toynn.arguments import integer, real
from toynn.data.given_tokenizer import check_decoding, given_tokenizer
from toynn.data.learning import learned_bpe
from toynn.data.meta import (
    META,
    SPLITS,
    TEMPLATE,
    TOKENIZER,
    DataMeta,
    Source,
    Split,
    counted_file,
    dtype_of,
    starts_file,
    write_meta,
    write_template_file,
    write_tokenizer_file,
)
from toynn.data.prepare import LEAST_VOCAB, check_eos
from toynn.data.samples.encoding import Encoded
from toynn.data.samples.pairs import EncodedPair, are_pairs, sequences_of
from toynn.data.samples.rendering import Place, Refused, Rendered, render
from toynn.data.samples.settings import SampleSettings
from toynn.data.samples.splits import Division
from toynn.data.samples.summary import Summary, nothing_left
from toynn.data.samples.task import SampleTask, placed, sample_blocks
from toynn.data.samples.templates import ChatTemplates
from toynn.data.samples.writer import sample_writers
from toynn.data.sources import DataSource, Skipped
from toynn.data.splits import TRAIN
from toynn.data.text_task import TextTask
from toynn.data.texts import Texts, notes_on, survey
from toynn.data.texts_to_learn import Progress, texts_to_learn
from toynn.errors import TinyNNValueError
from toynn.parallel.workers import Workers, each_in_order
from toynn.storage.durable_files import sha256_of
from toynn.storage.new_folder import new_folder
from toynn.text.documents import Piece, encoded, separators_of
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import added_tokens, ids_needed
from toynn.wording import spelled

Note = Callable[[str], None]


@dataclass(frozen=True)
class _Task:
    """The sources, and the settings with which samples become tokens. templates: None if there is no chat template."""

    sources: Sequence[DataSource]
    settings: SampleSettings
    separators: tuple[str, ...]
    templates: ChatTemplates | None

    @property
    def weights(self) -> list[float]:
        return [source.weight for source in self.sources]

    @property
    def masked(self) -> bool:
        """True if some tokens do not count for the loss."""
        return self.settings.loss != "all" and any(one.form not in ("plain", "text") for one in self.sources)

    def rendered(self, source: DataSource, skipped: Skipped) -> Iterator[Rendered | Refused]:
        """Yield the samples of a source as text."""
        return render(sequences_of(placed(source, skipped)), self.templates, self.settings)

    def pieces(self) -> Iterator[Piece]:
        """Yield all texts, for learning a tokenizer."""
        start, document = 0, 0
        for source in self.sources:
            for text, ends in self._texts(source):
                yield Piece(document, start, text, ends)
                start += len(text.encode("utf-8"))
                document += ends

    def _texts(self, source: DataSource) -> Iterator[tuple[str, bool]]:
        if source.form == "plain":
            yield from ((one.text, one.ends_document) for one in Texts([source.path], self.separators).pieces())
            return
        for one in self.rendered(source, _tolerant()):
            if isinstance(one, Rendered) and one.text:
                yield one.text, True


def prepare_samples(
    sources: Sequence[DataSource],
    out: Path,
    settings: SampleSettings,
    *,
    templates: Mapping[str, str],
    template_tokens: Mapping[str, str],
    vocab_size: int | None,
    tokenizer: Path | bytes | None,
    validation: float,
    eos: str,
    separator: str | None,
    seed: int,
    progress: Progress | None = None,
    note: Note | None = None,
    workers: Workers | None = None,
) -> DataMeta:
    """Make the data folder `out` from samples: token files, the positions of the samples, and the tokens that count.

    Arguments as for `toynn.data.prepare.prepare`, and:
        sources: the files, also files of plain text, of which each document is a sample.
        templates: the chat templates by name; {} for none. template_tokens: the variables bos_token and others.
        progress: called with the stage, the number of samples done, and the number of all samples.
        workers: the other processes of a job, which encode parts of the samples. Default: none.

    Raises FileFormatError if a source is damaged or has more broken samples than tolerated. Also raises the errors of
    `prepare`.
    """
    share = real("validation", validation, lambda x: 0 <= x < 1, "at least 0 and below 1")
    check_eos(eos)
    integer("seed", seed, 0, 2**63 - 1)
    are_pairs(sources, settings)
    if vocab_size is not None:
        integer("vocab_size", vocab_size, LEAST_VOCAB)
    say: Note = note or (lambda _: None)
    report: Progress = progress or (lambda *_: None)
    masked_files = [counted_file(one) for one in SPLITS]
    files = [*(f"{one}.bin" for one in SPLITS), *map(starts_file, SPLITS), TOKENIZER]
    with contextlib.ExitStack() as stack:
        chat = stack.enter_context(ChatTemplates(templates, template_tokens)) if templates else None
        task = _Task(sources, settings, separators_of(separator, eos), chat)
        files += [*(masked_files if task.masked else []), *([TEMPLATE] if chat else []), META]
        folder = stack.enter_context(new_folder(spelled("out", "--out"), out, files))
        hashes = [(one.path.name, one.path.stat().st_size, sha256_of(one.path)) for one in sources]
        division = _divided(task, share, seed)
        model = None if tokenizer is None else given_tokenizer(tokenizer, eos)
        _check_texts(task, model, eos, say, chosen=separator is not None)
        if model is None:
            model = _learned(task, vocab_size or LEAST_VOCAB, eos, report)
        vocab = ids_needed(model)
        eos_id = model.token_to_id(eos) if eos else None
        sample_task = SampleTask(model, eos_id, settings, templates, template_tokens, are_pairs(sources, settings))
        splits, summaries, skipped = _packed(folder, task, sample_task, division, report, workers)
        for summary in summaries:
            for sentence in summary.notes():
                say(sentence)
        for one in skipped:
            if one.n:
                say(f"{one.n} broken {'sample was' if one.n == 1 else 'samples were'} skipped: {'; '.join(one.first)}")
        for which, split in splits.items():
            if split.tokens == 0 and (share > 0 or which == TRAIN):
                raise TinyNNValueError(nothing_left(which, summaries))
        before = tokens_around(model).before
        meta = DataMeta(
            dtype=dtype_of(vocab),
            vocab_size=vocab,
            splits=splits,
            tokenizer=write_tokenizer_file(folder, model.to_str(pretty=True).encode("utf-8")),
            eos_id=eos_id,
            bos_id=before[0] if before else eos_id,
            sources=[
                Source(*of_file, samples=summary.of_source(source.form, source.weight, broken.n))
                for of_file, source, summary, broken in zip(hashes, sources, summaries, skipped, strict=True)
            ],
            separator=separator,
            loss=settings.loss,
            pairs=are_pairs(sources, settings) or None,
            chat_template=None if chat is None else write_template_file(folder, chat.source),
        )
        write_meta(folder, meta)
    return meta


def _divided(task: _Task, share: float, seed: int) -> Division:
    """Read all sources once, and return the division of their samples. Raises TinyNNValueError for too few samples."""
    division, skipped = Division(seed, share), Skipped(task.settings.skip_bad)
    for number, source in enumerate(task.sources):
        if source.form == "plain":
            last = -1
            for piece in Texts([source.path], task.separators).pieces():
                if piece.document != last:
                    division.see(number, piece.document)
                    last = piece.document
        else:
            for place, _ in placed(source, skipped):
                division.see(number, place.sample)
    if division.samples == 0:
        raise TinyNNValueError("texts: the files contain no samples; give files with samples")
    if division.samples == 1 and share > 0:
        raise TinyNNValueError(
            "validation: the only sample cannot be divided into training and validation; add samples, or set "
            "validation to 0"
        )
    return division


def _check_texts(task: _Task, model: Tokenizer | None, eos: str, say: Note, *, chosen: bool) -> None:
    """Look for possible mistakes in the files of plain text."""
    paths = [source.path for source in task.sources if source.form == "plain"]
    if paths:
        found = survey(paths, task.separators, eos)
        for sentence in notes_on(found, eos, {eos} if model is None else added_tokens(model), chosen=chosen):
            say(sentence)
        if model is not None:
            check_decoding(model, found)


def _learned(task: _Task, vocab_size: int, eos: str, report: Progress) -> Tokenizer:
    texts = _ToLearn(task)
    return learned_bpe(texts_to_learn(texts, report, texts.text_bytes), texts.text_bytes, vocab_size, eos)


class _ToLearn:
    """All texts of a task, and their size."""

    def __init__(self, task: _Task) -> None:
        self.pieces = task.pieces
        self.text_bytes = sum(len(piece.text.encode("utf-8")) for piece in task.pieces())
        if self.text_bytes == 0:
            raise TinyNNValueError("texts: the samples contain no text; give samples with text")


def _packed(
    folder: Path, task: _Task, sample_task: SampleTask, division: Division, report: Progress, workers: Workers | None
) -> tuple[dict[str, Split], list[Summary], list[Skipped]]:
    """Write the files of both splits. Return their descriptions, and the counts of each source."""
    summaries, skipped = [Summary() for _ in task.sources], [Skipped() for _ in task.sources]
    tolerated, done = task.settings.skip_bad, 0
    with sample_writers(folder, ids_needed(sample_task.tokenizer), masked=task.masked) as writers:
        for number, (source, summary, broken) in enumerate(zip(task.sources, summaries, skipped, strict=True)):
            broken.most = tolerated
            for copy in range(division.copies(task.weights, number)):
                first = copy == 0  # problems are counted only in the first copy
                problems = broken if first else _tolerant()
                for one, begins in _encoded(task, source, sample_task, problems, workers):
                    if first:
                        done += begins
                        report("encoding", done, division.samples)
                        summary.note(one, source)
                    split = division.use(task.weights, number, copy, one.place.sample)
                    if split is None or one.dropped:
                        continue
                    if isinstance(one, EncodedPair):
                        for part in one.parts:
                            writers[split].add(part.ids, part.counted, part.text_bytes)
                        summary.wrote_pair(one)
                    else:
                        writers[split].add(one.ids, one.counted, one.text_bytes, begins=begins)
                        summary.wrote(one.ids.size, int(one.counted.sum()), begins=begins)
            tolerated -= broken.n
            for writer in writers.values():
                writer.end_source()
        report("encoding", division.samples, division.samples)
        return {name: writer.finished() for name, writer in writers.items()}, summaries, skipped


def _tolerant() -> Skipped:
    """Return a counter that accepts any number of broken samples. These samples were counted when the source was read
    before.
    """
    return Skipped(2**62)


def _encoded(
    task: _Task, source: DataSource, sample_task: SampleTask, broken: Skipped, workers: Workers | None
) -> Iterator[tuple[Encoded | EncodedPair, bool]]:
    """Yield the samples of a source as tokens, and whether a sample begins. Long documents are yielded in parts."""
    each = each_in_order(workers)
    if source.form != "plain":
        if workers is not None:
            workers.start(sample_task)
        for block, results in each(sample_task.encoder(task.templates), sample_blocks(source, broken.most)):
            for message in block.broken:
                broken.add(message)
            for one in results:
                if isinstance(one, Refused):
                    broken.add(f"{source.place(one.place.line)}: {one.error}")
                else:
                    yield one, True
        return
    if workers is not None:
        workers.start(TextTask(sample_task.tokenizer))
    last = -1
    for piece, ids in encoded(sample_task.tokenizer, Texts([source.path], task.separators).pieces(), each=each):
        end = [sample_task.eos_id] if piece.ends_document and sample_task.eos_id is not None else []
        all_ids = np.array(ids + end, dtype=np.int32)
        place = Place(piece.document, piece.document + 1)
        part = Encoded(place, all_ids, np.ones(all_ids.size, dtype=np.uint8), len(piece.text.encode("utf-8")))
        yield part, piece.document != last
        last = piece.document
