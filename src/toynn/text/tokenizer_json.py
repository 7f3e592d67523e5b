"""Read a tokenizer.json, encode and decode with it. Needs the library tokenizers (extra toynn[cli] or [interop])."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from toynn.errors import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.storage.regular_files import refuse_lfs_pointer
from toynn.text.panic_text import panics_hidden
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_checks import check_tokenizer

with naming_the_extra():
    from tokenizers import Encoding, Tokenizer


def parsed_tokenizer(content: bytes) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json. content: the bytes of the file.

    Truncation and padding are turned off, because they would drop text or add tokens. They are therefore missing in
    `to_str()` of the result. To write the file unchanged, keep its bytes.

    Raises FileFormatError if the library cannot read the content, or if the tokenizer has dropout, which makes the
    tokens of a text random.
    """
    if (ready := _taken(content)) is not None:
        return ready
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
            f"the dropout is {dropout:.6g}, so the tokens of a text would be random; set dropout to null in "
            "tokenizer.json"
        )
    return tokenizer


def written_tokenizer(tokenizer: Tokenizer) -> bytes:
    """Return the tokenizer.json of a parsed tokenizer.

    If the next call of `parsed_tokenizer` gets these bytes, it returns the same object without parsing them. Parsing
    takes a tenth of a second for a large vocabulary.

    The caller must not use the tokenizer after this call.
    """
    content: bytes = tokenizer.to_str(pretty=True).encode("utf-8")
    _ready[:] = [(content, tokenizer)]
    return content


_ready: list[tuple[bytes, Tokenizer]] = []  # the last written tokenizer, until `_taken` returns it


def _taken(content: bytes) -> Tokenizer | None:
    try:
        written, tokenizer = _ready.pop()
    except IndexError:
        return None
    return tokenizer if written == content else None


def load_tokenizer(content: bytes, where: str) -> Tokenizer:
    """Return `parsed_tokenizer(content)`. where: the origin of the content, which a FileFormatError names."""
    try:
        return parsed_tokenizer(content)
    except FileFormatError as error:
        raise FileFormatError(f"the tokenizer of {where} cannot be used: {error}") from None


def ids_needed(tokenizer: Tokenizer) -> int:
    """Return the smallest vocabulary size that the tokenizer needs: its largest id plus 1.

    The ids that the rules add around a text count too, even if the vocabulary does not contain them.
    """
    return _ids_needed(tokenizer, tokenizer.get_vocab(with_added_tokens=True).values())


def _ids_needed(tokenizer: Tokenizer, used: Iterable[int]) -> int:
    around = tokens_around(tokenizer)
    return max(max(used, default=-1), max([*around.before, *around.after], default=-1)) + 1


def needed_and_unused_ids(tokenizer: Tokenizer, vocab: int) -> tuple[int, list[int]]:
    """Return `ids_needed`, and the ids below `vocab` that the tokenizer does not use.

    Unused ids are gaps between used ids, or the padding at the end of a model's vocabulary. Both results come from one
    reading of the ids, because reading the ids of a large vocabulary takes a hundredth of a second.
    """
    used = set(tokenizer.get_vocab(with_added_tokens=True).values())
    return _ids_needed(tokenizer, used), sorted(set(range(vocab)).difference(used))


def added_tokens(tokenizer: Tokenizer) -> set[str]:
    """Return the texts of the special tokens, such as the end token. They are the "added_tokens" of tokenizer.json."""
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def check_text(text: object, name: str = "text") -> None:
    """Raise TinyNNTypeError for a value that is not a str, or TinyNNValueError for a str that UTF-8 cannot encode."""
    if not isinstance(text, str):
        raise TinyNNTypeError(f"{name} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TinyNNValueError(
            f"{name} is not Unicode text: {error.reason} at character {error.start}, {text[error.start]!r}"
        ) from None


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], name: str = "text") -> list[list[int]]:
    """Return the token ids of each text, without the tokens that the tokenizer's rules put around a text.

    Raises TinyNNTypeError for a value that is not a str, or TinyNNValueError for a str that UTF-8 cannot encode, or if
    the tokenizer fails. Both messages start with `name`.
    """
    return [one.ids for one in _encodings(tokenizer, texts, name, tokenizer.encode_batch_fast)]


def token_starts(tokenizer: Tokenizer, texts: Sequence[str], name: str = "text") -> list[tuple[list[int], list[int]]]:
    """Return the token ids of each text, as `token_ids` does, and the position in the text at which each token begins.

    Raises the errors of `token_ids`.
    """
    return [(ids, [start for start, _ in offsets]) for ids, offsets in token_spans(tokenizer, texts, name)]


def token_spans(
    tokenizer: Tokenizer, texts: Sequence[str], name: str = "text"
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Return the token ids of each text, as `token_ids` does, and the span of characters of each token.

    Raises the errors of `token_ids`.
    """
    return [(one.ids, one.offsets) for one in _encodings(tokenizer, texts, name, tokenizer.encode_batch)]


def _encodings(
    tokenizer: Tokenizer, texts: Sequence[str], name: str, encode_batch: Callable[..., list[Encoding]]
) -> list[Encoding]:
    """Check and encode texts. encode_batch: the method of the tokenizer for several texts."""
    for text in texts:
        check_text(text, name)
    with _library_errors(f"{name}: the tokenizer cannot encode it"):
        if len(texts) == 1:
            # This call starts no threads. After starting threads, the library prints a warning at every fork.
            return [tokenizer.encode(texts[0], add_special_tokens=False)]
        return encode_batch(list(texts), add_special_tokens=False)


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of token ids, with the text of special tokens. Raises TinyNNValueError if the tokenizer fails."""
    if not ids:  # some decoders fail on an empty sequence
        return ""
    with _library_errors("ids: the tokenizer cannot decode them"):
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Turn an error of the tokenizers library in the block into a TinyNNValueError. Its message starts with `what`."""
    try:
        with panics_hidden():
            yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library's Rust code is a BaseException
        raise TinyNNValueError(f"{what}: {' '.join(str(error).split()):.200}") from None
