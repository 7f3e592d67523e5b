"""Make text safe for a terminal: control characters become visible symbols, and do not control the terminal."""

from __future__ import annotations

_KEPT = "\t\n"
# The control characters U+0000 to U+001F have symbols from U+2400 on. DEL and U+0080 to U+009F become a replacement.
_SYMBOLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in _KEPT}
_SYMBOLS |= {0x7F: "\u2421", **dict.fromkeys(range(0x80, 0xA0), "\ufffd")}


def terminal_text(text: str) -> str:
    """Return the text with a visible symbol instead of each control character, except for tabs and newlines.

    A generated text can contain the escape sequences that change colors, the title or the contents of a terminal.
    """
    return text.translate(_SYMBOLS)
