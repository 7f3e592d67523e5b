"""tokenizer.json, as the tokenizers library reads it. Needs that library, of the extra toynn[cli] (or [interop])."""

from __future__ import annotations

from collections.abc import Sequence

from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.extras import naming_the_extra

with naming_the_extra():
    from tokenizers import Tokenizer


def parsed_tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer of a tokenizer.json's content, made to give all of a text's tokens and no others.

    Truncation and padding are turned off: they are about the shape of batches, and would lose text or add to it. So
    `to_str()` of the result has neither; whoever must keep a file as it came keeps its bytes.

    Raises TinyNNValueError with the library's reason, and for dropout, which gives a text other tokens every time.
    """
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises plain Exceptions, and a BaseException where its Rust panics
        raise TinyNNValueError(f"it is no tokenizer.json: {_reason(error)}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise TinyNNValueError(
            f"its dropout is {dropout:.6g}: a text would have other tokens every time; set it to null in tokenizer.json"
        )
    return tokenizer


def ids_needed(tokenizer: Tokenizer) -> int:
    """How large a vocabulary must be to hold the tokenizer's ids; more than its tokens where some ids have none."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], name: str = "text") -> list[list[int]]:
    """Each text's token ids, without special tokens around them.

    Raises TinyNNTypeError and TinyNNValueError, naming `name`, for what is no str or cannot be written in UTF-8, and
    for what the tokenizer fails on.
    """
    for text in texts:
        if not isinstance(text, str):
            raise TinyNNTypeError(f"{name} must be a str, got {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TinyNNValueError(
                f"{name} is no Unicode text: {error.reason} at character {error.start}, {text[error.start]!r}"
            ) from None
    try:
        if len(texts) == 1:  # needs no threads, which a process that forks later would be warned of
            return [tokenizer.encode(texts[0], add_special_tokens=False).ids]
        return [encoded.ids for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # as above
        raise TinyNNValueError(f"{name}: the tokenizer fails on it: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    return f"{' '.join(str(error).split()):.200}"
