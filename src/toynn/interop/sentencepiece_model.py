"""Read tokenizer.model, the file of a SentencePiece model, without the sentencepiece library.

The C++ code of that library ends the process for some damaged files. The format is a protobuf message, of which only a
few fields are needed, so this module reads them itself and compares each length with the size of the file. The field
numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from toynn.errors import FileFormatError
from toynn.interop.gguf_numbers import TokenType

UNIGRAM, BPE = 1, 2  # values of trainer_spec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_REMEDY = "; use an intact copy of the file"

# Numbers of protobuf fields, in this order: of the model, of a piece, of trainer_spec and of normalizer_spec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _SUFFIX, _BYTE_FALLBACK, _BOS, _EOS = 3, 24, 35, 41, 42
_CHARSMAP, _PREFIX, _EXTRA_SPACES, _ESCAPE = 2, 3, 4, 5

Value = int | memoryview


@dataclass(frozen=True)
class SentencePieceModel:
    """The content of a tokenizer.model that decides which ids a text gets.

    tokens, scores, kinds: the text, the score and the type (of TokenType, which has the same numbers) of each
        piece, by id.
    charsmap: the table of a normalizer; b"" if there is none.
    bos_id, eos_id: -1 if there is no such token.
    """

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    suffix: bool = False
    prefix: bool = True
    removes_spaces: bool = True
    escapes: bool = True
    charsmap: bytes = field(default=b"", repr=False)
    bos_id: int = 1
    eos_id: int = 2


def parsed_model(content: bytes, vocab: int) -> SentencePieceModel:
    """Return the model in a tokenizer.model.

    Raises FileFormatError if the file is damaged or has more than `vocab` pieces.
    """
    tokens: list[str] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(memoryview(content)):
        if number == _PIECES:
            if len(tokens) == vocab:
                raise FileFormatError(f"the file has more than {vocab} pieces, but the model has only {vocab} tokens")
            piece = dict(_fields(_message(value, "a piece")))
            tokens.append(_text(piece.get(_PIECE, memoryview(b"")), len(tokens)))
            scores.append(_number(piece.get(_SCORE, 0)))
            kinds.append(_integer(piece, _TYPE, int(TokenType.NORMAL)))
        elif number == _TRAINER:
            trainer.update(_fields(_message(value, "trainer_spec")))
        elif number == _NORMALIZER:
            normalizer.update(_fields(_message(value, "normalizer_spec")))
    if not tokens:
        raise FileFormatError("the file is not a SentencePiece model: it contains no pieces")
    charsmap = normalizer.get(_CHARSMAP, memoryview(b""))
    return SentencePieceModel(
        tokens,
        scores,
        kinds,
        model_type=_integer(trainer, _MODEL_TYPE, UNIGRAM),
        byte_fallback=bool(_integer(trainer, _BYTE_FALLBACK, 0)),
        suffix=bool(_integer(trainer, _SUFFIX, 0)),
        prefix=bool(_integer(normalizer, _PREFIX, 1)),
        removes_spaces=bool(_integer(normalizer, _EXTRA_SPACES, 1)),
        escapes=bool(_integer(normalizer, _ESCAPE, 1)),
        charsmap=bytes(_message(charsmap, "precompiled_charsmap")),
        bos_id=_integer(trainer, _BOS, 1),
        eos_id=_integer(trainer, _EOS, 2),
    )


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the number and the value of each field. A value is an integer, or the bytes of a text, a message or a
    float.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            n, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            n = 4 if wire == _FIXED32 else 8
        else:
            raise FileFormatError(f"the file is damaged: the field {number} has the unknown wire type {wire}{_REMEDY}")
        if n > len(message) - at:
            raise FileFormatError(
                f"the file is damaged: the field {number} needs {n} bytes, but {len(message) - at} are left{_REMEDY}"
            )
        yield number, message[at : at + n]
        at += n


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a protobuf varint (an integer of at most 64 bits, 7 bits in each byte), and the position after it."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (2**64 - 1), at + i + 1
    raise FileFormatError(f"the file is damaged: the integer at byte {at} of a message has no end{_REMEDY}")


def _message(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise FileFormatError(f"the file is damaged: {what} is an integer instead of bytes{_REMEDY}")
    return value


def _integer(values: dict[int, Value], number: int, default: int) -> int:
    """Return a 32-bit integer with a sign, as protobuf stores it."""
    value = values.get(number, default)
    if not isinstance(value, int):
        raise FileFormatError(f"the file is damaged: the field {number} contains bytes instead of an integer{_REMEDY}")
    value &= 2**32 - 1
    return value - 2**32 if value >= 2**31 else value


def _text(value: Value, i: int) -> str:
    try:
        return bytes(_message(value, f"the piece {i}")).decode("utf-8")
    except UnicodeDecodeError:
        raise FileFormatError(f"the file is damaged: the piece {i} is not UTF-8{_REMEDY}") from None


def _number(value: Value) -> float:
    if isinstance(value, int):
        if value == 0:
            return 0.0
        raise FileFormatError(f"the file is damaged: a score is the integer {value} instead of a float{_REMEDY}")
    if len(value) != 4:
        raise FileFormatError(f"the file is damaged: a score has {len(value)} bytes instead of 4{_REMEDY}")
    number: float = struct.unpack("<f", value)[0]
    return number
