"""tokenizer.json, as the tokenizers library reads it. It needs that library, from the extra toynn[cli] or [interop]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.regular_files import refuse_lfs_pointer
from toynn.text.panic_text import panics_hidden
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_checks import check_tokenizer

with naming_the_extra():
    from tokenizers import Tokenizer


def parsed_tokenizer(content: bytes) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json's content, set to give all tokens of a text and no others.

    Truncation and padding are turned off: they shape batches, and would drop text or add tokens. `to_str()` of the
    result therefore has neither; keep the bytes to keep a file unchanged.

    Raises FileFormatError with the library's reason, and for dropout, which gives a text other tokens every time.
    """
    refuse_lfs_pointer(content)
    check_tokenizer(content)
    try:
        with _library_errors("it is not a tokenizer.json"):
            tokenizer = Tokenizer.from_str(content.decode("utf-8-sig"))
    except TinyNNValueError as error:
        raise FileFormatError(str(error)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise FileFormatError(
            f"its dropout is {dropout:.6g}: a text would have other tokens every time; set it to null in tokenizer.json"
        )
    return tokenizer


def load_tokenizer(content: bytes, where: str) -> Tokenizer:
    """Return `parsed_tokenizer(content)`. Raises FileFormatError naming `where` the content comes from."""
    try:
        return parsed_tokenizer(content)
    except FileFormatError as error:
        raise FileFormatError(f"the tokenizer of {where} cannot be used: {error}") from None


def ids_needed(tokenizer: Tokenizer) -> int:
    """Return the size a vocabulary must have to hold the tokenizer's ids: the highest one plus 1, gaps included.

    Ids that only the rules around a text contain count too.
    """
    around = tokens_around(tokenizer)
    return max([*tokenizer.get_vocab(with_added_tokens=True).values(), *around.before, *around.after], default=-1) + 1


def ids_without_token(tokenizer: Tokenizer, vocab: int) -> list[int]:
    """Return the ids below `vocab` that stand for no token: gaps, and rows that pad a model's vocabulary."""
    return sorted(set(range(vocab)).difference(tokenizer.get_vocab(with_added_tokens=True).values()))


def added_tokens(tokenizer: Tokenizer) -> set[str]:
    """Return the texts of the tokens that are not parts of words, such as the end of a document."""
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def check_text(text: object, name: str = "text") -> None:
    """Raise TinyNNTypeError for a value that is not a str, TinyNNValueError for a str that UTF-8 cannot encode."""
    if not isinstance(text, str):
        raise TinyNNTypeError(f"{name} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TinyNNValueError(
            f"{name} is not Unicode text: {error.reason} at character {error.start}, {text[error.start]!r}"
        ) from None


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], name: str = "text") -> list[list[int]]:
    """Return the token ids of each text, without special tokens around them.

    Raises TinyNNTypeError for a value that is not a str; TinyNNValueError for a str that cannot be written in UTF-8 or
    that the tokenizer fails on. Both messages start with `name`.
    """
    for text in texts:
        check_text(text, name)
    with _library_errors(f"{name}: the tokenizer fails on it"):
        if len(texts) == 1:  # without threads: after using some, the library prints a warning at every fork
            return [tokenizer.encode(texts[0], add_special_tokens=False).ids]
        return [encoded.ids for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of token ids, special tokens included. Raises TinyNNValueError if the tokenizer fails on them."""
    if not ids:  # some decoders fail on an empty sequence
        return ""
    with _library_errors("ids: the tokenizer fails on them"):
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Turn an error of the library inside the block into a TinyNNValueError that starts with `what`."""
    try:
        with panics_hidden():
            yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # plain Exceptions, and a BaseException if the library's Rust code panics
        raise TinyNNValueError(f"{what}: {' '.join(str(error).split()):.200}") from None
