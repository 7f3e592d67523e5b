"""tokenizer.json, as the tokenizers library reads it. Needs that library, of the extra toynn[cli] (or [interop])."""

from __future__ import annotations

from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra

with naming_the_extra():
    from tokenizers import Tokenizer


def parsed_tokenizer(content: bytes) -> Tokenizer:
    """The tokenizer of a tokenizer.json's content. Raises TinyNNValueError with the library's reason."""
    try:
        return Tokenizer.from_str(content.decode("utf-8"))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises plain Exceptions, and a BaseException where its Rust panics
        raise TinyNNValueError(f"it is no tokenizer.json: {' '.join(str(error).split()):.200}") from None


def ids_needed(tokenizer: Tokenizer) -> int:
    """How large a vocabulary must be to hold the tokenizer's ids; more than its tokens where some ids have none."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
