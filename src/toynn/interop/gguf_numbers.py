"""The numbers that a GGUF file uses for kinds of values and tokens.

The gguf library has the same numbers, but importing this library takes a fifth of a second. A test compares them.
"""

from __future__ import annotations

from enum import IntEnum

TokenType = IntEnum("TokenType", ["NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE"])


class ValueType(IntEnum):
    """The type of a value in the header."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12
