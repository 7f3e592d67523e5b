"""Decide how the files that a user gives to `toynn.prepare` are read, and prepare the files that contain samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from toynn.api.load_model import read_model
from toynn.api.template_files import given_templates, templates_in
from toynn.api.text_model import TextModel
from toynn.arguments import float64, kind_of, one_of, text
from toynn.data import DataMeta
from toynn.data.meta import META, TOKENIZER
from toynn.data.samples import SampleSettings, prepare_samples
from toynn.data.sources import FORMATS, DataSource, open_source
from toynn.data.texts_to_learn import Progress
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.parallel.workers import Workers
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.checkpoint.names import LATEST
from toynn.storage.regular_files import path_of, read_regular
from toynn.text.chat_template import DEFAULT
from toynn.text.documents import END_OF_TEXT
from toynn.text.template_tokens import template_tokens
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import added_tokens, load_tokenizer
from toynn.wording import spelled

_LARGEST_WEIGHT = 1000.0


class OwnTokens(NamedTuple):
    """The special tokens of the model that a tokenizer comes from."""

    bos_id: int | None = None
    eos_id: int | None = None
    foreign: ForeignSettings = NO_SETTINGS


def given_tokenizer(tokenizer: object) -> tuple[Path | bytes, OwnTokens]:
    """Return the path of a tokenizer.json, or the content of the tokenizer.json of a model, and the model's tokens."""
    if isinstance(tokenizer, TextModel):
        own = OwnTokens(tokenizer.start_id, tokenizer.end_id, tokenizer.foreign)
        return tokenizer.tokenizer_json, own
    path = path_of("tokenizer", tokenizer)
    if path.is_file() and path.suffix.lower() != ".gguf":
        return path, OwnTokens()
    kind = kind_of_path(path)
    only_tokenizer = kind is None and not (path / META).exists() and not (path / LATEST).exists()
    if (kind == "data" or only_tokenizer) and (path / TOKENIZER).is_file():
        return path / TOKENIZER, OwnTokens()
    model = read_model(path, name="tokenizer").contents
    if model.tokenizer is None:
        raise TinyNNValueError(f"tokenizer: {path} has no tokenizer; give a tokenizer.json, or a model that has one")
    return model.tokenizer, OwnTokens(model.bos_id, model.eos_id, model.foreign)


@dataclass(frozen=True)
class SampleOptions:
    """The arguments of `toynn.prepare` that concern samples. `toynn.prepare` describes them.

    Raises TinyNNValueError or TinyNNTypeError, which name the argument.
    """

    format: str | None = None
    text_field: str | None = None
    weights: Sequence[float] | None = None
    chat_template: object = None
    settings: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self) -> None:
        if self.format is not None:
            one_of("format", self.format, FORMATS)
        if self.text_field is not None and not text("text_field", self.text_field):
            raise TinyNNValueError("text_field must be the name of a field, got an empty text")

    def sources(self, paths: Sequence[Path]) -> list[DataSource]:
        """Return the sources with their formats and weights. Raises FileFormatError for an unknown format, or OSError
        if a file cannot be read.
        """
        weights = [1.0] * len(paths) if self.weights is None else _weights(self.weights, len(paths))
        pairs = zip(paths, weights, strict=True)
        return [open_source(path, self.format, self.text_field, weight) for path, weight in pairs]

    def refuse(self, what: str) -> None:
        """Raise TinyNNValueError if an option is given that needs samples. what: the texts that were given instead."""
        settings, default = self.settings, SampleSettings()
        given = {
            "text_field": self.text_field is not None,
            "chat_template": self.chat_template is not None,
            "loss": settings.loss != default.loss,
            "max_tokens": settings.max_tokens is not None,
            "truncate": settings.truncate != default.truncate,
            "skip_bad": settings.skip_bad != default.skip_bad,
        }
        for name, is_given in given.items():
            if is_given:
                option = spelled(name, f"--{name.replace('_', '-')}")
                raise TinyNNValueError(
                    f"{option} is for files of samples, such as JSON lines, but {what}; leave out {option}"
                )


def is_plain_text(sources: Sequence[DataSource]) -> bool:
    """Return whether all sources are plain texts with the weight 1. In this case, documents do not become samples."""
    return all(source.form == "plain" and source.weight == 1 for source in sources)


def prepare_sources(
    sources: Sequence[DataSource],
    out: Path,
    options: SampleOptions,
    *,
    vocab_size: int | None,
    tokenizer: object,
    validation: float,
    eos: str | None,
    separator: str | None,
    seed: int,
    progress: Progress | None,
    note: Callable[[str], None],
    workers: Workers | None = None,
) -> DataMeta:
    """Make a data folder from sources of which at least one is not plain text. Arguments as for `toynn.prepare`."""
    content, own = (None, OwnTokens()) if tokenizer is None else given_tokenizer(tokenizer)
    needs_template = any(source.form not in ("plain", "text") for source in sources)
    templates: dict[str, str] = {}
    if options.chat_template is not None:
        templates = given_templates(options.chat_template, "chat_template")
    elif tokenizer is not None and needs_template:
        templates = _templates_of(tokenizer)
    tokens: dict[str, str] = {}
    end = END_OF_TEXT if eos is None else eos
    if content is not None:
        model = load_tokenizer(content if isinstance(content, bytes) else read_regular(content), str(tokenizer))
        tokens = template_tokens(model, own.bos_id, own.eos_id, own.foreign)
        if eos is None and END_OF_TEXT not in added_tokens(model) and "eos_token" in tokens:
            end = tokens["eos_token"]
        if "bos_token" not in tokens and (before := tokens_around(model).before):
            tokens["bos_token"] = model.id_to_token(before[0]) or ""
    if eos is not None or "eos_token" not in tokens:
        tokens = {**tokens, **({"eos_token": end} if end else {})}
    if end:
        # in training, the end token of one text comes before the next text, so the end token is also the begin token
        tokens = {"bos_token": end, **tokens}
    return prepare_samples(
        sources,
        out,
        options.settings,
        templates=templates,
        template_tokens=tokens,
        vocab_size=vocab_size,
        tokenizer=content,
        validation=validation,
        eos=end,
        separator=separator,
        seed=seed,
        progress=progress,
        note=note,
        workers=workers,
    )


def _templates_of(tokenizer: object) -> dict[str, str]:
    """Return the chat templates that come with the argument `tokenizer` of `toynn.prepare`; {} if there are none."""
    if isinstance(tokenizer, TextModel):
        template = tokenizer.foreign.chat_template
        return {DEFAULT: template} if template else {}
    path = path_of("tokenizer", tokenizer)
    if path.is_file() and kind_of_path(path) != "gguf":
        return {}  # the file is a tokenizer.json, which contains no template
    return templates_in(path)


def _weights(weights: object, n: int) -> list[float]:
    if isinstance(weights, str | bytes) or not isinstance(weights, Sequence):
        raise TinyNNTypeError(f"weights must be a sequence of numbers, got {kind_of(weights)}")
    if len(weights) != n:
        raise TinyNNValueError(f"weights must have one number for each of the {n} files, got {len(weights)}")
    found = [float64("weights", weight) for weight in weights]
    for weight in found:
        if not 0 < weight <= _LARGEST_WEIGHT:
            raise TinyNNValueError(f"weights must be above 0 and at most {_LARGEST_WEIGHT:g}, got {weight}")
    return found
