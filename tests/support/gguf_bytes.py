"""Valid and hostile GGUF files, written byte by byte without toynn or the gguf library."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_CODES = dict(zip((U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64), "BbHhIif?Qqd", strict=True))


def text(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def scalar(kind: int, value: float | str) -> bytes:
    """Return the bytes of a type and a value."""
    body = text(value) if isinstance(value, str) else struct.pack(f"<{_CODES[kind]}", value)
    return struct.pack("<I", kind) + body


def array(of: int, values: list[int] | list[float] | list[str], count: int | None = None) -> bytes:
    """Return the bytes of an array: its type, its length and its values. `count` replaces the true length."""
    n = len(values) if count is None else count
    items = b"".join(text(v) if isinstance(v, str) else struct.pack(f"<{_CODES[of]}", v) for v in values)
    return struct.pack("<IIQ", ARRAY, of, n) + items


@dataclass
class GgufBytes:
    """The content of a GGUF file.

    values: pairs of a key and the bytes of `scalar` or `array`. tensors: name, ne, type, offset (None: directly after
    the previous tensor), data.
    """

    values: list[tuple[str | bytes, bytes]] = field(default_factory=list)
    tensors: list[tuple[str, list[int], int, int | None, bytes]] = field(default_factory=list)
    version: int = 3
    n_values: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def set(self, key: str, value: bytes | None) -> GgufBytes:
        """Return a copy with another value of a key. If the value is None, the copy does not have the key."""
        kept = [(k, value if k == key and value is not None else v) for k, v in self.values if k != key or value]
        if value is not None and key not in dict(self.values):
            kept.append((key, value))
        return GgufBytes(kept, self.tensors, self.version, self.n_values, self.n_tensors, self.alignment)

    def with_tensor(self, name: str, ne: list[int], kind: int, offset: int | None, data: bytes) -> GgufBytes:
        """Return a copy with this tensor, which replaces the tensor of the same name or is appended."""
        one = (name, ne, kind, offset, data)
        tensors = [one if tensor[0] == name else tensor for tensor in self.tensors]
        if one not in tensors:
            tensors.append(one)
        return GgufBytes(self.values, tensors, self.version, self.n_values, self.n_tensors, self.alignment)

    def without_tensor(self, name: str) -> GgufBytes:
        tensors = [tensor for tensor in self.tensors if tensor[0] != name]
        return GgufBytes(self.values, tensors, self.version, self.n_values, self.n_tensors, self.alignment)

    def build(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_values = len(self.values) if self.n_values is None else self.n_values
        head = b"GGUF" + struct.pack("<IQQ", self.version, n_tensors, n_values)
        head += b"".join(text(key) + value for key, value in self.values)
        data = b""
        for name, ne, kind, offset, content in self.tensors:
            at = len(data) if offset is None else offset
            head += text(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, at)
            data += content + b"\0" * (-len(content) % self.alignment)
        return head + b"\0" * (-len(head) % self.alignment) + data


def tiny(n_layers: int = 1) -> GgufBytes:
    """Return a small llama model without a tokenizer: vocab 6, d_model 4, 2 heads of size 2, d_ff 8."""
    good = GgufBytes()
    for key, value in {
        "general.architecture": scalar(STRING, "llama"),
        "llama.block_count": scalar(U32, n_layers),
        "llama.context_length": scalar(U32, 16),
        "llama.embedding_length": scalar(U32, 4),
        "llama.feed_forward_length": scalar(U32, 8),
        "llama.attention.head_count": scalar(U32, 2),
        "llama.attention.layer_norm_rms_epsilon": scalar(F32, 1e-5),
        "tokenizer.ggml.model": scalar(STRING, "no_vocab"),
    }.items():
        good.values.append((key, value))
    shapes = {"token_embd.weight": [4, 6], "output_norm.weight": [4]}
    for i in range(n_layers):
        for part, ne in {
            "attn_norm": [4], "ffn_norm": [4], "attn_q": [4, 4], "attn_k": [4, 4], "attn_v": [4, 4],
            "attn_output": [4, 4], "ffn_gate": [4, 8], "ffn_up": [4, 8], "ffn_down": [8, 4],
        }.items():  # fmt: skip
            shapes[f"blk.{i}.{part}.weight"] = ne
    for name, ne in shapes.items():
        n = ne[0] * (ne[1] if len(ne) > 1 else 1)
        good.tensors.append((name, ne, 0, None, struct.pack(f"<{n}f", *[(i % 7 - 3) / 8 for i in range(n)])))
    return good


def of_toy(*, by_head: bool) -> GgufBytes:
    """Return `tiny` as a file of the Ruby project toy: without a tokenizer. by_head: with one tensor for each head."""
    file = tiny().set("tokenizer.ggml.model", None).set("toy.ggml_native", scalar(BOOL, 1))
    for name in ("attn_q", "attn_k", "attn_v") if by_head else ():
        file = file.without_tensor(f"blk.0.{name}.weight")
        for head in range(2):
            file = file.with_tensor(f"blk.0.{name}.head_{head}.weight", [4, 2], 0, None, struct.pack("<8f", *range(8)))
    return file
