"""Read the tokenizer and the special tokens in the header of a GGUF file."""

from __future__ import annotations

from toynn.arguments import integer, one_of
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.byte_level_bpe import ByteLevelBpe, write_tokenizer
from toynn.interop.gguf_header import GgufValues
from toynn.interop.gguf_numbers import TokenType
from toynn.interop.gguf_own_keys import AFTER, BEFORE, BEGIN, NO_TOKEN, NORMALIZED, NORMALIZES, PREFIX
from toynn.interop.pre_tokenizers import DEFAULT, adds_bos
from toynn.interop.sentencepiece_bpe import PREFIXES, SentencePieceBpe, write_sentencepiece
from toynn.model.weights import EMBEDDING

# For each tokenizer.ggml.model, the ids of the bos and eos tokens that llama.cpp uses if the file does not state them.
_DEFAULT_IDS = {"gpt2": (11, 11), "llama": (1, 2)}
_BYTE_LEVEL, _SENTENCEPIECE = _DEFAULT_IDS


def read_gguf_tokenizer(values: GgufValues, vocab: int, default: str | None) -> bytes | None:
    """Return the tokenizer.json of the tokenizer in a header, or None if the header has no tokenizer.

    default: the tokenizer.ggml.model of a file without this key.

    Raises FileFormatError if the tokenizer is damaged, or toynn does not support its kind.
    """
    kind = values.text("tokenizer.ggml.model", default)
    if kind in ("no_vocab", "none"):
        return None
    if kind not in _DEFAULT_IDS:
        raise FileFormatError(
            f"tokenizer.ggml.model is {kind!r:.60}, but toynn reads only 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece BPE); import the Hugging Face folder of the model instead"
        )
    tokens = values.texts("tokenizer.ggml.tokens")
    kinds = values.wholes("tokenizer.ggml.token_type")
    if not len(tokens) == len(kinds) == vocab:
        raise FileFormatError(
            f"the tokenizer has {len(tokens)} tokens and {len(kinds)} types, but {EMBEDDING} has {vocab} rows; "
            "these numbers must be equal"
        )
    try:
        if kind == _SENTENCEPIECE:
            return write_sentencepiece(_sentencepiece(values, tokens, kinds))
        return write_tokenizer(_byte_level(values, tokens, kinds))
    except TinyNNValueError as error:
        raise FileFormatError(f"the tokenizer cannot be read: {error}") from None


def _byte_level(values: GgufValues, tokens: list[str], kinds: list[int]) -> ByteLevelBpe:
    merges = values.texts("tokenizer.ggml.merges")
    pre = values.text("tokenizer.ggml.pre", DEFAULT)
    before, after = _tokens_around(values, len(tokens), adds_bos(pre), _DEFAULT_IDS[_BYTE_LEVEL])
    normalized = values.wholes(NORMALIZED) if NORMALIZED in values else []
    return ByteLevelBpe(tokens, kinds, merges, pre, before, after, values.flag(NORMALIZES, True), normalized)


def _sentencepiece(values: GgufValues, tokens: list[str], kinds: list[int]) -> SentencePieceBpe:
    """Return the lists of a SentencePiece tokenizer.

    tokenizer.ggml.remove_extra_whitespaces is not read: llama.cpp ignores this key for SentencePiece BPE.
    """
    scores = values.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise FileFormatError(
            f"the tokenizer has {len(tokens)} tokens, but {len(scores)} scores; these numbers must be equal"
        )
    before, after = _tokens_around(values, len(tokens), True, _DEFAULT_IDS[_SENTENCEPIECE])
    normalized = values.wholes(NORMALIZED) if NORMALIZED in values else []
    prefix = "each" if values.flag("tokenizer.ggml.add_space_prefix", True) else "none"
    if PREFIX in values:
        prefix = one_of(PREFIX, values.text(PREFIX), PREFIXES)
    return SentencePieceBpe(tokens, scores, kinds, prefix, before, after, normalized)


def _tokens_around(
    values: GgufValues, vocab: int, default: bool, default_ids: tuple[int, int]
) -> tuple[list[int], list[int]]:
    """Return the tokens before and after a prompt: from toynn's keys, or if they are missing, the tokens of llama.cpp.

    default: whether llama.cpp adds the bos token if the file does not have the key.
    """
    if BEFORE in values or AFTER in values:
        before, after = (
            [integer(key, token, 0, vocab - 1) for token in (values.wholes(key) if key in values else [])]
            for key in (BEFORE, AFTER)
        )
        return before, after
    around: list[list[int]] = []
    for name, adds, default_id in zip(("bos", "eos"), (default, False), default_ids, strict=True):
        added = values.flag(f"tokenizer.ggml.add_{name}_token", adds)
        key = f"tokenizer.ggml.{name}_token_id"
        around.append([integer(key, values.whole(key, default_id), 0, vocab - 1)] if added else [])
    return around[0], around[1]


def special_tokens(values: GgufValues, vocab: int) -> tuple[int | None, list[int]]:
    """Return the bos token and the end tokens eos, eot and eom.

    Unused tokens, which are only placeholders, are left out.
    """
    types = "tokenizer.ggml.token_type"
    kinds = values.wholes(types) if types in values else []

    def tokens(*names: str) -> list[int]:
        keys = [key for name in names if (key := f"tokenizer.ggml.{name}_token_id") in values]
        ids = [integer(key, values.whole(key), 0, vocab - 1) for key in keys]
        return [token for token in ids if token >= len(kinds) or kinds[token] != TokenType.UNUSED]

    begins = tokens("bos")
    if BEGIN in values:
        own = integer(BEGIN, values.whole(BEGIN), NO_TOKEN, vocab - 1)
        begins = [] if own == NO_TOKEN else [own]
    return next(iter(begins), None), tokens("eos", "eot", "eom")
