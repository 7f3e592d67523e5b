"""Find the places where a text can be cut without changing its words, as the byte-level BPE of GPT-2 defines words.

The tokenizers library needs more than a hundred bytes of memory for each character that it encodes at once, and learns
from 256 texts at once. Therefore toynn cuts long texts before it passes them to the library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from toynn.extras import naming_the_extra

with naming_the_extra():
    from tokenizers import Tokenizer

# A word ends before a space if the character before the space is not a space.
BEFORE_SPACE = re.compile(r"(?<=\S)(?=[ \t\n])")
# A word also ends between two characters of different classes: letters, digits, other characters. The patterns contain
# only characters that have the same class in every version of Unicode.
_LETTER = "A-Za-z\u3041-\u3096\u30a1-\u30fa\u3400-\u4db5\u4e00-\u9fa5"
_OTHER = r"!-&(-/:-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
BETWEEN_WORDS = re.compile(
    rf"(?<=\S)(?=[ \t\n])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[{_LETTER}])(?=[{_OTHER}])"
)


def parts_of(text: str, size: int, borders: re.Pattern[str], longest: int | None = None) -> Iterator[str]:
    """Yield a text in parts of about `size` characters, cut at borders.

    A part grows to the next border. If `longest` is given and there is no border in the first `longest` characters of a
    part, the part is cut after `longest` characters.
    """
    start = 0
    while len(text) - start > size:
        border = borders.search(text, start + size, len(text) if longest is None else start + longest)
        if border is None and longest is None:
            break
        end = start + (longest or size) if border is None else border.start()
        yield text[start:end]
        start = end
    if start < len(text) or not text:
        yield text[start:]


def separates_words_as_gpt2(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a text stay the same if the text is cut before spaces and its parts are encoded."""
    described = json.loads(tokenizer.to_str())
    rule = described.get("pre_tokenizer") or {}
    return (
        described.get("normalizer") is None
        and described["model"].get("type") == "BPE"
        and rule.get("type") == "ByteLevel"
        and rule.get("add_prefix_space") is False
        and rule.get("use_regex", True) is True
        and not any(_takes_spaces(token) for token in described.get("added_tokens") or ())
    )


def _takes_spaces(token: dict[str, object]) -> bool:
    """Return whether a special token contains spaces or may include the spaces around it."""
    return len(str(token["content"]).split()) != 1 or any(token.get(key) for key in ("lstrip", "rstrip", "single_word"))
