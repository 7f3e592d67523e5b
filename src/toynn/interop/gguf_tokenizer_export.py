"""Write the tokenizer and the special tokens of a model into a GGUF file."""

from __future__ import annotations

import json

from gguf import GGUFWriter

from toynn.errors import TinyNNValueError
from toynn.interop.byte_level_bpe import ByteLevelBpe, read_tokenizer
from toynn.interop.gguf_numbers import TokenType
from toynn.interop.gguf_own_keys import AFTER, BEFORE, BEGIN, NO_TOKEN, NORMALIZED, NORMALIZES, PREFIX
from toynn.interop.pre_tokenizers import DEFAULT
from toynn.interop.sentencepiece_bpe import SentencePieceBpe, read_sentencepiece
from toynn.model.trained_model import TrainedModel
from toynn.text.tokenizer_json import parsed_tokenizer


def write_gguf_tokenizer(writer: GGUFWriter, model: TrainedModel, notes: list[str]) -> None:
    """Write the tokenizer of a model. Add sentences for the user about differences in llama.cpp to `notes`.

    Raises TinyNNValueError if llama.cpp does not support the tokenizer; the message names the option.
    """
    if model.tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
        notes.append("the model has no tokenizer: llama.cpp can run the file on token ids, but not on text")
        _write_ids(writer, model, model.bos_id, model.eos_id, notes)
        return
    try:
        described = json.loads(parsed_tokenizer(model.tokenizer).to_str())
        if described["model"].get("type") == "BPE" and described["model"].get("byte_fallback"):
            spm = read_sentencepiece(model.tokenizer, model.shape.vocab)
            _write_sentencepiece(writer, spm, notes)
            _write_special_tokens(writer, model, spm, notes, default_end=2)
        else:
            bpe = read_tokenizer(model.tokenizer, model.shape.vocab)
            _write_byte_level(writer, bpe, notes, normalizes=described.get("normalizer") is not None)
            _write_special_tokens(writer, model, bpe, notes, default_end=11)
    except TinyNNValueError as error:
        raise TinyNNValueError(f"the tokenizer cannot be exported: {error}") from None


def _write_byte_level(writer: GGUFWriter, bpe: ByteLevelBpe, notes: list[str], *, normalizes: bool) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(bpe.pre)
    writer.add_token_list(bpe.tokens)
    writer.add_token_types(bpe.kinds)
    writer.add_token_merges(bpe.merges)
    if not bpe.normalizes:
        writer.add_bool(NORMALIZES, False)
    if bpe.normalized:
        writer.add_array(NORMALIZED, bpe.normalized)
    if normalizes:
        notes.append(
            "the tokenizer normalizes text to NFC, but llama.cpp does not; text that is not in NFC gets different "
            "tokens in llama.cpp"
        )


def _write_sentencepiece(writer: GGUFWriter, spm: SentencePieceBpe, notes: list[str]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre(DEFAULT)
    writer.add_token_list(spm.tokens)
    writer.add_token_scores(spm.scores)
    writer.add_token_types(spm.kinds)
    writer.add_add_space_prefix(spm.prefix != "none")
    if TokenType.UNKNOWN in spm.kinds:
        writer.add_unk_token_id(spm.kinds.index(TokenType.UNKNOWN))
    if spm.prefix in ("first", "always"):
        writer.add_string(PREFIX, spm.prefix)
        where = "the start of a text" if spm.prefix == "first" else "text that does not begin with one"
        notes.append(
            f"the tokenizer puts a space only before {where}, but llama.cpp puts a space before each part of a "
            "text between special tokens; such a text gets different tokens in llama.cpp"
        )
    if spm.normalized:
        writer.add_array(NORMALIZED, spm.normalized)
        if spm.prefix != "none":
            notes.append(
                "the tokenizer looks for some special tokens after it put a space before the text, but llama.cpp "
                "looks for special tokens before; a text with special tokens gets different tokens in llama.cpp"
            )


def _write_special_tokens(
    writer: GGUFWriter, model: TrainedModel, bpe: ByteLevelBpe | SentencePieceBpe, notes: list[str], default_end: int
) -> None:
    """Write the tokens that begin and end a text, and whether llama.cpp adds them to a prompt."""
    eos, bos = _end(model, bpe, notes, default_end), model.bos_id
    adds_bos, adds_eos = len(bpe.before) == 1, bpe.after != [] and bpe.after == [eos]
    if adds_bos:
        bos = bpe.before[0]
    elif bos is None:  # in training, the token before a text is the end token of the previous text
        bos = eos
    _write_ids(writer, model, bos, eos, notes)
    writer.add_add_bos_token(adds_bos)
    if adds_eos:
        writer.add_add_eos_token(True)
    if (bpe.before and not adds_bos) or (bpe.after and not adds_eos):
        notes.append(
            f"the tokenizer puts the tokens {bpe.before} before and {bpe.after} after a text; llama.cpp can add "
            "only one bos token before a text and the eos token after the text, so prompts get other tokens in "
            "llama.cpp"
        )
        for key, ids in ((BEFORE, bpe.before), (AFTER, bpe.after)):
            if ids:
                writer.add_array(key, ids)


def _write_ids(writer: GGUFWriter, model: TrainedModel, bos: int | None, eos: int | None, notes: list[str]) -> None:
    if eos is not None:
        writer.add_eos_token_id(eos)
    if bos is not None:
        writer.add_bos_token_id(bos)
    if bos != model.bos_id:
        writer.add_int32(BEGIN, NO_TOKEN if model.bos_id is None else model.bos_id)
    for add, token in zip((writer.add_eot_token_id, writer.add_eom_token_id), model.other_eos_ids, strict=False):
        add(token)
    if len(model.other_eos_ids) > 2:
        notes.append(
            f"a GGUF file can store three end tokens; the end tokens {list(model.other_eos_ids[2:])} are left out"
        )
    if model.foreign.pad_id is not None:
        writer.add_pad_token_id(model.foreign.pad_id)
    if model.foreign.chat_template:
        writer.add_chat_template(model.foreign.chat_template)


def _end(model: TrainedModel, bpe: ByteLevelBpe | SentencePieceBpe, notes: list[str], default_end: int) -> int | None:
    """Return the id of the token that ends a text.

    If a file names no such token, llama.cpp uses a fixed id, which may be any token. If the model has no end token, an
    unused token is therefore written, because it never occurs in a text.
    """
    if model.eos_id is not None:
        return model.eos_id
    if TokenType.UNUSED in bpe.kinds:
        return bpe.kinds.index(TokenType.UNUSED)
    notes.append(
        f"the model has no end-of-text token, so llama.cpp will use token {default_end}, {bpe.tokens[default_end]!r}"
    )
    return None
