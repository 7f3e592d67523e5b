"""The GGUF files of the Ruby project toy: what differs from the files of llama.cpp.

Both have the architecture `llama`. In a file of toy, the key `toy.ggml_native` is true. The rows of q and k are in the
order "halves", as in toynn and Hugging Face (see `rope_order`). The file may have no tokenizer. Older files of toy hold
one tensor for each head.
"""

from __future__ import annotations

from collections.abc import Collection

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_header import GgufValues, shortest
from toynn.model.config import RopeScaling
from toynn.model.shape import ModelShape
from toynn.model.weights import Weight, head_name, weights_by_head_of, weights_of

NATIVE, FORMAT, N_PARAMS = "toy.ggml_native", "toy.checkpoint_format", "toy.n_params_written"
FORMAT_1 = "toy-from-scratch/v1"
NAME = "toy-from-scratch"  # the value of general.name
_SCALING = "llama.rope.scaling."
# Only files of toy have all these keys.
SCALING_KEYS = tuple(
    f"{_SCALING}{name}" for name in ("type", "factor", "original_context_length", "low_freq_factor", "high_freq_factor")
)


def is_toy_file(values: GgufValues, names: Collection[str]) -> bool:
    """Return whether toy wrote the file. In a file of toy, the rows of q and k are in toynn's order.

    names: the names of the file's tensors.

    Raises FileFormatError for a file of toy in a layout that toynn does not read.
    """
    by_head = next((name for name in names if has_head(name)), None)
    if (form := values.text(FORMAT, FORMAT_1)) != FORMAT_1:
        raise FileFormatError(f"{FORMAT} is {form!r:.60}, but toynn reads only {FORMAT_1!r}")
    if NATIVE in values:
        if not values.flag(NATIVE):
            raise FileFormatError(
                f"{NATIVE} is false: the file has toy's old layout with transposed matrices, which toynn does not "
                "read; write the file again with toy's converter and its option --ggml-native"
            )
        return True
    if by_head is not None and FORMAT in values:  # the first files of toy had no key for the layout
        return True
    if by_head is not None or FORMAT in values:
        found = f"the tensor {by_head!r:.80}" if by_head is not None else f"the key {FORMAT}"
        raise FileFormatError(
            f"{found} shows that this is a file of toy, but the key {NATIVE}, which states its layout, is missing"
        )
    return False


def has_head(name: str) -> bool:
    """Return whether this is the name of a weight of one head."""
    found = head_name(name)
    return found is not None and found.head is not None


# ---- files with one tensor for each head ----


def check_heads(n: int, names: Collection[str]) -> None:
    """Raise FileFormatError for a file with one tensor for each head if it has fewer tensors than heads."""
    if n > len(names) and any(has_head(name) for name in names):
        raise FileFormatError(
            f"the file must have a tensor for each of {n} query heads, but it has only {len(names)} tensors"
        )


def whole_names(names: Collection[str]) -> set[str]:
    """Return the names of tensors, with the name of the whole weight instead of the names of its heads."""
    return {name if (found := head_name(name)) is None else found.whole for name in names}


def stored_sizes(shape: ModelShape, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the size of each tensor that a file must have for a model of this shape.

    names: the names of the file's tensors.
    """
    weights = weights_by_head_of(shape) if any(has_head(name) for name in names) else weights_of(shape)
    return {weight.name: weight.size for weight in weights}


def stored_names(weight: Weight, names: Collection[str]) -> list[str]:
    """Return the names of the tensors that together have the rows of the weight: the weight itself, or its heads."""
    found = head_name(weight.name)
    if weight.name in names or found is None:
        return [weight.name]
    return [found.of_head(head) for head in range(found.heads(weight.shape)[0])]


# ---- RoPE scaling ----


def read_toy_scaling(values: GgufValues) -> RopeScaling:
    """Return the RoPE scaling that a file of toy describes by keys.

    Raises FileFormatError for a scaling of another kind.
    """
    kind = values.text(f"{_SCALING}type", "none")
    if kind == "none":
        return RopeScaling.none()
    factor = shortest(values.number(f"{_SCALING}factor"))
    if kind == "linear":
        return RopeScaling.linear(factor)
    if kind == "llama3":
        return RopeScaling.llama3(
            factor,
            shortest(values.number(f"{_SCALING}low_freq_factor")),
            shortest(values.number(f"{_SCALING}high_freq_factor")),
            values.whole(f"{_SCALING}original_context_length"),
        )
    raise FileFormatError(
        f"{_SCALING}type is {kind!r:.60}, but toynn supports only 'linear' and 'llama3' in a file of toy"
    )


def toy_scaling(scaling: RopeScaling) -> dict[str, str | float | int]:
    """Return the keys that describe a RoPE scaling to toy.

    Raises TinyNNValueError for a scaling that toy does not have.
    """
    for name in ("attn_factor", *(() if scaling.kind == "linear" else ("freq_scale",))):
        if (value := getattr(scaling, name)) != 1.0:
            raise TinyNNValueError(f"rope_scaling.{name} = {value!r} cannot be exported: it must be 1")
    if scaling.kind == "none":
        return {}
    if scaling.kind == "linear":
        return {f"{_SCALING}type": "linear", f"{_SCALING}factor": scaling.factor}
    if scaling.kind != "llama3":
        raise TinyNNValueError(
            f"rope_scaling.kind = {scaling.kind!r} cannot be exported for toy, which has only 'linear' and 'llama3'"
        )
    return {
        f"{_SCALING}type": "llama3",
        f"{_SCALING}factor": scaling.factor,
        f"{_SCALING}original_context_length": scaling.orig_max_pos,
        f"{_SCALING}low_freq_factor": scaling.low_freq,
        f"{_SCALING}high_freq_factor": scaling.high_freq,
    }
